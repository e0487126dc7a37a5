"""An upper bound for a store with many items: orders by who knows all demand to come, as a linear programme.

Each unit sold comes from an order that was received before, and each order costs once: the programme of Krarup & Bilde
(1977) for lot sizes, whose relaxation has whole orders for a single item, here with sales that may be lost. Items share
room. Its dual is solved: room has a price on each evening, units of the opening stock have one too, and given these
each item is a dynamic programme over the days of its orders (Wagner & Whitin 1958). Whatever the prices, that is a
bound; they are lowered by subgradients. Orders have no upper limit and whole units are not asked for, and what is not
sold may be thrown away, all of which only raises the bound. Shapes: n windows, K items, T days, S sources of opening
units.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Bound
from rlgan_envs.multi_store import MultiStore

WINDOWS, ROUNDS = 32, 40
"""Episodes over which the bound is averaged, with starts evenly over the days; and subgradient steps, of which six
times as many lower it by another 0.1%."""
UNIT = 0.02
"""Scale of prices of room, per unit of volume and evening."""


def clairvoyant(env: MultiStore) -> Bound:
    """What an episode brings at most, on average."""

    def value() -> float:
        day = torch.linspace(env.first, env.last, WINDOWS, device=env.device).long()
        return float(bound(env, day).mean())

    return Bound(value, f"dual of a linear programme, mean of {WINDOWS} episodes", "Krarup & Bilde 1977; computed")


def bound(env: MultiStore, day: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Most that episodes from the days (n,) can earn, (n,) float64."""
    opening = env.opening(day)
    units = torch.cat((opening["stock"][..., None], opening["coming"]), -1).double()  # (n, K, S)
    demand = torch.stack([env.demand[day + t] for t in range(env.max_steps)], -1).double()  # (n, K, T)
    room = torch.zeros((len(day), env.max_steps), dtype=torch.float64, device=env.device, requires_grad=True)
    own = torch.full_like(units, 0.5, requires_grad=True)
    best = torch.full((len(day),), torch.inf, dtype=torch.float64, device=env.device)
    optimiser = torch.optim.Adam((room, own), lr=0.2)
    with torch.enable_grad():
        for k in range(rounds):
            value = dual(env, demand, units, room * UNIT, own)
            best = best.minimum(value.detach())
            optimiser.param_groups[0]["lr"] = 0.2 * (1 - k / rounds)
            optimiser.zero_grad()
            value.sum().backward()
            optimiser.step()
            with torch.no_grad():
                room.clamp_(min=0)
                own.clamp_(min=0)
    return best


def dual(env: MultiStore, demand: Tensor, units: Tensor, room: Tensor, own: Tensor) -> Tensor:
    """The bound (n,) at prices of room (n, T) and of opening units (n, K, S), these in shares of a sale's worth."""
    c, days = env.config, env.max_steps
    margin, cost = env.margin.double()[:, None], float(c.order_cost)
    worth = margin * (1 + c.lost_ratio)  # (K, 1), of a sale that would be lost else
    evening = env.holding.double()[:, None] + env.volume.double()[:, None] * room[:, None]  # (n, K, T)
    held = F.pad(evening.cumsum(-1), (1, 0))[..., :-1]  # of a unit in the first evenings 0, ..., t - 1
    own = own * worth
    # source s is there from day s on, having been held since evening s - 1
    since = torch.cat((held[..., :1], held[..., : own.shape[-1] - 1]), -1)
    late = torch.arange(days, device=env.device) < torch.arange(own.shape[-1], device=env.device)[:, None]
    from_opening = (since - own)[..., None] - held[..., None, :]  # (n, K, S, T)
    opening = (worth + from_opening.masked_fill(late, -torch.inf).amax(-2)).clamp(min=0)
    ahead = torch.zeros_like(held[..., :1])  # (n, K, 1), from the last evening on: nothing more
    for day in range(days - 2, -1, -1):
        ordered = worth - held[..., day + 1 :] + held[..., day : day + 1]
        sales = (demand[..., day + 1 :] * opening[..., day + 1 :].maximum(ordered)).cumsum(-1)
        best = (sales + ahead).amax(-1, keepdim=True) - cost
        too_early = (day < env.lead_time)[:, None]
        ahead = torch.cat((best.masked_fill(too_early, -torch.inf), ahead), -1)
    whole = ((demand * opening).cumsum(-1) + ahead).amax(-1)
    lost = c.lost_ratio * (margin * demand).sum(-1)
    return (whole - lost + (own * units).sum(-1)).sum(-1) + env.capacity * room.sum(-1)
