"""Samples as one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlgan.errors import RlganError

SIDE = 56
"""Least side of one sample in the picture, in pixels."""
GAP = 2


def save(path: Path, samples: NDArray[np.uint8]) -> None:
    """Write samples (n, C, H, W) uint8 of 1 or 3 channels as a PNG, nearly square, row by row.

    Raises:
        RlganError: the file cannot be written.
    """
    from matplotlib.image import imsave

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, tiled(samples))
    except OSError as error:
        raise RlganError(f"the picture {path} could not be written: {error.strerror or error}") from error


def tiled(samples: NDArray[np.uint8]) -> NDArray[Any]:
    """Lay samples (n, C, H, W) side by side, enlarged by a whole number: (height, width, 3)."""
    n, channels, height, width = samples.shape
    zoom = max(1, math.ceil(SIDE / height))
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    tall, wide = height * zoom + GAP, width * zoom + GAP
    picture = np.full((rows * tall - GAP, columns * wide - GAP, 3), 255, np.uint8)
    for i, sample in enumerate(samples):
        tile = sample.transpose(1, 2, 0).repeat(zoom, 0).repeat(zoom, 1)
        top, left = i // columns * tall, i % columns * wide
        picture[top : top + height * zoom, left : left + width * zoom] = tile if channels == 3 else tile[..., :1]
    return picture
