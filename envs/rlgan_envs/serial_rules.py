"""What a chain is held against: echelon base-stock, searched for by simulation, and the plan of who knows all demand.

Shapes: C candidates, n copies, M stages, T periods.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.errors import UsageError
from rlgan_envs.serial_chain import SerialChain

ROUNDS, CANDIDATES, EPISODES = 12, 64, 128
"""Of the search: 12 rounds of 64 candidates, each of which plays 128 episodes: 98,304 episodes."""
ELITE = 8
"""Candidates of a round from which the next one is drawn."""
PATHS = 256
"""Episodes over which the bound is averaged."""


def orders(env: SerialChain, levels: Tensor, state: State) -> Tensor:
    """Orders (n, M) of echelon base-stock (Clark & Scarf 1960) with levels (n, M) or (M,).

    A stage orders so that all that it and those below it hold, await and owe to customers comes up to its level, but no
    more than can be shipped at once: what waits costs.
    """
    held = (state["stock"] + state["coming"].sum(-1)).cumsum(1) - state["waiting"][:, :1]
    above = torch.nn.functional.pad(state["stock"][:, 1:], (0, 1), value=torch.inf)
    most = env.capacity.minimum(above)
    return ((levels - held).minimum(most) - state["waiting"][:, 1:]).clamp(min=0)


def echelon_base_stock(env: SerialChain) -> Policy:
    """The rule with the levels that `search` finds, at the first call."""
    found: list[Tensor] = []

    def policy(state: State, rng: Generator | None) -> Tensor:
        if not found:
            found.append(search(env)[0])
        return orders(env, found[0], state).to(torch.float32)

    return policy


def search(env: SerialChain) -> tuple[Tensor, float]:
    """Levels (M,) of whole units that earn most, and what an episode with them earns.

    By the cross-entropy method (Rubinstein 1999): draw levels from a normal distribution, play all of them against the
    same demand, and fit the distribution to the best. The best candidate of the last round is taken.
    """
    rng = Generator(env.device).manual_seed(0)
    lead = torch.tensor(env.config.lead_times, dtype=env.dtype, device=env.device).cumsum(0)
    mean, deviation = (lead + 1) * env.config.mean, (lead + 1) * env.config.mean / 2
    for _ in range(ROUNDS):
        noise = torch.randn((CANDIDATES, env.stages), generator=rng, device=env.device, dtype=env.dtype)
        levels = (mean + deviation * noise).round().clamp(min=0)
        levels[0] = mean.round()
        earned = simulate(env, levels, EPISODES, rng)
        best = levels[earned.argsort(descending=True, stable=True)[:ELITE]]
        # half a unit, so that neighbours are still tried when all of the best are the same
        mean, deviation = best.mean(0), best.std(0) + 0.5
    return best[0], float(earned.max())


def simulate(env: SerialChain, levels: Tensor, episodes: int, rng: Generator | None) -> Tensor:
    """What an episode earns with each of the levels (C, M), on average, all against the same demand, (C,)."""
    each = levels.repeat_interleave(episodes, 0)
    state, total = env.reset(len(each), rng), torch.zeros(len(each), dtype=env.dtype, device=env.device)
    for _ in range(env.max_steps):
        demand = env.demand.draw(episodes, rng).repeat(len(levels))
        state, reward, _ = env.advance(state, orders(env, each, state), demand)
        total = total + reward
    return total.view(len(levels), episodes).mean(1)


def perfect_information(env: SerialChain) -> Bound:
    """What a plan earns on average that was made with all demand known; needs scipy."""

    def value() -> float:
        rng = Generator(env.device).manual_seed(0)
        demand = torch.stack([env.demand.draw(PATHS, rng) for _ in range(env.max_steps)], 1)
        return float(np.mean([plan(env, path)[0] for path in demand.double().cpu().numpy()]))

    return Bound(value, f"linear programme, mean of {PATHS} episodes", "computed")


def plan(env: SerialChain, demand: np.ndarray) -> tuple[float, np.ndarray]:
    """The most that an episode with the demand (T,) can earn, and shipments (T, M) that do.

    Unknowns are units shipped to each stage and units sold, in each period; stocks and what waits are sums of them. It
    is a flow in a network, so a plan in whole units is among the best ones.

    Raises:
        UsageError: scipy is not installed.
    """
    try:
        from scipy.optimize import linprog
    except ImportError as error:
        raise UsageError('the bound of inventory-serial needs scipy: run pip install "rlgan[scipy]"') from error
    c, T, M = env.config, env.max_steps, env.stages
    unit = np.eye((M + 1) * T).reshape(M + 1, T, -1)
    sold, shipped = unit[0], unit[1:]  # (T, V), (M, T, V)
    worth = c.discount ** np.arange(T)
    gain = worth @ (c.price * sold - c.cost * shipped[-1])
    constant, rows, limits = 0.0, [], []

    def at_most(terms: np.ndarray, limit: Any) -> None:
        rows.append(terms)
        limits.append(np.broadcast_to(limit, len(terms)))

    for k in range(M):
        leaving = sold if k == 0 else shipped[k - 1]
        arriving = np.zeros_like(sold)
        arriving[c.lead_times[k] :] = shipped[k, : T - c.lead_times[k]]
        stock = (arriving - leaving).cumsum(0)  # without what it began with
        gain -= c.holding[k] * (worth @ stock)
        constant -= c.holding[k] * c.start[k] * worth.sum()
        at_most(-stock, c.start[k])
        if k:  # what arrives in a period is shipped in the next one at the earliest
            at_most(arriving - stock, c.start[k])
    if c.waits:
        gain += c.shortage[0] * (worth @ sold.cumsum(0))
        constant -= c.shortage[0] * float(worth @ demand.cumsum())
        at_most(sold.cumsum(0), demand.cumsum())
    else:
        gain += c.shortage[0] * (worth @ sold)
        constant -= c.shortage[0] * float(worth @ demand)
    bounds = [(0, None if c.waits else most) for most in demand]
    bounds += [(0, most) for most in c.capacities for _ in range(T)]
    found = linprog(-gain, np.concatenate(rows), np.concatenate(limits), bounds=bounds)
    return constant - float(found.fun), found.x.reshape(M + 1, T)[1:].T
