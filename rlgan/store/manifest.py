"""The manifest of a checkpoint: what belongs to it, with sizes and hashes, and a hash of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rlgan.errors import UsageError
from rlgan.store.durable import MAX_BYTES, is_count, is_hash, open_file
from rlgan.store.segments import check_ref

KIND = "rlgan checkpoint"
FORMAT = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
MAX_JSON = 1 << 26
MAX_STEP = 1 << 62
_LIMITS = {TENSORS: MAX_BYTES, STATE: MAX_JSON}


def sealed(body: dict[str, Any]) -> bytes:
    """The bytes of a manifest, its own sha256 included."""
    data = json.dumps({**body, "sha256": _seal(body)}, allow_nan=False, indent=1).encode()
    if len(data) > MAX_JSON:
        raise ValueError(f"the manifest has {len(data)} bytes: more than can be loaded")
    return data


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest. UsageError: not one, damaged, tampered with, forged, or of a newer format."""
    what = f"the checkpoint {path}"
    if path.is_symlink():
        raise UsageError(f"{what} is refused: it is a symbolic link; name the directory itself")
    if not (path / MANIFEST).exists():
        raise UsageError(f"{path} is not a checkpoint: it has no {MANIFEST}")
    with open_file(path / MANIFEST, what) as file:
        data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise UsageError(f"{what} is refused: its {MANIFEST} is larger than {MAX_JSON} bytes")
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is truncated or damaged: its {MANIFEST} is not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise UsageError(f"{path} is not a checkpoint: its {MANIFEST} was not written by rlgan")
    if is_count(manifest.get("format"), MAX_STEP) and manifest["format"] > FORMAT:
        raise UsageError(
            f"{what} has format {manifest['format']} and this rlgan reads up to {FORMAT}: "
            "upgrade it with `pip install -U rlgan`"
        )
    if manifest.pop("sha256", None) != _seal(manifest):
        raise UsageError(f"{what} is damaged or was tampered with: its {MANIFEST} does not match its own sha256")
    _check_manifest(manifest, what)
    return manifest


def _check_manifest(manifest: dict[str, Any], what: str) -> None:
    files, segments = manifest.get("files"), manifest.get("segments")
    if not isinstance(files, dict) or set(files) != set(_LIMITS):
        raise UsageError(f"{what} is refused: its manifest must list {TENSORS} and {STATE}, and nothing else")
    for name, entry in files.items():
        if not isinstance(entry, dict) or not is_hash(entry.get("sha256")):
            raise UsageError(f"{what} is refused: its manifest has no sha256 of {name}")
        if not is_count(entry.get("bytes"), _LIMITS[name]):
            raise UsageError(f"{what} is refused: its manifest says that {name} has {entry.get('bytes')!r:.40} bytes")
    if not isinstance(segments, list) or not is_count(manifest.get("step"), MAX_STEP) or "info" not in manifest:
        raise UsageError(f"{what} is refused: its manifest lacks the step, the info or the segments")
    for ref in segments:
        check_ref(ref, what)
