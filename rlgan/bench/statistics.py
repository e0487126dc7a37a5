"""Statistics of a few runs in a few envs, as Agarwal et al. (2021), *Deep RL at the edge of the statistical precipice*.

Scores are (R, E): one number for each of R runs (seeds) in each of E envs. Every estimate reduces the last two
dimensions, so that it takes a batch of resampled scores as it takes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Estimate = Callable[..., Any]
"""Of one or several groups of scores (..., R, E): a number for each of the leading dimensions."""
CONFIDENCE, RESAMPLES = 0.95, 10_000
CHUNK = 1 << 22
"""Numbers that are resampled, or pairs that are compared, at a time."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the confidence interval around it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


def number(value: float) -> str:
    """A score as a table shows it: one decimal from 10 on, three below."""
    return f"{value:,.{1 if abs(value) >= 10 else 3}f}"


def mean(scores: ArrayLike) -> Any:
    """The mean over all runs and envs."""
    return _floats(scores).mean((-2, -1))


def median(scores: ArrayLike) -> Any:
    """The median over envs of the means over runs."""
    return np.median(_floats(scores).mean(-2), -1)


def iqm(scores: ArrayLike) -> Any:
    """The interquartile mean: of all runs and envs together the lowest and the highest quarter are left out."""
    flat = np.sort(_floats(scores).reshape(*np.shape(scores)[:-2], -1), -1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Any:
    """How far scores stay below ``target`` on average; what lies above it does not make up for what lies below."""
    return target - np.minimum(_floats(scores), target).mean((-2, -1))


def probability_of_improvement(scores: ArrayLike, others: ArrayLike) -> Any:
    """How likely a run beats a run of the others (R', E) in the same env, the mean over envs; a tie is half a win.

    In each env this is the U statistic of Mann and Whitney divided by R * R'.
    """
    ours, theirs = _floats(scores)[..., :, None, :], _floats(others)[..., None, :, :]
    return ((ours > theirs) + 0.5 * (ours == theirs)).mean((-3, -2, -1))


def difference(estimate: Estimate) -> Estimate:
    """The estimate of one group minus that of another one."""
    return lambda scores, others: estimate(scores) - estimate(others)


def bootstrap(
    estimate: Estimate,
    *groups: ArrayLike,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The estimate of groups of scores, each (R, E), and its percentile interval by a stratified bootstrap.

    Runs are drawn with replacement in each group and each env for itself, since runs in different envs have nothing to
    do with each other. ``seed`` fixes the draws.
    """
    scores = [_floats(group) for group in groups]
    for group in scores:
        if group.ndim != 2 or not group.size or not np.isfinite(group).all():
            raise ValueError(f"scores are finite numbers (runs, envs), and these are {group.shape}: {group!s:.80}")
    if len({group.shape[1] for group in scores}) > 1:
        raise ValueError(f"groups are of the same envs, and these have {[group.shape[1] for group in scores]}")
    rng = np.random.default_rng(seed)
    size = max(1, CHUNK // (int(np.prod([len(group) for group in scores])) * scores[0].shape[1]))
    drawn: list[Floats] = []
    for begin in range(0, resamples, size):
        count = min(size, resamples - begin)
        drawn.append(estimate(*(resampled(group, count, rng) for group in scores)))
    low, high = np.quantile(np.concatenate(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(estimate(*scores)), float(low), float(high))


def resampled(scores: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Draw R runs with replacement in each env, ``count`` times: (count, R, E)."""
    runs, envs = scores.shape
    return scores[rng.integers(0, runs, (count, runs, envs)), np.arange(envs)]


def _floats(scores: ArrayLike) -> Floats:
    return np.asarray(scores, np.float64)
