"""Fleet management: idle vehicles move between the zones of a hexagonal city before orders come, after Lin et al. (KDD
2018), *Efficient Large-Scale Fleet Management via Multi-Agent Deep Reinforcement Learning*.

Differs from the paper: its city's data are not published, so trips are drawn from commutes of our own making; the fleet
keeps its size. Shapes: n copies, M vehicles, C zones, J orders that a slot may have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Interval
from gymnasium.spaces import Box, MultiDiscrete, Space
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.fleet_city import HOUR, LIMIT, MOVES, SLOTS, City
from rlgan_envs.fleet_picture import draw
from rlgan_envs.fleet_planning import assigned, hindsight, nearest, values
from rlgan_envs.matching import Reach, greedy

FEATURES = 5 * MOVES + 8
"""Numbers that a vehicle sees, where each is an actor."""
UNIT = 1 << 20
"""Parts of a vehicle that is on its way, whole ones, so that their sum is the same in any order."""
FADE = 0.8
"""What a vehicle that comes k slots later counts for in the observation, to the power of k."""


@dataclass(frozen=True)
class FleetConfig:
    """Settings of the fleet."""

    size: Annotated[int, Interval(ge=1, le=12)] = 3
    """Rings of zones around the middle one: 3 have 37 zones, 12 have 469."""
    vehicles: Annotated[int, Interval(ge=1, le=5000)] = 60
    """Vehicles in the city."""
    orders: Annotated[float, Interval(ge=1, le=100_000)] = 1200.0
    """Orders of a day, on average."""
    radius: Annotated[int, Interval(ge=0, le=3)] = 1
    """Most zones between an order and the vehicle that serves it; each takes a slot more."""
    move_cost: Annotated[float, Ge(0)] = 0.1
    """What a move to the next zone costs; a trip of d slots earns d on average."""
    actors: Literal["zones", "vehicles"] = "zones"
    """Who decides: zones share out their idle vehicles, or each vehicle is an actor, for PPO's agent.rows."""
    out_of_range: Literal["clip", "refuse"] = "clip"
    """Logits out of bounds are cut to the nearest one, NaN to 0, or nobody moves in that slot; a vehicle's move that is
    none is the nearest one, or it stays. All are counted."""


