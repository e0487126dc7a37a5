"""What `rlgan_envs.fleet` is compared with: rules that know which orders are expected, the value of an idle vehicle,
and the most that hindsight could earn.

Shapes: n copies, M vehicles, C zones, T slots of a day, A arcs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, State
from rlgan_envs.fleet_city import LIMIT, MOVES, SLOTS, Asked
from rlgan_envs.flow_bound import best_flow
from rlgan_envs.matching import greedy

TABLE_DAYS = 60
"""Days from which the value table is learned."""
BOUND_DAYS = 20
"""Days over which the bound is averaged."""
RARE = 0.05
"""An order that comes with less than this chance is not waited for."""


def logits(counts: Tensor) -> Tensor:
    """The action (n, 7 C) that spreads the vehicles of each zone in proportion to counts (n, C, 7).

    Logits have the bounds of an action, so a move without a count keeps a chance of e^-20.
    """
    shares = counts / counts.sum(2, keepdim=True).clamp(min=1e-9)
    return (shares.log() + LIMIT).clamp(min=-LIMIT).flatten(1).float()


def nearest(env: Any, state: State) -> Tensor:
    """Who is not needed goes towards the nearest zone that is short of vehicles, each place taken by one.

    A zone wants as many as orders are expected from it in the slot, rounded up.
    """
    city, cell, idle = env.city, state["cell"], env.idle(state)
    (n, vehicles), zones = cell.shape, city.zones
    wanted = city.wanted[state["time"].clamp(max=SLOTS - 1)]
    rank, count = env.ranks(cell, idle)
    spare = idle & (rank >= wanted.gather(1, cell))
    # the places of a zone stand side by side
    places = city.places
    short = torch.arange(places, device=cell.device) < (wanted - count).unsqueeze(2)
    origin = torch.arange(zones, device=cell.device).repeat_interleave(places).expand(n, -1)
    far = torch.arange(city.everywhere.radius + 1, device=cell.device, dtype=env.dtype)
    level = torch.zeros((n, zones), dtype=env.dtype, device=cell.device)
    worth = -far.expand(n, zones * places, -1)
    given = worth, level, origin, short.flatten(1), cell, spare
    taken = greedy(city.everywhere, *given, -torch.inf, city.short)
    goal = torch.nn.functional.pad(cell, (0, 1)).scatter(1, taken, origin)[:, :-1]
    move = city.hop.flatten().index_select(0, (cell * zones + goal).flatten()).view(n, vehicles)
    counts = torch.zeros((n, zones * MOVES), dtype=env.dtype, device=cell.device)
    return logits(counts.scatter_add_(1, cell * MOVES + move, idle.to(env.dtype)).view(n, zones, MOVES))


def assigned(env: Any, state: State, table: Tensor) -> Tensor:
    """Idle vehicles are assigned to expected orders within one move, as the Hungarian algorithm does it best.

    The k-th order that comes from a zone is there with the chance that a Poisson number is at least k. What serving it
    brings is its mean fare and the value of its goal, less that of being idle in the zone; who is not assigned stays.

    Args:
        env: The env.
        state: Its state; the assignment is made copy by copy on the CPU.
        table: (T + 1, C) float64 values of an idle vehicle.
    """
    from scipy.optimize import linear_sum_assignment

    city, counts = env.city, torch.zeros(len(state["time"]), env.city.zones, MOVES)
    near, inside, expected = city.near.cpu().numpy(), city.inside.cpu().numpy(), city.expected
    table = table.cpu()
    idle = env.idle(state).cpu().numpy()
    for i, (slot, cell) in enumerate(zip(state["time"].tolist(), state["cell"].cpu().numpy(), strict=True)):
        if slot >= SLOTS:
            continue
        zone, chance = _chances(expected[slot], cell.size)
        gain = chance * (serving(env, table, slot) - table[slot + 1]).numpy()[zone]
        vehicles = cell[idle[i]]
        # (vehicles, 7): the move to each neighbour, then (vehicles, orders) the one that leads to its zone
        reached = (near[vehicles][:, :, None] == zone) & inside[vehicles][:, :, None]
        move = reached.argmax(1)
        score = np.where(reached.any(1), gain - env.config.move_cost * (move > 0), -np.inf)
        score = np.concatenate((score, np.zeros((len(vehicles), len(vehicles)))), 1)
        rows, columns = linear_sum_assignment(np.maximum(score, -1e9), maximize=True)
        chosen = np.where(columns < len(zone), np.pad(move, ((0, 0), (0, len(vehicles))))[rows, columns], 0)
        np.add.at(counts[i].numpy(), (vehicles[rows], chosen), 1.0)
    return logits(counts).to(env.device)


def _chances(expected: Tensor, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Zones of the orders that may come, ``most`` of each at most, and the chance of each."""
    k = torch.arange(most, dtype=torch.float64)
    mean = expected.unsqueeze(1)
    # of at least k + 1 orders
    tails = 1 - (k * mean.log() - mean - torch.lgamma(k + 1)).exp().cumsum(1)
    zones, _ = (kept := tails > RARE).nonzero(as_tuple=True)
    return zones.numpy(), tails[kept].numpy()


