"""Random demand in whole units: its probabilities, exactly, and draws of one random number each."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor

TAIL = 1e-16
"""Probability beyond which demand is left out of the table."""
Kind = Literal["poisson", "geometric"]


class Demand:
    """Demand of one period: Poisson, or geometric on 0, 1, ...

    Draws use the alias method (Walker 1977): a uniform number of 24 bits picks a column of a table and one of the two
    values in it. Equal numbers give equal demand, whatever else differs.

    Args:
        kind: Of the distribution.
        mean: Units per period, > 0.
        device: Where draws are made.
        dtype: Of draws.
    """

    def __init__(self, kind: Kind, mean: float, device: torch.device | str, dtype: torch.dtype) -> None:
        self.mean, self.dtype, self.device = mean, dtype, device
        self.variance = mean if kind == "poisson" else mean * (1 + mean)
        self.deviation = math.sqrt(self.variance)
        log_pmf = _poisson if kind == "poisson" else _geometric
        size = math.ceil(mean + 10 * self.deviation) + 10
        pmf = torch.exp(log_pmf(torch.arange(size, dtype=torch.float64), mean))
        while float(pmf[-1]) * size > TAIL:
            size *= 2
            pmf = torch.exp(log_pmf(torch.arange(size, dtype=torch.float64), mean))
        self.pmf = pmf[: int((pmf > TAIL).nonzero().max()) + 1]
        """Probabilities of 0, 1, ..., (K,) float64 on the CPU."""
        columns = 1 << (len(self.pmf) - 1).bit_length()
        keep, other = alias(self.pmf.tolist() + [0.0] * (columns - len(self.pmf)))
        self.columns = columns
        self.keep = torch.tensor(keep, dtype=dtype, device=device)
        self.other = torch.tensor(other, dtype=dtype, device=device)

    def draw(self, n: int, rng: Generator | None) -> Tensor:
        """Demand of n copies, (n,)."""
        # a power of two moves the point without rounding: whole part and fraction are exact
        place = torch.rand(n, generator=rng, device=self.device, dtype=self.dtype) * self.columns
        column = place.floor()
        at = column.long()
        return torch.where(place - column < self.keep.index_select(0, at), column, self.other.index_select(0, at))

    def over(self, periods: int) -> Tensor:
        """Probabilities of the sum over some periods, (K,) float64."""
        total = self.pmf
        for _ in range(periods - 1):
            total = torch.nn.functional.conv1d(
                total.view(1, 1, -1), self.pmf.flip(0).view(1, 1, -1), padding=len(self.pmf) - 1
            ).flatten()
        return total

    def quantile(self, share: float, periods: int = 1) -> int:
        """Least d such that demand over some periods is at most d with probability ``share``."""
        return int((self.over(periods).cumsum(0) < share).sum())


def expected_excess(pmf: Tensor, most: int) -> Tensor:
    """``E[(D - y)+]`` for y = 0, ..., ``most``, (most + 1,), of probabilities (K,): 0 and 1, ... weighted."""
    value, level = torch.arange(len(pmf), dtype=pmf.dtype), torch.arange(most + 1, dtype=pmf.dtype)
    return ((value - level[:, None]).clamp(min=0) * pmf).sum(-1)


def _poisson(k: Tensor, mean: float) -> Tensor:
    return k * math.log(mean) - mean - torch.lgamma(k + 1)


def _geometric(k: Tensor, mean: float) -> Tensor:
    return k * math.log(mean / (1 + mean)) - math.log1p(mean)


def alias(probabilities: list[float]) -> tuple[list[float], list[int]]:
    """Columns of equal weight: each keeps its own number below ``keep``, and gives another one above (Vose 1991)."""
    size, total = len(probabilities), math.fsum(probabilities)
    share = [p * size / total for p in probabilities]
    keep, other = [1.0] * size, list(range(size))
    poor, rich = [i for i, s in enumerate(share) if s < 1], [i for i, s in enumerate(share) if s >= 1]
    while poor and rich:
        few, many = poor.pop(), rich.pop()
        keep[few], other[few] = share[few], many
        share[many] -= 1 - share[few]
        (poor if share[many] < 1 else rich).append(many)
    return keep, other
