"""What `rlgan_envs.dispatch` is compared with: the value table of the paper, and the most that hindsight could serve.

Shapes: n copies, K orders, M drivers, C cells, T steps of a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from rlgan.core.protocols import Bound
from rlgan_envs.dispatch_orders import CELLS, STEPS, manhattan
from rlgan_envs.flow_bound import best_flow

TABLE_DAYS = 300
"""Days of the nearest policy from which the value table is learned."""
BOUND_DAYS = 60
"""Days over which the bound is averaged."""


def value_table(env: Any, days: int = TABLE_DAYS, seed: int = 0) -> Tensor:
    """V (T + 1, C) by backward temporal differences on logged days (Xu et al. 2018, algorithm 1), 0 past the day.

    The log has each idle driver of each step: one that is sent gains the reward spread over its d steps and
    ``gamma^d V(goal, t + d)``, another one ``gamma V(cell, t + 1)``. Backwards in time with steps of 1 / visits each
    value is the mean of these over the visits of cell and step, and 0 without one.

    Args:
        env: The env, which plays its policy ``nearest``.
        days: How many.
        seed: Of these days.
    """
    rng = Generator(env.device).manual_seed(seed)
    policy, state, log = env.references()["nearest"], env.reset(days, rng), []
    for t in range(STEPS):
        idle, before = env.idle(state), state["cell"]
        state, _, _ = env.step(state, policy(state, rng), rng)
        log.append((before[idle], state["cell"][idle], state["free"][idle] - t))
    table = torch.zeros(STEPS + 1, CELLS, dtype=env.dtype, device=env.device)
    powers = env.config.gamma ** torch.arange(len(env.spread), dtype=env.dtype, device=env.device)
    for t in range(STEPS - 1, -1, -1):
        cell, following, busy = log[t]
        # who was not sent has been free for some time, and is so in the next step
        sent, length = busy > 0, busy.clamp(min=1)
        goal = env.spread[length] * sent + powers[length] * table[(t + length).clamp(max=STEPS), following]
        visits = torch.zeros_like(table[t]).index_add_(0, cell, torch.ones_like(goal))
        table[t] = torch.zeros_like(table[t]).index_add_(0, cell, goal) / visits.clamp(min=1)
    return table


def most_served(
    starts: Sequence[int],
    origin: Sequence[int],
    goal: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    radius: int,
) -> float:
    """The most orders that drivers could serve who know the whole day, as a linear programme (HiGHS).

    A flow of drivers over cells and steps: they stay, or serve an order in reach while it waits and come out at its
    goal, and each order is served once at most. Fractions are allowed, so it is a bound.

    Args:
        starts: Cells of the drivers.
        origin: Cell of each order.
        goal: Where it goes.
        begin: Its first step of waiting.
        end: Its last one.
        radius: Largest pickup distance.
    """
    distance = manhattan().numpy()
    order, t, cell = (
        np.concatenate(part)
        for part in zip(
            *(
                (
                    np.full(near.size * (last - first + 1), k),
                    *(m.ravel() for m in np.meshgrid(np.arange(first, last + 1), near)),
                )
                for k, (first, last) in enumerate(zip(begin, np.minimum(end, STEPS - 1), strict=True))
                for near in [np.flatnonzero(distance[origin[k]] <= radius)]
            ),
            strict=True,
        )
    )
    origins, goals = np.asarray(origin)[order], np.asarray(goal)[order]
    there = t + 1 + distance[cell, origins] + distance[origins, goals]
    nodes = STEPS * CELLS
    node = np.arange(nodes)
    return best_flow(
        np.concatenate((t * CELLS + cell, node)),
        np.concatenate((np.minimum(there * CELLS + goals, nodes), np.minimum(node + CELLS, nodes))),
        np.concatenate((np.ones(len(order)), np.zeros(nodes))),
        np.concatenate((order, np.full(nodes, -1))),
        np.concatenate((np.bincount(starts, minlength=CELLS), np.zeros(nodes - CELLS))),
    )


def hindsight(env: Any) -> Bound:
    """Orders served in a day by who knows all of it, on average; needs scipy."""
    how = f"linear programme of a whole day in hindsight, mean of {BOUND_DAYS} days"
    return Bound(lambda: float(best_days(env, BOUND_DAYS, 0).mean()), how, "time-expanded flow of drivers, HiGHS")


def best_days(env: Any, count: int, seed: int) -> Tensor:
    """The most orders that can be served in each of the days (count,) that ``env.reset`` draws with this seed."""
    state = env.reset(count, Generator(env.device).manual_seed(seed))
    names = ("cell", "origin", "goal", "begin", "end")
    days = zip(*(state[name].tolist() for name in names), strict=True)
    return torch.tensor([most_served(*day, env.config.radius) for day in days])
