"""Order dispatch on a grid of cells: the toy city of Xu et al. (KDD 2018), *Large-Scale Order Dispatch in On-Demand
Ride-Hailing Platforms*, with the constants of the notebook in the repository callmespring/MDPOD.

Differs from the notebook: patience is drawn anew for each order and day. Shapes: n copies, K orders, M drivers, C = 81
cells, T = 20 steps, P pickup distances 0, ..., radius.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt, Interval
from gymnasium.spaces import Box
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.dispatch_orders import CELLS, SIDE, STEPS, Orders, busiest, manhattan, nearby
from rlgan_envs.dispatch_picture import draw
from rlgan_envs.dispatch_planning import hindsight, value_table
from rlgan_envs.matching import Reach, greedy, hungarian

FARTHEST = 2 * (SIDE - 1)
LIMIT = 10.0
"""Bound of an action."""
Matching = Literal["greedy", "hungarian"]


@dataclass(frozen=True)
class DispatchConfig:
    """Settings of the dispatch."""

    drivers: Annotated[int, Interval(ge=1, le=1000)] = 25
    """Drivers in the city; the paper's toy has 25, 50 or 75."""
    orders: Annotated[int, Interval(ge=1, le=1000)] = 100
    """Orders of a day."""
    radius: Annotated[int, Interval(ge=0, le=FARTHEST)] = 2
    """Largest Manhattan distance, in cells, between a driver and an order that may be matched."""
    gamma: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.9
    """Discount per step inside the advantages."""
    unit: Annotated[float, Gt(0)] = 0.3
    """Worth, in orders, of 1 in an action."""
    smooth: Annotated[float, Interval(ge=0.0, le=SIDE)] = 0.0
    """A cell's value is the mean of the actions around it, weighted by a normal curve of this deviation, in cells."""
    matching: Matching = "greedy"
    """In training: one order after another, on the device, or the best sum of all, copy by copy on the CPU."""
    matching_eval: Matching = "hungarian"
    """The same in evaluations and films."""
    decline: bool = False
    """Leave an order to wait where serving it is worth no more than idling; else as many as possible are served."""
    out_of_range: Literal["clip", "refuse"] = "clip"
    """Values out of bounds are cut to the nearest one, NaN to 0, or nobody is sent in that step. Both are counted."""