def serving(env: Any, table: Tensor, slot: int) -> Tensor:
    """Mean fare and value of the goal of an order by its origin, (C,) float64."""
    city = env.city
    length = city.duration.cpu()
    later = table[(slot + length).clamp(max=SLOTS), torch.arange(city.zones)]
    return (city.goals(slot) * (length + later)).sum(1)


def values(env: Any, days: int = TABLE_DAYS, seed: int = 0) -> Tensor:
    """What an idle vehicle earns in the rest of a day of `assigned` with no values, (T + 1, C) float64 on the CPU.

    By backward temporal differences on logged days, as in `rlgan_envs.dispatch_planning` but undiscounted: V(t, c)
    is the mean over the idle vehicles of slot t in zone c of what one earns in the slot and the value of where it is
    idle next; V(t + 1, c) where no vehicle was idle.
    """
    rng, zones = Generator(env.device).manual_seed(seed), env.city.zones
    policy, state, log = env.references()["hungarian"], env.reset(days, rng), []
    for _ in range(SLOTS):
        idle, before = env.idle(state), state["cell"]
        state, _, _ = env.step(state, policy(state, rng), rng)
        log.append([part[idle].cpu() for part in (before, state["cell"], state["free"], state["earned"])])
    table = torch.zeros(SLOTS + 1, zones, dtype=torch.float64)
    for slot in range(SLOTS - 1, -1, -1):
        cell, goal, free, earned = log[slot]
        # who got no order is idle in the next slot, where it moved to
        worth = earned.double() + table[free.clamp(slot + 1, SLOTS), goal]
        visits = torch.zeros(zones, dtype=torch.float64).index_add_(0, cell, torch.ones_like(worth))
        mean = torch.zeros_like(visits).index_add_(0, cell, worth) / visits.clamp(min=1)
        table[slot] = torch.where(visits > 0, mean, table[slot + 1])
    return table


def most_earned(env: Any, starts: Tensor, days: list[Asked], i: int) -> float:
    """The most that vehicles could earn in copy i who know all its orders, as a linear programme.

    Args:
        env: The env.
        starts: (n, M) zones of the vehicles.
        days: The orders of each slot.
        i: The copy.
    """
    city, zones, config = env.city, env.city.zones, env.config
    near, inside, distance = (part.cpu().numpy() for part in (city.near, city.inside, city.distance))
    # every zone of a slot has two nodes: before moves and, ``nodes`` later, after them
    nodes = SLOTS * zones
    node = np.arange(nodes)
    slot, zone = np.divmod(node, zones)
    may = inside[zone]
    to = (slot[:, None] * zones + near[zone] + nodes)[may]
    tails, heads = [node.repeat(may.sum(1)), node + nodes], [to, np.where(slot + 1 < SLOTS, node + zones, 2 * nodes)]
    gains = [np.where(np.nonzero(may)[1] > 0, -config.move_cost, 0.0), np.zeros(nodes)]
    orders, count = [np.full(len(to) + nodes, -1)], 0
    for t, asked in enumerate(days):
        there = asked.there[i]
        origin, goal, fare = (part[i][there].cpu().numpy() for part in (asked.origin, asked.goal, asked.fare))
        which, place = np.nonzero(distance[origin] <= config.radius)
        free = t + distance[place, origin[which]] + 1 + distance[origin[which], goal[which]]
        tails.append(nodes + t * zones + place)
        heads.append(np.where(free < SLOTS, free * zones + goal[which], 2 * nodes))
        gains.append(fare[which].astype(np.float64))
        orders.append(count + which)
        count += len(origin)
    supply = np.zeros(2 * nodes)
    supply[:zones] = np.bincount(starts[i].cpu().numpy(), minlength=zones)
    return best_flow(*(np.concatenate(part) for part in (tails, heads, gains, orders)), supply)


def hindsight(env: Any) -> Bound:
    """Earned in a day by who knows all of it, on average; needs scipy."""

    def mean() -> float:
        rng = Generator(env.device).manual_seed(0)
        starts = env.reset(BOUND_DAYS, rng)["cell"]
        days = [env.city.draw(torch.full((BOUND_DAYS,), t, device=env.device), rng) for t in range(SLOTS)]
        return float(np.mean([most_earned(env, starts, days, i) for i in range(BOUND_DAYS)]))

    how = f"linear programme of a whole day in hindsight, mean of {BOUND_DAYS} days"
    return Bound(mean, how, "time-expanded flow of vehicles, HiGHS")
