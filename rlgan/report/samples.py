"""What a generator made, as a file: a picture of images, or lines of text."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from rlgan.errors import RlganError, UsageError
from rlgan.report import grid
from rlgan.tokens import Tokens


def save(samples: Tensor, tokens: Tokens | None, path: Path) -> Path:
    """Write samples (n, ...) and return the path; where it has no suffix, ``.png`` or ``.txt`` is added.

    Raises:
        UsageError: the path is that of a folder, or no name of a picture where samples are images.
        RlganError: the file cannot be written.
    """
    suffix = ".txt" if tokens else ".png"
    if path.is_dir():
        raise UsageError(f"out={path} is a folder: write out={path / f'samples{suffix}'}")
    path = path if path.suffix else path.with_suffix(suffix)
    if tokens is None and path.suffix.lower() != suffix:
        raise UsageError(f"out={path} is no name of a picture: write out={path.with_suffix(suffix)}")
    if tokens is None:
        grid.save(path, samples.cpu().numpy())
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in tokens.text(samples)), encoding="utf-8")
    except OSError as error:
        raise RlganError(f"the file {path} could not be written: {error.strerror or error}") from error
    return path
