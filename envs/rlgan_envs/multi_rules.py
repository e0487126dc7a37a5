"""Rules for a store with many items, each item with parameters of its own, and what nobody can beat.

Shapes: C candidates, n windows of days, K items, P parameters, W days under way. A rule is in days of mean demand, as
MABIM's are: what a shop knows that has seen nothing but its sales.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan_envs.multi_bound import clairvoyant
from rlgan_envs.multi_store import MultiStore

Rule = Callable[[Tensor, Tensor], Tensor]
"""Days of mean demand to order (..., K), of positions (..., K) in such days, by parameters (..., K, P)."""
WINDOWS = 32
"""Episodes of each candidate, with starts evenly over the train days: 3,200 days, the same for all."""
ROOM = (0.0, *(0.0005 * 1.4**k for k in range(24)))
"""Prices of a unit of room per day that are tried, up to 1.1."""


def base_stock(position: Tensor, parameters: Tensor) -> Tensor:
    """Up to S, every day."""
    return parameters[..., 0] - position


def capped_base_stock(position: Tensor, parameters: Tensor) -> Tensor:
    """Up to S, and never more than r."""
    return base_stock(position, parameters).minimum(parameters[..., 1])


def reorder(position: Tensor, parameters: Tensor) -> Tensor:
    """(s, S): at s or below up to S. Parameters are s and S - s."""
    level = parameters.sum(-1)
    return (level - position).where(position <= parameters[..., 0], 0.0)


def rules(env: MultiStore) -> dict[str, Policy | Bound]:
    """Random orders, three tuned rules, the bound."""

    def levels(*values: float) -> Tensor:
        return torch.tensor(values, dtype=env.dtype, device=env.device)

    up_to = torch.arange(0.5, 16.1, 0.25, dtype=env.dtype, device=env.device)
    caps = levels(0.66, 0.83, 1, 1.16, 1.33, 1.5, 1.83, 2.16, 2.5, 3, 4, 6)
    low = torch.arange(0.5, 8.1, 0.5, dtype=env.dtype, device=env.device)
    gaps = levels(0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 10)

    def random(state: State, rng: Generator | None) -> Tensor:
        shape = state["stock"].shape
        if env.config.actions == "grid":
            return torch.randint(len(env.grid), shape, generator=rng, device=env.device)
        return torch.rand(shape, generator=rng, device=env.device) * float(env.grid[-1])

    return {
        "random": random,
        "base-stock": tuned(env, base_stock, up_to[:, None]),
        "capped-base-stock": tuned(env, capped_base_stock, torch.cartesian_prod(up_to[::2], caps)),
        "s-S": tuned(env, reorder, torch.cartesian_prod(low, gaps)),
        "clairvoyant": clairvoyant(env),
    }


def tuned(env: MultiStore, rule: Rule, grid: Tensor) -> Policy:
    """The rule with the parameters of each item that earn most in simulation, found at the first call."""
    found: list[Tensor] = []

    def policy(state: State, rng: Generator | None) -> Tensor:
        if not found:
            found.append(tune(env, rule, grid)[0])
        return decide(env, rule, found[0], state["stock"], state["coming"], env.means(state["day"]))

    return policy


def tune(env: MultiStore, rule: Rule, grid: Tensor) -> tuple[Tensor, float]:
    """Parameters (K, P) among ``grid`` (C, P) for each item, and what an episode with them earns.

    Items share nothing but room. So each is tuned alone in a store without walls, where room has a price, and the price
    is taken with which all of them together earn most in the true store.
    """
    first, last = env.train
    day = torch.linspace(first, last, WINDOWS, device=env.device).long()
    earned, stock = simulate(env, rule, grid[:, None, None], day, math.inf)
    prices = torch.tensor(ROOM, dtype=env.dtype, device=env.device)
    room = stock * env.volume * env.max_steps
    best = (earned - prices[:, None, None] * room).argmax(1)  # (prices, K)
    candidates = grid[best]
    together = simulate(env, rule, candidates[:, None], day, env.capacity)[0].sum(1)
    winner = int(together.argmax())
    return candidates[winner], float(together[winner])


def simulate(env: MultiStore, rule: Rule, parameters: Tensor, day: Tensor, capacity: float) -> tuple[Tensor, Tensor]:
    """What each item earns in an episode, and its mean stock in the evening, (C, K), over episodes from days (n,).

    ``parameters`` are (C, 1, 1, P) or, for each item, (C, 1, K, P).
    """
    opening = env.opening(day)
    shape = (len(parameters), *opening["stock"].shape)
    stock, coming = opening["stock"].expand(shape), opening["coming"].expand(*shape, -1)
    earned, held = torch.zeros(shape, dtype=env.dtype, device=env.device), 0.0
    for t in range(env.max_steps):
        mean = env.means(day + t)
        order, _ = env.orders(decide(env, rule, parameters, stock, coming, mean), mean)
        after = env.evening(stock, coming, order, env.demand[day + t], capacity)
        stock, coming = after.stock, after.coming
        earned, held = earned + after.earned, held + stock
    return earned.mean(1), (held / env.max_steps).mean(1)  # type: ignore[union-attr]


def decide(env: MultiStore, rule: Rule, parameters: Tensor, stock: Tensor, coming: Tensor, mean: Tensor) -> Tensor:
    """The env's action (..., K) that is nearest to what a rule orders."""
    position = (stock + coming.sum(-1)) / mean.clamp(min=1e-6)
    return env.action(rule(position, parameters).clamp(min=0) * mean, mean)
