"""Immutable pieces of a replay ring: the rows added between two checkpoints, compressed, hashed, written once.

Layout of a file: 8 bytes ``rlganrow``, version and header length as little-endian uint32, a JSON header (first row,
number of rows, name, dtype and shape of each array), then one zlib stream with the arrays' bytes one after another.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rlgan.errors import RlganError, UsageError
from rlgan.store.durable import (
    CHUNK,
    DTYPES,
    MAX_BYTES,
    HashedWriter,
    chunks,
    dtype_name,
    is_count,
    is_hash,
    open_file,
    sync_directory,
    verify,
)

VERSION = 1
FOLDER = "segments"
MAX_ROWS = 1 << 48
_MAGIC = b"rlganrow"
_HEADER = struct.Struct("<8sII")
_MAX_HEADER = 1 << 20
_MAX_RATIO = 1040
"""Deflate cannot compress further than 1032:1, so a header that declares more is forged."""
_FILE = re.compile(r"rows_\d{12,15}_([0-9a-f]{64})\.z")


def write_segment(root: Path, first: int, arrays: dict[str, Tensor]) -> dict[str, Any]:
    """Write rows ``first ..`` of a ring and return the reference that a manifest lists.

    Args:
        root: the folder of the checkpoints.
        first: absolute index of the first row.
        arrays: tensors (rows, ...) with equally many rows. They are streamed, never copied whole.

    Returns:
        ``{"file", "sha256", "first", "rows", "bytes"}``; ``bytes`` is the size of the file.

    Raises:
        RlganError: the disk is full or fails; nothing that was there before is touched.
    """
    if not arrays or len({len(array) for array in arrays.values()}) != 1:
        raise ValueError("a segment needs at least one array, all with the same number of rows")
    rows = len(next(iter(arrays.values())))
    listed = [{"name": k, "dtype": dtype_name(k, v), "shape": list(v.shape)} for k, v in arrays.items()]
    header = json.dumps({"first": first, "rows": rows, "arrays": listed}).encode()
    folder = root / FOLDER
    temporary = folder / f"tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with HashedWriter(temporary) as file:
            file.write(_HEADER.pack(_MAGIC, VERSION, len(header)))
            file.write(header)
            packer = zlib.compressobj(1)
            for array in arrays.values():
                for chunk in chunks(array):
                    file.write(packer.compress(chunk))
            file.write(packer.flush())
        name = f"rows_{first:012d}_{file.sha256}.z"
        os.replace(temporary, folder / name)
        sync_directory(folder)
        sync_directory(root)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RlganError(
            f"{rows} rows of the replay could not be saved in {folder} ({error.strerror or error})"
        ) from error
    return {"file": name, "sha256": file.sha256, "first": first, "rows": rows, "bytes": file.size}


def check_ref(ref: object, what: str) -> None:
    """UsageError unless ref is a reference whose name can only mean a file in the segments' own folder."""
    if (
        isinstance(ref, dict)
        and isinstance(ref.get("file"), str)
        and (match := _FILE.fullmatch(ref["file"]))
        and is_hash(ref.get("sha256"))
        and match[1] == ref["sha256"]
        and is_count(ref.get("bytes"), MAX_BYTES)
        and is_count(ref.get("first"), MAX_ROWS)
        and is_count(ref.get("rows"), MAX_ROWS)
    ):
        return
    raise UsageError(
        f"{what} is refused: its manifest lists a replay segment with a bad name, size or hash: {ref!r:.200}"
    )


def verify_segment(root: Path, ref: dict[str, Any]) -> None:
    """UsageError unless the segment is there with the size and the hash of its reference."""
    check_ref(ref, f"the replay segment in {root}")
    _check_folder(root)
    verify(root / FOLDER / ref["file"], ref["bytes"], ref["sha256"], f"the replay segment {ref['file']:.17}… in {root}")


def read_segment(root: Path, ref: dict[str, Any]) -> dict[str, Tensor]:
    """Read a segment back, bit for bit, onto the CPU. UsageError: missing, damaged, forged or of a newer version."""
    verify_segment(root, ref)
    what = f"the replay segment {ref['file']:.17}… in {root}"
    with open_file(root / FOLDER / ref["file"], what) as file:
        shapes = _read_header(file, ref, what)
        arrays = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in shapes.items()}
        unpacker = zlib.decompressobj()
        try:
            for array in arrays.values():
                _fill(file, unpacker, array)
            rest = unpacker.decompress(unpacker.unconsumed_tail + file.read(), 1)
        except (zlib.error, EOFError) as error:
            raise UsageError(f"{what} is refused: its compressed rows are damaged or fewer than declared") from error
        if rest or not unpacker.eof or unpacker.unused_data:
            raise UsageError(f"{what} is refused: it holds more bytes than its header declares")
    return arrays


def _check_folder(root: Path) -> None:
    if (root / FOLDER).is_symlink():
        raise UsageError(f"{root / FOLDER} is refused: it is a symbolic link, not a folder")


def _read_header(file: BinaryIO, ref: dict[str, Any], what: str) -> dict[str, tuple[torch.dtype, list[int]]]:
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size or not start.startswith(_MAGIC):
        raise UsageError(f"{what} is refused: it is not a replay segment")
    _, version, length = _HEADER.unpack(start)
    if version > VERSION:
        raise UsageError(
            f"{what} has format {version} and this rlgan reads up to {VERSION}: upgrade it with `pip install -U rlgan`"
        )
    try:
        header: Any = json.loads(file.read(length) if length <= _MAX_HEADER else b"")
        shapes = {entry["name"]: (DTYPES[entry["dtype"]], entry["shape"]) for entry in header["arrays"]}
        sound = (
            header["first"] == ref["first"] and header["rows"] == ref["rows"] and len(shapes) == len(header["arrays"])
        )
        total = 0
        for dtype, shape in shapes.values():
            sound &= isinstance(shape, list) and len(shape) <= 16 and all(is_count(n, MAX_ROWS) for n in shape)
            sound &= shape[0] == ref["rows"]
            total += math.prod(max(n, 1) for n in shape) * dtype.itemsize
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UsageError(f"{what} is refused: its header is damaged") from error
    if not sound:
        raise UsageError(f"{what} is refused: its header does not agree with the manifest")
    if total > min(MAX_BYTES, ref["bytes"] * _MAX_RATIO):
        raise UsageError(
            f"{what} is refused: {ref['bytes']} bytes cannot unpack to the {total} that its header declares"
        )
    return shapes


def _fill(file: BinaryIO, unpacker: Any, array: Tensor) -> None:
    target = array.view(-1).view(torch.uint8).numpy().data
    filled = 0
    while filled < len(target):
        packed = unpacker.unconsumed_tail or file.read(CHUNK)
        data = unpacker.decompress(packed, min(CHUNK, len(target) - filled))
        if not data and not packed:
            raise EOFError
        target[filled : filled + len(data)] = data
        filled += len(data)
