"""Checkpoints: a directory of safetensors and JSON that is complete or not there, and never runs code when loaded.

``step_<n>/`` holds ``tensors.safetensors``, ``state.json`` (everything else, and the shape of the tree) and, written
last, ``manifest.json`` with the size and sha256 of both and the replay segments that belong to it. A directory is
written under a temporary name, synced, then renamed, so a crash at any moment leaves the older checkpoints whole.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlgan.errors import RlganError, UsageError
from rlgan.store.durable import HashedWriter, chunks, dtype_name, sync_directory, verify
from rlgan.store.manifest import FORMAT, KIND, MANIFEST, MAX_JSON, STATE, TENSORS, read_manifest, sealed
from rlgan.store.segments import FOLDER, check_ref, read_segment, verify_segment, write_segment
from rlgan.store.tree import decode, encode

__all__ = [
    "Checkpoint",
    "chosen",
    "discard_unlisted",
    "load",
    "newest",
    "read_segment",
    "save",
    "stored",
    "write_segment",
]

MAX_TENSORS = 100_000
NEWEST, BEST = "newest", "best"
_NAME = re.compile(r"step_(\d+)(\.replaced)?")
_TEMPORARY = "ckpt.tmp-"


@dataclass(frozen=True)
class Checkpoint:
    """What a verified checkpoint holds; all tensors are on the CPU."""

    path: Path
    step: int
    tree: dict[str, Any]
    info: dict[str, Any]
    segments: list[dict[str, Any]]


def save(
    root: Path,
    step: int,
    tree: dict[str, Any],
    info: dict[str, Any],
    segments: list[dict[str, Any]],
    keep: int,
    best: bool = False,
) -> Path:
    """Commit a checkpoint, then remove what is no longer needed.

    Args:
        root: the folder of the checkpoints.
        step: counted steps; names the directory. A checkpoint of the same step is replaced, and stays the best.
        tree: nested dicts, lists and tuples of tensors and JSON scalars. Tensors are streamed, never copied whole.
        info: what a reader needs before the tree (config, versions, length of the record); JSON.
        segments: references from ``write_segment``, oldest first.
        keep: how many of the newest to keep, beside the newest that was marked ``best``.
        best: marks this one as the best so far.

    Returns:
        The directory of the checkpoint.

    Raises:
        RlganError: the disk is full or fails; the older checkpoints are as they were.
    """
    if keep < 1:
        raise ValueError("keep must be at least 1")
    tensors: dict[str, Tensor] = {}
    state = _json({"tree": encode(tree, tensors)})
    final = root / f"step_{step}"
    body = {"kind": KIND, "format": FORMAT, "step": step, "info": encode(info, None), "segments": segments}
    for ref in segments:
        check_ref(ref, f"the checkpoint of step {step}")
    if len(state) > MAX_JSON or len(tensors) > MAX_TENSORS:
        raise ValueError(f"a state of {len(state)} bytes of JSON and {len(tensors)} tensors could not be loaded")
    temporary = root / f"{_TEMPORARY}{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _require_space(root, sum(t.numel() * t.element_size() for t in tensors.values()) + len(state))
        for ref in segments:
            os.stat(root / FOLDER / ref["file"])
        shutil.rmtree(temporary, ignore_errors=True)
        os.mkdir(temporary)
        files = {TENSORS: _write_tensors(temporary / TENSORS, tensors), STATE: _write(temporary / STATE, state)}
        best = best or bool(_manifests(root).get(final, {}).get("best"))
        _write(temporary / MANIFEST, sealed({**body, "best": best, "files": files}))
        sync_directory(temporary)
        _put(temporary, final)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RlganError(
            f"the checkpoint of step {step} could not be saved in {root} ({error.strerror or error})"
        ) from error
    try:
        _prune(root, keep, final)
    except OSError as error:
        print(f"warning: old checkpoints in {root} could not be removed: {error}", file=sys.stderr)
    return final


def load(path: Path, *, segments: bool = True) -> Checkpoint:
    """Read a checkpoint after verifying the size and hash of all that belongs to it.

    Args:
        path: a directory that ``save`` returned.
        segments: False leaves the replay segments unchecked: enough to evaluate or watch.

    Raises:
        UsageError: not a checkpoint, truncated, tampered with, or of a newer format; the sentence says which.
    """
    what = f"the checkpoint {path}"
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        verify(path / name, entry["bytes"], entry["sha256"], what)
    if segments:
        for ref in manifest["segments"]:
            verify_segment(path.parent, ref)
    try:
        with safe_open(path / TENSORS, framework="pt") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise UsageError(f"{what} is refused: it holds {len(names)} tensors, more than {MAX_TENSORS}")
            tensors = {name: file.get_tensor(name) for name in names}
        tree = decode(json.loads((path / STATE).read_bytes())["tree"], tensors)
        info = decode(manifest["info"], {})
        if not (isinstance(tree, dict) and isinstance(info, dict)):
            raise ValueError("the state and the info must be dicts")
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{what} is refused: its content is not what rlgan writes ({error})") from error
    return Checkpoint(path, manifest["step"], tree, info, manifest["segments"])


def newest(root: Path, *, segments: bool = True) -> Checkpoint:
    """Load the newest checkpoint that verifies; each one passed over is named on stderr. UsageError if none does."""
    reasons = []
    for path in stored(root):
        try:
            checkpoint = load(path, segments=segments)
        except UsageError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            print(f"warning: {reason}; falling back to {path.name}", file=sys.stderr)
        return checkpoint
    if reasons:
        raise UsageError(f"none of the {len(reasons)} checkpoints in {root} can be used: {'; '.join(reasons)}")
    raise UsageError(f"there is no checkpoint in {root}: the run ended before its first one; start it again")


def chosen(root: Path, which: str) -> Checkpoint:
    """Load a checkpoint without its replay: the ``newest``, the ``best`` by its evaluation, or that of a step.

    UsageError: there is none, or it does not verify.
    """
    if which == NEWEST:
        return newest(root, segments=False)
    try:
        found = _manifests(root)  # a damaged one is none
    except OSError as error:
        raise UsageError(f"the checkpoints in {root} cannot be read: {error.strerror or error}") from error
    wanted = (path for path, m in found.items() if (m.get("best") if which == BEST else str(m["step"]) == which))
    if path := next(wanted, None):
        return load(path, segments=False)
    kept = ", ".join(str(manifest["step"]) for manifest in found.values()) or "none"
    missing = "best checkpoint, for nothing was evaluated yet" if which == BEST else f"checkpoint of step {which}"
    raise UsageError(f"{root} has no {missing}: there are those of steps {kept}")


def discard_unlisted(root: Path, after: int | None = None) -> None:
    """Clean up before a run goes on: half-written directories, and segments that no manifest lists.

    Args:
        root: the folder of the checkpoints.
        after: the step that the run resumes from; later checkpoints, which it will write again, are removed too.

    Raises:
        RlganError: something cannot be removed.
    """
    try:
        for path in stored(root):
            step, replaced = _parse(path)
            if replaced and not (root / f"step_{step}").exists():
                os.replace(path, root / f"step_{step}")
            elif replaced or (after is not None and step > after):
                _remove(path)
        for path in root.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(path)
        _discard_segments(root, _manifests(root).values())
    except OSError as error:
        raise RlganError(f"the checkpoints in {root} cannot be tidied before resuming: {error}") from error


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _write(path: Path, data: bytes) -> dict[str, Any]:
    with HashedWriter(path) as file:
        file.write(data)
    return {"bytes": file.size, "sha256": file.sha256}


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    # Widest elements first, as safetensors does: every tensor then starts at a multiple of its element size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": dtype_name(name, tensor), "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = _json(header)
    text += b" " * (-len(text) % 8)
    with HashedWriter(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in ordered:
            for chunk in chunks(tensor):
                file.write(chunk)
    return {"bytes": file.size, "sha256": file.sha256}


def _require_space(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        text = f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {text}")


def _put(temporary: Path, final: Path) -> None:
    # A directory cannot be renamed over another, so an old one of the same step waits under a name that readers know.
    replaced = final.with_name(f"{final.name}.replaced")
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(final, replaced)
    try:
        os.replace(temporary, final)
    except OSError:
        if replaced.exists():
            os.replace(replaced, final)
        raise
    sync_directory(final.parent)
    if replaced.exists():
        _remove(replaced)


def _parse(path: Path) -> tuple[int, bool]:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(path.name)
    return int(match[1]), bool(match[2])


def stored(root: Path) -> list[Path]:
    """Directories of checkpoints, newest first; a replaced one comes after the one that took its place."""
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (-_parse(path)[0], _parse(path)[1]))


def _manifests(root: Path) -> dict[Path, dict[str, Any]]:
    """Manifests that verify, newest first. OSError if one cannot be read."""
    manifests = {}
    for path in stored(root):
        try:
            manifests[path] = read_manifest(path)
        except UsageError as error:
            if isinstance(error.__cause__, OSError):
                # Sound perhaps, and its segments unknown: whoever removes what is not listed must stop here.
                raise error.__cause__ from None
            # Damaged beyond doubt. It is left as it is: loading it is what reports it.
            continue
    return manifests


def _prune(root: Path, keep: int, written: Path) -> None:
    manifests = _manifests(root)
    if written not in manifests:
        raise OSError(errno.EIO, f"{written.name}, just written, does not read back")
    kept = {written, *list(manifests)[:keep], *[path for path, m in manifests.items() if m.get("best")][:1]}
    for path in manifests.keys() - kept:
        _remove(path)
    _discard_segments(root, [manifests[path] for path in kept])


def _remove(path: Path) -> None:
    # Renamed first, so that a crash half-way leaves no directory that looks like a damaged checkpoint.
    doomed = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    os.replace(path, doomed)
    if doomed.is_symlink():
        os.unlink(doomed)
    else:
        shutil.rmtree(doomed)


def _discard_segments(root: Path, manifests: Iterable[dict[str, Any]]) -> None:
    listed = {ref["file"] for manifest in manifests for ref in manifest["segments"]}
    folder = root / FOLDER
    if folder.is_dir() and not folder.is_symlink():
        for path in folder.iterdir():
            if path.name not in listed:
                path.unlink()
