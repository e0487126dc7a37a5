"""What a generator learns from, and who judges it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rlgan.specs import Score
from rlgan.tokens import Tokens


def fingerprint(*parts: np.ndarray | bytes) -> str:
    """Twelve digits of the hash of arrays or of files' bytes, by which a protocol names data."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return f"sha256={found.hexdigest()[:12]}"


@dataclass(frozen=True, eq=False)
class DataSet:
    """Real samples, on the CPU."""

    real: Tensor
    """(M, ...): images are (M, C, H, W) uint8."""
    labels: Tensor | None = None
    """(M,) int64, from 0; where they are given, a classifier judges what a generator makes."""
    protocol: str = ""
    """What a score depends on: source, number of samples, preparation."""
    tokens: Tokens | None = None
    """What samples (M, L) int64 are made of, where they are sequences."""
    judge: Callable[[torch.device], Judge] | None = None
    """Makes the judge of this set."""


class Judge(Protocol):
    """Says how good a generator of one data set is.

    One of sequences also has ``plane``, the two entries of a row that temperatures are drawn by, across and upwards;
    and ``points``, known places in it: (x, y), or (y,) of a line across.
    """

    @property
    def drawn(self) -> str:
        """The entry of a row that the curve shows."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """Known values of it."""

    def row(self, generator: Any, n: int) -> dict[str, Any]:
        """Evaluate n samples: the entry that matters most comes first."""

    def rank(self, row: dict[str, Any]) -> float:
        """What is highest in the best row."""

    def sentence(self, row: dict[str, Any]) -> str:
        """Say what was found."""