class Fleet:
    """State: ``time`` (n,) int64; of vehicles (n, M) int64 ``cell``, the zone they are in or go to, and ``free``, the
    slot from which they are there, and float ``earned`` in the last slot, fare less the cost of a move; of that slot's
    orders by zone, (n, C) float, ``asked`` and ``lost``; sums (n,) float ``come``, orders, ``served``, ``fares``,
    ``moves`` and ``odd``, values out of range.

    Action (n, 7 C): logits of staying and of the six moves, zone by zone; those out of the city are masked. With
    ``actors=vehicles`` (n, M) int64: the move of each, which does nothing where it is not idle or would leave the city.
    Reward: fares less what moves cost. Terminated after a day of 144 slots.
    """

    fps = 8
    max_steps = SLOTS + 1

    def __init__(self, config: FleetConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.city = City(config.size, config.orders, device, dtype)
        self.reach = Reach(self.city.distance.cpu(), config.radius, device)
        zones = self.city.zones
        slots = torch.arange(int(self.city.duration.max()) + config.radius + 1)
        self.fade = (UNIT * FADE**slots).round().long().to(device)
        """What those count for who come 0, 1, ... slots later, in parts of ``UNIT``."""
        self.observation_space = Box(0.0, np.inf, (SLOTS // HOUR + 3 * zones,), np.float32)
        self.action_space: Space = Box(-LIMIT, LIMIT, (MOVES * zones,), np.float32)
        if config.actors == "vehicles":
            self.reference_space = self.action_space
            self.observation_space = Box(-np.inf, np.inf, (config.vehicles, FEATURES), np.float32)
            self.action_space = MultiDiscrete([MOVES] * config.vehicles)

    def reset(self, n: int, rng: Generator | None) -> State:
        """Vehicles anywhere, all idle."""
        zones = self.city.zones
        cell = torch.randint(zones, (n, self.config.vehicles), generator=rng, device=self.device)
        time = torch.zeros(n, dtype=torch.int64, device=self.device)
        by_zone = torch.zeros((n, zones), dtype=self.dtype, device=self.device)
        sums = dict.fromkeys(("come", "served", "fares", "moves", "odd"), time.to(self.dtype))
        vehicles = {"cell": cell, "free": torch.zeros_like(cell), "earned": torch.zeros_like(cell, dtype=self.dtype)}
        return {"time": time, **vehicles, "asked": by_zone, "lost": by_zone, **sums}

    def observe(self, state: State) -> Tensor:
        """The hour, one-hot, then idle vehicles, vehicles on their way and the last orders by zone, (n, 24 + 3 C).

        Who is on the way counts ``FADE^k`` in the zone that it goes to, k slots before it is idle there. With
        ``actors=vehicles`` one row of each, (n, M, 43); see `rows`.
        """
        if self.config.actors == "vehicles":
            return self.rows(state)
        hours = torch.arange(SLOTS // HOUR, device=self.device) == (state["time"] // HOUR)[:, None]
        return torch.cat([part.float() for part in (hours, *self.maps(state))], 1)

    def maps(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Idle vehicles, vehicles on their way and the last slot's orders by zone, (n, C) each."""
        idle = self.idle(state)
        soon = self.fade[(state["free"] - state["time"][:, None]).clamp(0, len(self.fade) - 1)] * ~idle
        return self.by_zone(state["cell"], idle), self.by_zone(state["cell"], soon) / UNIT, state["asked"]

    def rows(self, state: State) -> Tensor:
        """What each vehicle sees, (n, M, 43).

        Of its zone and the six next to it, four numbers each, idle vehicles, vehicles on their way, the last slot's
        orders, and whether there is such a zone; their distances from the middle over the city's size; whether it is
        idle, the slots until it is, how many idle ones stand before it in its zone; the hour as sines and cosines of
        one and two turns a day; and last what it earned in the last slot.
        """
        (n, vehicles), cell, idle = state["cell"].shape, state["cell"], self.idle(state)
        near = self.city.near.index_select(0, cell.flatten()).view(n, vehicles * MOVES)
        around = [part.gather(1, near).view(n, vehicles, MOVES) for part in self.maps(state)]
        fixed = torch.stack((self.city.inside.to(self.dtype), self.city.ring[self.city.near]), 1)
        places = fixed.index_select(0, cell.flatten()).view(n, vehicles, 2 * MOVES)
        rank, _ = self.ranks(cell, idle)
        wait = (state["free"] - state["time"].unsqueeze(1)).clamp(min=0)
        own = torch.stack([part.to(self.dtype) for part in (idle, wait, rank * idle)], 2)
        turn = state["time"].to(self.dtype) * (2 * torch.pi / SLOTS)
        hour = torch.stack((turn.sin(), turn.cos(), (2 * turn).sin(), (2 * turn).cos()), 1)
        parts = (*around, places, own, hour.unsqueeze(1).expand(-1, vehicles, -1), state["earned"].unsqueeze(2))
        return torch.cat(parts, 2).float()

    def idle(self, state: State) -> Tensor:
        """Whether a vehicle is idle, (n, M)."""
        return state["free"] <= state["time"][:, None]

    def by_zone(self, cell: Tensor, weight: Tensor) -> Tensor:
        """Sums of whole weights (n, ...) by zone, (n, C)."""
        total = torch.zeros((len(cell), self.city.zones), dtype=torch.int64, device=self.device)
        return total.scatter_add_(1, cell, weight.long()).to(self.dtype)

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Idle vehicles move, then the slot's orders come, those of the largest fares are served first."""
        c, city, time = self.config, self.city, state["time"]
        idle, odd = self.idle(state), torch.zeros_like(state["odd"])
        if action.is_floating_point():
            given = action.to(self.dtype)
            logits = given.nan_to_num(0.0).clamp(-LIMIT, LIMIT)
            odd = (logits != given).sum(1).to(self.dtype)
            going = idle & (odd == 0).unsqueeze(1) if c.out_of_range == "refuse" else idle
            move = self.moves(logits.view(len(time), city.zones, MOVES), state["cell"], going, rng)
        else:
            known = action.clamp(0, MOVES - 1)
            odd = ((known != action) & idle).sum(1).to(self.dtype)
            move = known * idle
            if c.out_of_range == "refuse":
                move = move.masked_fill(known != action, 0)
        cell = city.near.flatten().index_select(0, (state["cell"] * MOVES + move).flatten()).view(move.shape)
        moved = (cell != state["cell"]).to(self.dtype)
        asked = city.draw(time.clamp(max=SLOTS - 1), rng)
        driver = self.match(asked.origin, asked.fare, asked.there, cell, idle)
        found = driver < c.vehicles
        # a column more stands for nobody
        padded, free = (torch.nn.functional.pad(part, (0, 1)) for part in (cell, state["free"]))
        pickup = self.reach.between(padded.gather(1, driver), asked.origin)
        busy = pickup + 1 + self.reach.between(asked.origin, asked.goal)
        fares = torch.zeros_like(padded, dtype=self.dtype).scatter(1, driver, asked.fare)[:, :-1]
        reward = (fares - c.move_cost * moved).sum(1)
        following = {
            "time": time + 1,
            "cell": padded.scatter(1, driver, asked.goal)[:, :-1],
            "free": free.scatter(1, driver, time.unsqueeze(1) + busy)[:, :-1],
            "earned": fares - c.move_cost * moved,
            "asked": self.by_zone(asked.origin, asked.there),
            "lost": self.by_zone(asked.origin, asked.there & ~found),
            "come": state["come"] + asked.there.sum(1),
            "served": state["served"] + found.sum(1),
            "fares": state["fares"] + fares.sum(1),
            "moves": state["moves"] + moved.sum(1),
            "odd": state["odd"] + odd,
        }
        return following, reward, following["time"] >= SLOTS

    def moves(self, logits: Tensor, cell: Tensor, going: Tensor, rng: Generator | None) -> Tensor:
        """The move of each vehicle, (n, M) int64, 0 where it stays.

        The idle ones of a zone are spread over the moves as evenly as the softmax of its logits says (systematic
        sampling: one number is drawn for each zone), so k of m vehicles follow logits ``log(k / m)`` exactly.

        Args:
            logits: (n, C, 7).
            cell: (n, M) zones.
            going: (n, M) bool, who may move.
            rng: Draws.
        """
        (n, vehicles), zones = cell.shape, self.city.zones
        chances = logits.masked_fill(~self.city.inside, -torch.inf).softmax(2).cumsum(2)[..., :-1]
        rank, count = self.ranks(cell, going)
        u = torch.rand((n, zones), dtype=self.dtype, generator=rng, device=self.device)
        quantile = (rank + u.gather(1, cell)) / count.gather(1, cell).clamp(min=1)
        row = torch.arange(n, device=self.device).unsqueeze(1) * zones + cell
        edges = chances.reshape(n * zones, MOVES - 1).index_select(0, row.flatten()).view(n, vehicles, MOVES - 1)
        return (quantile.unsqueeze(2) >= edges).sum(2).masked_fill(~going, 0)

    def ranks(self, cell: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """How many of those ``there`` come before each of them in its zone, (n, M), and how many each zone has.

        Args:
            cell: (n, M) zones of the vehicles.
            there: (n, M) bool; the numbers of the others mean nothing.
        """
        zones = self.city.zones
        line, order = torch.where(there, cell, zones).sort(dim=1, stable=True)
        count = torch.zeros((len(cell), zones + 1), dtype=torch.int64, device=self.device)
        count = count.scatter_add_(1, line, torch.ones_like(line))
        rank = torch.arange(cell.shape[1], device=self.device) - (count.cumsum(1) - count).gather(1, line)
        return torch.empty_like(rank).scatter_(1, order, rank), count[:, :-1]

    def match(self, origin: Tensor, fare: Tensor, there: Tensor, cell: Tensor, idle: Tensor) -> Tensor:
        """The vehicle of each order (n, J), M where it has none: from the largest fare on the nearest one."""
        # fares seldom differ by less, and it is enough to prefer who is near
        pickup = torch.arange(self.config.radius + 1, device=self.device, dtype=self.dtype) * 1e-4
        level = torch.zeros((len(cell), self.city.zones), dtype=self.dtype, device=self.device)
        return greedy(
            self.reach, fare.unsqueeze(2) - pickup, level, origin, there, cell, idle, -torch.inf, self.city.most
        )

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Share of the orders that were served, fares, moves to the next zone, number of values out of range."""
        served = state["served"] / state["come"].clamp(min=1)
        return {"served": served, "fares": state["fares"], "moves": state["moves"], "out_of_range": state["odd"]}

    def references(self) -> dict[str, Policy | Bound]:
        """Uniform moves, none, and rules that know what is expected; the bound knows what comes."""
        width = MOVES * self.city.zones

        def random(state: State, rng: Generator | None) -> Tensor:
            return torch.zeros(len(state["time"]), width, device=self.device)

        def stay(state: State, rng: Generator | None) -> Tensor:
            logits = torch.full((self.city.zones, MOVES), -LIMIT, device=self.device)
            logits[:, 0] = LIMIT
            return logits.flatten().expand(len(state["time"]), width)

        return {
            "random": random,
            "stay": stay,
            "nearest": lambda state, rng: nearest(self, state),
            "hungarian": lambda state, rng: assigned(self, state, self.untaught),
            "value-table": lambda state, rng: assigned(self, state, self.table),
            "lp": hindsight(self),
        }

    @property
    def untaught(self) -> Tensor:
        """A table of values (T + 1, C) of which all are 0."""
        return torch.zeros((SLOTS + 1, self.city.zones), dtype=torch.float64)

    @cached_property
    def table(self) -> Tensor:
        """Values (T + 1, C) of an idle vehicle where `assigned` moves them with no values."""
        return values(self)

    def render(self, state: State, i: int) -> np.ndarray:
        """The city from above, (H, W, 3) uint8."""
        kept: dict[str, Any] = {name: value[i].tolist() for name, value in state.items()}
        return draw(kept, self.city.place.tolist(), self.config.size)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """The fleet."""
    yield EnvSpec(
        "fleet",
        Fleet,
        FleetConfig,
        "where idle vehicles wait for orders in a city of hexagonal zones: logits of the moves out of each zone",
        extra="scipy",
        # who decides changes nothing that can be earned
        scored=lambda config: unchanged(replace(config, actors="zones")),
        scores=(
            Score("random", 2743.0, "uniform moves, mean of 512 days"),
            Score("stay", 2447.0, "the same"),
            Score("nearest", 3203.0, "the same"),
            Score("hungarian", 3474.0, "the same"),
            Score("lp", 3819.0, "bound: linear programme in hindsight, mean of 20 days"),
        ),
        tags=("business", "continuous"),
    )