class Dispatch:
    """State, int64 unless said: ``time`` (n,); of drivers (n, M) ``cell``, the one they are in or go to, and ``free``,
    the step from which they are there; of orders (n, K) ``origin`` and ``goal``, cells, ``begin`` and ``end``, the
    first and last step of waiting, with end -1 once they are served; float sums (n,) ``served``, ``pickup``, cells
    driven to reach orders, and ``odd``, values out of range. Cell 9 x + y is column x, row y.

    Action (n, 81): a value of each cell in units. A reference policy may give (n, 81 + K P) instead: the value of each
    cell, then the worth of each order at each pickup distance, in orders. Reward 1 per order served. Terminated after
    20 steps.
    """

    fps = 3
    max_steps = STEPS + 1

    def __init__(self, config: DispatchConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.reach, self.orders = Reach(manhattan(), config.radius, device), Orders(device)
        self.window = busiest(config.orders)
        gamma = config.gamma
        lasts = torch.arange(FARTHEST + 1)[:, None] + torch.arange(config.radius + 1) + 1  # (trip, P) steps
        spread = [0.0, *(sum(gamma**k for k in range(d)) / d for d in range(1, int(lasts.max()) + 1))]
        self.spread = torch.tensor(spread, dtype=dtype, device=device)
        """A reward of 1 spread evenly over 0, 1, ... steps and discounted."""
        self.worth = self.spread[lasts]
        """(trip, P): the same of a trip and its pickup."""
        over = torch.arange(STEPS)[:, None, None] + lasts >= STEPS
        fade = (gamma ** lasts.double()).expand(STEPS, -1, -1).masked_fill(over, 0.0)
        self.fade = fade.flatten(0, 1).to(device, dtype)
        """(T trip, P): the discount of what follows a trip, 0 where the day is over by then."""
        self.soon = (gamma ** torch.arange(len(spread))).to(device)
        """Discounts of 0, 1, ... steps."""
        self.smooth = config.unit * nearby(config.smooth).T.to(device, dtype) if config.smooth else None
        """(C, C): what 1 in an action, by rows, is worth in the value of each cell, in orders."""
        most = float(max(config.drivers, config.orders))
        self.observation_space = Box(0.0, most, (STEPS + 3 * CELLS,), np.float32)
        self.action_space = Box(-LIMIT, LIMIT, (CELLS,), np.float32)
        self.reference_space = Box(-np.inf, np.inf, (CELLS + config.orders * (config.radius + 1),), np.float32)

    def evaluated(self) -> Dispatch:
        """The env that evaluations and films play: with their way of matching."""
        return Dispatch(replace(self.config, matching=self.config.matching_eval), self.device, self.dtype)

    def reset(self, n: int, rng: Generator | None) -> State:
        """Drivers anywhere, all idle, and the orders of the day."""
        cell = torch.randint(CELLS, (n, self.config.drivers), generator=rng, device=self.device)
        orders = self.orders.draw(n, self.config.orders, rng)
        time = torch.zeros(n, dtype=torch.int64, device=self.device)
        sums = dict.fromkeys(("served", "pickup", "odd"), time.to(self.dtype))
        return {"time": time, "cell": cell, "free": torch.zeros_like(cell), **orders, **sums}

    def observe(self, state: State) -> Tensor:
        """The step, one-hot, then maps of idle drivers, drivers on their way and waiting orders by cell, (n, 263).

        Who is on the way counts ``gamma^k`` in the cell that it goes to, k steps before it is idle there.
        """
        waiting, idle = self.waiting(state), self.idle(state)
        soon = self.soon[(state["free"] - state["time"][:, None]).clamp(min=0)]
        hours = torch.arange(STEPS, device=self.device) == state["time"][:, None]
        maps = [
            torch.zeros(len(hours), CELLS, device=self.device).scatter_add_(1, where, there.float())
            for where, there in ((state["cell"], idle), (state["cell"], soon * ~idle), (state["origin"], waiting))
        ]
        return torch.cat((hours.float(), *maps), 1)

    def waiting(self, state: State) -> Tensor:
        """Whether an order waits, (n, K)."""
        time = state["time"][:, None]
        return (state["begin"] <= time) & (state["end"] >= time)

    def idle(self, state: State) -> Tensor:
        """Whether a driver can be sent, (n, M)."""
        return state["free"] <= state["time"][:, None]

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Score, match, and send who is matched."""
        c, waiting, given = self.config, self.waiting(state), action.to(self.dtype)
        if given.shape[1] > CELLS:
            value, worth = given[:, :CELLS], given[:, CELLS:].view(*waiting.shape, -1)
            odd = torch.zeros_like(state["odd"])
        else:
            value = given.nan_to_num(0.0).clamp(-LIMIT, LIMIT)
            odd = (value != given).sum(1).to(self.dtype)
            value = value * c.unit if self.smooth is None else value @ self.smooth
            worth = self.worths(state, value.gather(1, state["goal"]).unsqueeze(2))
            if c.decline:
                value = value * c.gamma
            if c.out_of_range == "refuse":
                waiting = waiting & (odd == 0).unsqueeze(1)
        return self.send(state, self.match(state, worth, value, waiting), odd)

    def worths(self, state: State, later: Tensor) -> Tensor:
        """``R_gamma + gamma^d V(goal, t + d)`` of serving each order from each pickup distance, (n, K, P).

        With d the steps of pickup and trip, ``R_gamma = (1 / d) sum_{k < d} gamma^k``, and V = 0 when the day is over.

        Args:
            state: The state.
            later: (n, K, 1 or P) value of each order's goal on arrival, in orders.
        """
        trip = self.trip(state)
        hour = state["time"].clamp(max=STEPS - 1).unsqueeze(1) * (FARTHEST + 1)
        return _rows(self.fade, hour + trip).mul_(later).add_(_rows(self.worth, trip))

    def trip(self, state: State) -> Tensor:
        """Steps from each order's origin to its goal, (n, K)."""
        return self.reach.between(state["origin"], state["goal"])

    def match(self, state: State, worth: Tensor, value: Tensor, waiting: Tensor) -> Tensor:
        """The driver of each order (n, K), M where it has none; arguments as `matching.greedy` has them."""
        least = 0.0 if self.config.decline else -torch.inf
        given = self.reach, worth, value, state["origin"], waiting, state["cell"], self.idle(state), least
        return greedy(*given, self.window) if self.config.matching == "greedy" else hungarian(*given)

    def send(self, state: State, driver: Tensor, odd: Tensor) -> tuple[State, Tensor, Tensor]:
        """The step of a given match (n, K); ``odd`` (n,) values were out of range."""
        time, goal = state["time"], state["goal"]
        found = driver < state["cell"].shape[1]
        # a column more stands for nobody
        cell, free = (torch.nn.functional.pad(state[name], (0, 1)) for name in ("cell", "free"))
        pickup = self.reach.between(cell.gather(1, driver), state["origin"])
        there = time.unsqueeze(1) + 1 + pickup + self.trip(state)
        reward = found.sum(1).to(self.dtype)
        following = {
            **state,
            "time": time + 1,
            "cell": cell.scatter(1, driver, goal)[:, :-1],
            "free": free.scatter(1, driver, there)[:, :-1],
            "end": state["end"].masked_fill(found, -1),
            "served": state["served"] + reward,
            "pickup": state["pickup"] + (pickup * found).sum(1),
            "odd": state["odd"] + odd,
        }
        return following, reward, following["time"] >= STEPS

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Share of the day's orders served, mean pickup distance of these in cells, number of values out of range."""
        served = state["served"]
        return {
            "served": served / self.config.orders,
            "pickup": state["pickup"] / served.clamp(min=1),
            "out_of_range": state["odd"],
        }

    def references(self) -> dict[str, Policy | Bound]:
        """Values and worths of which nothing is learned, of the value table, its rows as actions, and the LP bound."""
        c = self.config

        def given(state: State, value: Tensor, worth: Tensor) -> Tensor:
            n = len(state["time"])
            parts = value.expand(n, CELLS), worth.expand(n, c.orders, c.radius + 1).flatten(1)
            return torch.cat(parts, 1).float()

        def random(state: State, rng: Generator | None) -> Tensor:
            n, make = len(state["time"]), {"generator": rng, "device": self.device}
            worth = torch.rand((n, c.orders, c.radius + 1), **make)
            return given(state, torch.rand((n, CELLS), **make), worth + 2)

        def nearest(state: State, rng: Generator | None) -> Tensor:
            distance = torch.arange(c.radius + 1, device=self.device)
            return given(state, torch.zeros(1, device=self.device), 1 - distance / 1000)

        def by_reward(state: State, rng: Generator | None) -> Tensor:
            return torch.zeros(len(state["time"]), CELLS, device=self.device)

        def by_table(state: State, rng: Generator | None) -> Tensor:
            time, distance = state["time"], torch.arange(c.radius + 1, device=self.device)
            there = time[:, None, None] + 1 + self.trip(state).unsqueeze(2) + distance
            later = self.table[there.clamp(max=STEPS), state["goal"].unsqueeze(2)]
            stay = c.gamma * self.table[(time + 1).clamp(max=STEPS)] if c.decline else self.table[time]
            return given(state, stay, self.worths(state, later))

        def row(state: State, rng: Generator | None) -> Tensor:
            return (self.table[state["time"]] / c.unit).clamp(-LIMIT, LIMIT).float()

        return {
            "random": random,
            "nearest": nearest,
            "hungarian": by_reward,
            "value-table": by_table,
            "cell-values": row,
            "lp": hindsight(self),
        }

    @cached_property
    def table(self) -> Tensor:
        """The value table (T + 1, C) of the paper, from days of the nearest policy."""
        plain = replace(self.config, matching="hungarian", decline=False)
        return value_table(Dispatch(plain, self.device, self.dtype))

    def render(self, state: State, i: int) -> np.ndarray:
        """The city from above: drivers and waiting orders, (H, W, 3) uint8."""
        return draw({name: value[i].tolist() for name, value in state.items()})


def _rows(table: Tensor, number: Tensor) -> Tensor:
    """Rows of a table (rows, P) by number (n, K), (n, K, P)."""
    return table.index_select(0, number.flatten()).view(*number.shape, -1)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Dispatch."""
    yield EnvSpec(
        "dispatch",
        Dispatch,
        DispatchConfig,
        "which driver serves which order in a city of 9 x 9 cells: one value per cell decides who is sent",
        extra="scipy",
        scored=unchanged,
        scores=(
            Score("random", 46.4, "mean of 2,000 days, 25 drivers, Hungarian matching"),
            Score("nearest", 46.9, "the same"),
            Score("value-table", 50.9, "the same"),
            Score("lp", 60.7, "bound: linear programme in hindsight, mean of 200 days, 25 drivers"),
        ),
        tags=("business", "continuous"),
    )
