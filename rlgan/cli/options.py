"""Keys of the commands that take a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le, Predicate

Temperature = Annotated[float, Ge(0.01)]
"""By which a generator of sequences divides its logits; at 0 there would be no likelihood, and one sample alone."""


def _names_a_checkpoint(text: str) -> bool:
    """newest, best or the step of a checkpoint"""
    return text in ("newest", "best") or text.isdecimal()


@dataclass(frozen=True)
class ResumeOptions:
    """Keys of ``rlgan resume``."""

    steps: Annotated[int, Ge(1)] | None = None
    """How long the run is from now on; none = as it was."""


@dataclass(frozen=True)
class OfACheckpoint:
    """What is looked at."""

    checkpoint: Annotated[str, Predicate(_names_a_checkpoint)] = "newest"
    """The newest, the best by its evaluation in the run, or that of a step."""


@dataclass(frozen=True)
class EvalOptions(OfACheckpoint):
    """Keys of ``rlgan eval``."""

    episodes: Annotated[int, Ge(1)] | None = None
    """Whole games of an agent; none = as many as the run's eval.episodes."""
    samples: Annotated[int, Ge(1)] | None = None
    """Samples of a generator; none = as many as the run's eval.samples."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Fixes the games or samples."""
    temperature: Temperature | None = None
    """Divides the logits of a generator of sequences; none = the run's generator.temperature."""
    temperatures: tuple[Temperature, ...] = ()
    """Judges at each of them, and draws quality against diversity: plane.png in the run directory."""
    against: Path | None = None
    """Another run, whose plane.json of an earlier evaluation is drawn beside."""
    demos: Path | None = None
    """File for what an agent sees and does in these games, for reward=gail."""


@dataclass(frozen=True)
class WatchOptions(OfACheckpoint):
    """Keys of ``rlgan watch``."""

    episodes: Annotated[int, Ge(1)] = 1
    """Whole games in the film."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Fixes the games."""
    out: Path | None = None
    """The film's file; none = under videos in the run directory."""


@dataclass(frozen=True)
class SampleOptions(OfACheckpoint):
    """Keys of ``rlgan sample``."""

    n: Annotated[int, Ge(1), Le(10_000)] = 64
    """Samples that are made."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Fixes the samples."""
    prefix: str = ""
    """How each text begins."""
    temperature: Temperature | None = None
    """Divides the logits of a generator of sequences; none = the run's generator.temperature."""
    out: Path | None = None
    """The file; none = under samples in the run directory for a picture, and text is printed."""


@dataclass(frozen=True)
class CompareOptions:
    """Keys of ``rlgan compare``."""

    against: Path | None = None
    """Runs of a peer: one agent in each env, with which the others are compared."""
    reach: float | None = None
    """A score; the table says how many seeds have it."""
