"""Keys of the commands that take a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le


@dataclass(frozen=True)
class EvalOptions:
    """Keys of ``rlgan eval``."""

    episodes: Annotated[int, Ge(1)] | None = None
    """Whole games; none = as many as the run's eval.episodes."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Fixes the games."""


@dataclass(frozen=True)
class WatchOptions:
    """Keys of ``rlgan watch``."""

    episodes: Annotated[int, Ge(1)] = 1
    """Whole games in the film."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Fixes the games."""
    out: Path | None = None
    """The film's file; none = under videos in the run directory."""
