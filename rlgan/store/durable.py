"""Bytes that survive a crash: hashed while written, synced before they are named, verified before they are parsed.

Only regular files are read, and a symbolic link in place of a file is refused, so that a run directory from elsewhere
cannot point a reader at something outside itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from rlgan.errors import UsageError

CHUNK = 1 << 20
MAX_BYTES = 1 << 36
"""Largest file and largest unpacked segment, in bytes: above any real one, so that a forged size allocates nothing."""

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}
"""Names of the safetensors format."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_HEX = re.compile(r"[0-9a-f]{64}")


def dtype_name(name: str, tensor: Tensor) -> str:
    """Name of a tensor's dtype in files. TypeError if it cannot be stored bit for bit."""
    if tensor.layout is not torch.strided or tensor.dtype not in _NAMES:
        raise TypeError(f"{name!r} is a {tensor.layout} tensor of {tensor.dtype}; only dense real tensors can be saved")
    return _NAMES[tensor.dtype]


def chunks(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, row-major; only what is not contiguous or on a device is copied, a piece at a time."""
    rows = tensor.detach()
    if rows.dim() == 0 or rows.is_contiguous():
        rows = rows.reshape(-1)
    if rows.numel() == 0:
        return
    count = max(1, CHUNK // (rows[0].numel() * rows.element_size()))
    for start in range(0, len(rows), count):
        part = rows[start : start + count].contiguous().cpu()
        yield part.reshape(-1).view(torch.uint8).numpy().data


class HashedWriter:
    """A new file whose bytes are hashed on their way; leaving the block syncs it to the disk. Raises OSError."""

    def __init__(self, path: Path):
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> HashedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of data, however short the single writes fall."""
        view = memoryview(data)
        self._hash.update(view)
        while view:
            count = os.write(self._file, view)
            if count == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.size += count
            view = view[count:]

    @property
    def sha256(self) -> str:
        """Hash of all bytes so far."""
        return self._hash.hexdigest()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_file(path: Path, what: str) -> BufferedReader:
    """Open a regular file for reading. UsageError if it is missing, a link, or not a file; ``what`` names its owner."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{what} is refused: {path.name} is a symbolic link, not a file") from error
        raise UsageError(f"{what} cannot be read: {path.name}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{what} is refused: {path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def verify(path: Path, size: int, sha256: str, what: str) -> None:
    """Compare a file with the size and hash that a manifest states. UsageError says how they differ."""
    with open_file(path, what) as file:
        actual = os.fstat(file.fileno()).st_size
        if actual != size:
            change = "truncated" if actual < size else "changed"
            raise UsageError(f"{what} is {change}: {path.name} has {actual} bytes, its manifest says {size}")
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise UsageError(f"{what} is damaged or was tampered with: {path.name} does not match its sha256")


def is_count(value: object, most: int) -> bool:
    """Whether a value read from JSON is an integer in [0, most]."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def is_hash(value: object) -> bool:
    """Whether a value read from JSON is a sha256 in hexadecimal."""
    return isinstance(value, str) and _HEX.fullmatch(value) is not None
