"""Where, when and how long orders wait in the toy city of `rlgan_envs.dispatch`: exact probabilities, quick draws."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from rlgan_envs.demand import alias

SIDE, STEPS = 9, 20
"""Cells a side of the city, steps of a day."""
CELLS = SIDE * SIDE
PEAKS = ((1 / 3, (3, 3, 5), (2, 2, 3)), (2 / 3, (6, 6, 15), (2, 2, 3)))
"""Share, means and deviations of (x, y, t) of the two rush hours that orders come from."""
LONGEST = 5
"""Most steps that an order waits, beside the one in which it comes."""
PATIENCE = (2.5, 2.0)
"""Mean and deviation of these."""
COLUMNS, SHARES, GOALS = 14, 24, 24
"""Bits of a drawn number that give the column of the alias table, the point in it and the goal."""


def manhattan() -> Tensor:
    """Distances of the cells, (81, 81) int64."""
    place = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    return (place[:, None] - place).abs().sum(2)


def nearby(deviation: float) -> Tensor:
    """A normal curve over the straight distance of the cells, each row with sum 1, (81, 81) float64."""
    place = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    return (-0.5 * (torch.cdist(place, place) / deviation).square()).softmax(1)


def rounded(mean: float, deviation: float, most: int) -> Tensor:
    """Probabilities of 0, ..., ``most`` of a normal number truncated to [0, most] and rounded, float64."""
    value = torch.arange(most + 1, dtype=torch.float64)
    edges = torch.cat(((value - 0.5).clamp(min=0), torch.tensor([float(most)], dtype=torch.float64)))
    mass = torch.special.ndtr((edges - mean) / deviation).diff()
    return mass / mass.sum()


def kinds() -> Tensor:
    """Probabilities of an order's origin x, y, first step and patience, (9, 9, 20, 6) float64."""
    total = torch.zeros(SIDE, SIDE, STEPS, dtype=torch.float64)
    for share, means, deviations in PEAKS:
        x, y, t = (
            rounded(mean, deviation, size - 1)
            for mean, deviation, size in zip(means, deviations, total.shape, strict=True)
        )
        total += share * x[:, None, None] * y[:, None] * t
    return total[..., None] * rounded(*PATIENCE, LONGEST)


class Orders:
    """Draws orders by the alias method, one number of 62 bits each. Goals are uniform to 1 in 200,000."""

    def __init__(self, device: torch.device | str) -> None:
        probabilities = kinds()
        place, begin, patience = (
            part.flatten()
            for part in torch.meshgrid(*(torch.arange(size) for size in (CELLS, STEPS, LONGEST + 1)), indexing="ij")
        )
        keep, other = alias(probabilities.flatten().tolist() + [0.0] * ((1 << COLUMNS) - probabilities.numel()))
        self.keep = torch.tensor([math.ceil(share * (1 << SHARES)) for share in keep], device=device)
        self.other = torch.tensor(other, device=device)
        self.device = device
        self.kinds = {
            name: part.to(device) for name, part in (("origin", place), ("begin", begin), ("end", begin + patience))
        }

    def draw(self, n: int, count: int, rng: Generator | None) -> dict[str, Tensor]:
        """``origin`` and ``goal``, cells, ``begin`` and ``end``, first and last step of waiting, (n, count) each."""
        bits = torch.randint(1 << (COLUMNS + SHARES + GOALS), (n * count,), generator=rng, device=self.device)
        column, bits = bits & ((1 << COLUMNS) - 1), bits >> COLUMNS
        point, bits = bits & ((1 << SHARES) - 1), bits >> SHARES
        kind = torch.where(point < self.keep.index_select(0, column), column, self.other.index_select(0, column))
        parts = {name: table.index_select(0, kind) for name, table in self.kinds.items()}
        return {name: part.view(n, count) for name, part in {**parts, "goal": (bits * CELLS) >> GOALS}.items()}


def busiest(orders: int, rare: float = 1e-9) -> int:
    """Most of a day's orders that wait in one step, even if none is served, but for a probability of ``rare``."""
    begin, end = (
        edge.flatten() for edge in torch.meshgrid(torch.arange(STEPS), torch.arange(LONGEST + 1), indexing="ij")
    )
    share = kinds().sum((0, 1)).flatten()
    most = max(float(share[(begin <= t) & (begin + end >= t)].sum()) for t in range(STEPS))
    tail, count = 1.0, 0
    for count in range(orders + 1):
        tail -= math.exp(
            math.lgamma(orders + 1)
            - math.lgamma(count + 1)
            - math.lgamma(orders - count + 1)
            + count * math.log(most)
            + (orders - count) * math.log1p(-most)
        )
        if tail < rare:
            break
    return max(count, 1)
