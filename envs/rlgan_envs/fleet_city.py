"""The hexagonal city of `rlgan_envs.fleet`: its zones, where and when trips are asked for, and draws of them.

Shapes: n copies, C zones, T slots of a day, J orders that one slot may have, L kinds of trips.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from rlgan_envs.matching import Reach

SLOTS = 144
"""Slots of a day, of ten minutes each."""
HOUR = SLOTS // 24
SIDES = ((1, 0), (1, -1), (0, -1), (-1, 0), (-1, 1), (0, 1))
"""Axial coordinates of the six zones next to one."""
MOVES = 1 + len(SIDES)
LIMIT = 10.0
"""Bound of the logit of a move."""
REACH = 4.0
"""Zones over which the share of a goal falls to 1/e."""
COMMUTES = ((8.0, 1.25, 0.35), (18.0, 1.75, 0.4))
"""Middle and deviation in hours, and share of all trips: into the centre, and out of it."""
SPREAD = 0.2
"""Deviation of a fare over its mean."""
LEAST = 0.1
"""Least fare over its mean."""


class Asked(NamedTuple):
    """Orders of one slot, (n, J) each."""

    there: Tensor
    """bool: whether it is an order at all."""
    origin: Tensor
    goal: Tensor
    fare: Tensor


class City:
    """``near`` (C, 7) int64: each zone and its neighbours, itself where there is none, which ``inside`` (C, 7) bool
    tells; ``distance`` (C, C) int64 and ``hop`` (C, C) int64, the move that leads towards another zone; ``place``
    (C, 2) axial coordinates.

    ``kinds`` (L, C, C) float64 are probabilities of (origin, goal); ``mix`` (T, L) float64 are orders expected.
    """

    def __init__(self, size: int, orders: float, device: torch.device | str, dtype: torch.dtype) -> None:
        span = range(-size, size + 1)
        zones = [(q, r) for q in span for r in span if abs(q + r) <= size]
        number = {zone: i for i, zone in enumerate(zones)}
        around = [[(q, r), *((q + a, r + b) for a, b in SIDES)] for q, r in zones]
        self.zones, self.place = len(zones), torch.tensor(zones)
        self.near = torch.tensor([[number.get(z, i) for z in row] for i, row in enumerate(around)], device=device)
        self.inside = torch.tensor([[z in number for z in row] for row in around], device=device)
        far = _distance(self.place)
        # of the moves that bring nearer the first
        self.hop = far[self.near.cpu()].argmin(1).to(device)
        self.everywhere = Reach(far, int(far.max()), device)
        self.distance, self.duration = self.everywhere.distance, (1 + far).to(device)
        ring = far[zones.index((0, 0))].double()
        self.ring = (ring / size).to(device, dtype)
        """(C,) distance from the middle over the size."""
        self.kinds, self.mix = _kinds(ring, far, size), _mix(orders)
        self.expected = self.mix @ self.kinds.sum(2)
        """(T, C) float64 orders expected from each zone."""
        self.wanted = self.expected.ceil().long().to(device)
        """The same in whole vehicles."""
        self.places, self.short = int(self.wanted.max()), int(self.wanted.sum(1).max())
        """Most vehicles that one zone wants, and most that all of them want."""
        rate = self.mix.sum(1)
        most = _most(float(rate.max()))
        counts = torch.arange(most, dtype=torch.float64)
        logs = counts * rate.log()[:, None] - rate[:, None] - torch.lgamma(counts + 1)
        self.count = logs.exp().cumsum(1).to(device, dtype)
        """(T, J) chance of at most 0, ..., J - 1 orders; the J-th slot of a row is filled once in a billion."""
        self.kind = (self.mix / rate[:, None]).cumsum(1)[:, :-1].to(device, dtype)
        pairs = self.kinds.flatten(1).cumsum(1)
        pairs = pairs / pairs[:, -1:] + torch.arange(len(pairs)).unsqueeze(1)
        self.pairs = pairs.flatten().to(device)
        self.most, self.device, self.dtype = most, device, dtype

    def goals(self, slot: int) -> Tensor:
        """Probabilities of the goal of an order by its origin, (C, C) float64."""
        joint = (self.mix[slot, :, None, None] * self.kinds).sum(0)
        return joint / joint.sum(1, keepdim=True)

    def draw(self, slot: Tensor, rng: Generator | None) -> Asked:
        """Orders of the slots (n,)."""
        make = {"generator": rng, "device": self.device}
        u = torch.rand((len(slot), 2 * self.most + 1), dtype=self.dtype, **make)
        first, second = u[:, 1:].chunk(2, 1)
        count = (u[:, :1] >= self.count[slot]).sum(1, keepdim=True)
        kind = (first.unsqueeze(2) >= self.kind[slot].unsqueeze(1)).sum(2)
        pair = torch.searchsorted(self.pairs, kind + second.double(), right=True).clamp(max=len(self.pairs) - 1)
        zones = self.zones
        pair = pair % (zones * zones)
        origin, goal = pair // zones, pair % zones
        mean = self.duration.flatten().index_select(0, pair.flatten()).view(pair.shape).to(self.dtype)
        noise = torch.randn(pair.shape, dtype=self.dtype, **make)
        fare = mean * (1 + SPREAD * noise).clamp(min=LEAST)
        there = torch.arange(self.most, device=self.device) < count
        return Asked(there, origin, goal, fare.masked_fill(~there, 0.0))


def _distance(place: Tensor) -> Tensor:
    """Steps between zones, (C, C) int64."""
    apart = place[:, None] - place
    return torch.cat((apart, apart.sum(2, keepdim=True)), 2).abs().amax(2)


def _kinds(ring: Tensor, far: Tensor, size: int) -> Tensor:
    """Into the centre, out of it, and anywhere: (3, C, C) float64; every row of a kind falls off with distance."""
    home, work, anywhere = ring.square() + 0.5, (-4 * (ring / size).square()).exp(), torch.ones_like(ring)
    nearer = (-far / REACH).exp()
    total = []
    for origin, goal in ((home, work), (work, home), (anywhere, anywhere)):
        to = goal * nearer
        total.append((origin / origin.sum())[:, None] * to / to.sum(1, keepdim=True))
    return torch.stack(total)


def _mix(orders: float) -> Tensor:
    """Orders of each kind expected in each slot, (T, 3) float64, ``orders`` in a day."""
    hour = (torch.arange(SLOTS, dtype=torch.float64) + 0.5) / HOUR
    parts = [(-((hour - middle) / deviation).square() / 2).exp() for middle, deviation, _ in COMMUTES]
    parts.append(1.2 - (2 * math.pi * (hour - 2) / 24).cos())
    shares = [share for *_, share in COMMUTES]
    shares.append(1 - sum(shares))
    return torch.stack([orders * share * part / part.sum() for share, part in zip(shares, parts, strict=True)], 1)


def _most(rate: float, rare: float = 1e-9) -> int:
    """A number of orders that a Poisson number with this mean exceeds with a probability of ``rare`` at most."""
    count, tail = 0, 1.0
    while tail > rare:
        tail -= math.exp(count * math.log(rate) - rate - math.lgamma(count + 1))
        count += 1
    return count
