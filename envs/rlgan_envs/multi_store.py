"""The store of `inventory-multi`: its settings, its days, and what is ordered, sold and received in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import State
from rlgan.datasets import fingerprint
from rlgan.errors import UsageError
from rlgan_envs import multi_series

GRID = (0.0, 0.16, 0.33, *(x / 20 for x in range(8, 13)), 0.66, 0.83)
GRID += tuple(round(whole + part, 2) for whole in (1, 2, 3) for part in (0, 0.16, 0.33, 0.5, 0.66, 0.83))
GRID += (4.0, 5.0, 6.0, 7.0, 9.0, 12.0)
"""MABIM's 34 orders, in days of mean demand."""
DAYS_OF_ROOM = 5
"""Of mean demand: what is suggested where the usual room is too small."""
TOTALS = ("demand", "order", "periods", "demanded", "short", "lines", "excess", "odd")


@dataclass(frozen=True)
class InventoryMultiConfig:
    """Settings of the store with many items."""

    csv: str = ""
    """File of demand: columns date, sku, demand, price, cost, lead_time, and volume and promotion if wanted. Without
    one an assortment is made up."""
    skus: Annotated[int, Gt(0)] = 50
    """Items of a made-up assortment."""
    instance: Annotated[int, Ge(0)] = 0
    """Number of the made-up assortment: its items and their demand."""
    days: Literal["train", "test", "all"] = "train"
    """Days on which episodes lie: those before the last ``test_share``, those, or all. Rules are tuned on the first."""
    test_share: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.2
    """Share of the days, at the end, that is kept for tests."""
    capacity: Annotated[float, Ge(0)] = 0.0
    """Room of the store in units of volume; 0 = 100 for each item."""
    actions: Literal["grid", "continuous"] = "grid"
    """Orders in days of mean demand: one of 34 numbers from 0 to 12, or any number from 0 to 12."""
    order_cost: Annotated[float, Ge(0)] = 10.0
    """Cost of an order of one item, whatever its size."""
    holding: Annotated[float, Ge(0)] = 0.001
    """Cost of a unit in stock at the end of a day."""
    storage: Annotated[float, Ge(0)] = 0.002
    """Cost of the room of a unit of volume at the end of a day."""
    lost_ratio: Annotated[float, Ge(0)] = 0.1
    """Share of its margin that a lost sale costs, beside the margin."""
    overflow_ratio: Annotated[float, Ge(0)] = 0.5
    """Share of its cost that is lost with a unit that finds no room."""
    lookback: Annotated[int, Gt(0)] = 21
    """Days of past demand that are seen, and that mean demand is the mean of."""
    out_of_range: Literal["clip", "refuse"] = "clip"
    """An order that is no action of the env is cut to the nearest one, or nothing is ordered. Both are counted."""
    max_steps: Annotated[int, Gt(0)] = 100
    """Days after which an episode is truncated."""


class Evening(NamedTuple):
    """What a day leaves; (..., K) each, ``coming`` (..., K, W)."""

    stock: Tensor
    coming: Tensor
    lost: Tensor
    excess: Tensor
    earned: Tensor
    part: Tensor
    """What the store earned by the item: its own, less what its delivery cost others, whose own found no room."""


class MultiStore:
    """K items, T days. Whatever a day does to stocks (..., K) is here, for the env, for rules and for the bound."""

    def __init__(
        self, config: InventoryMultiConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config, self.max_steps, self.device, self.dtype = config, config.max_steps, device, dtype
        most = config.max_steps
        self.series = s = (
            multi_series.read(config.csv, most) if config.csv else multi_series.make(config.skus, config.instance)
        )
        self.protocol = fingerprint(s.demand, s.promotion, s.weekday, s.price, s.cost, s.lead_time, s.volume)
        if s.lead_time.max() >= most:
            raise UsageError(
                f"env=inventory-multi: lead times of up to {s.lead_time.max()} days are no shorter than an episode; "
                f"write a larger env.max_steps (now {most})"
            )
        days, self.items = s.demand.shape
        self.cut = cut = days - int(days * config.test_share)
        """Days before those that are kept for tests."""
        parts = {"train": (0, cut), "test": (cut, days), "all": (0, days)}
        self.first, self.last = self._starts(config.days, *parts[config.days])
        learned = "all" if config.days == "all" else "train"
        self.train = self._starts(learned, *parts[learned])
        """First and last day on which an episode of those days may begin that rules are tuned on."""
        self.capacity = config.capacity or self._usual_room()
        if (largest := float(s.volume.max())) > self.capacity:
            raise UsageError(
                f"env=inventory-multi: a unit of '{s.names[int(s.volume.argmax())]}' takes {largest:g} of the store's "
                f"{self.capacity:g} units of volume, so none would ever fit; write a larger env.capacity"
            )
        self.days, self.width = days, max(int(s.lead_time.max()), 1)

        def on_device(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, device=device, dtype=dtype)

        self.demand, self.volume = on_device(s.demand), on_device(s.volume)
        self.margin, self.cost = on_device(s.price - s.cost), on_device(s.cost)
        self.lead_time = torch.as_tensor(s.lead_time, device=device)
        self.place = F.one_hot(self.lead_time, self.width + 1).to(dtype)
        self.holding = config.holding + config.storage * self.volume
        self.grid = torch.tensor(GRID, device=device, dtype=dtype)
        self.middles = (self.grid[1:] + self.grid[:-1]) / 2
        self.past = self.demand.unfold(0, config.lookback, 1)  # (T - lookback + 1, K, lookback)
        self.mean = self.past.mean(-1)
        """Mean demand of the days before day t, (..., K), at t - lookback."""

    def _starts(self, part: str, first: int, end: int) -> tuple[int, int]:
        """First and last day on which an episode of the days ``first`` to ``end`` may begin."""
        c, days = self.config, len(self.series.demand)
        first = max(first, c.lookback)
        if end - c.max_steps < first:
            of = f"{c.csv} has" if c.csv else "the made-up series has"
            raise UsageError(
                f"env=inventory-multi: {of} {days} days, and an episode of env.max_steps={c.max_steps} does not "
                f"fit into those of env.days={part} after env.lookback={c.lookback}; write fewer steps, another "
                f"env.test_share (now {c.test_share:g}) or env.days=all, or give more days"
            )
        return first, end - c.max_steps

    def _usual_room(self) -> float:
        """Room for 100 units of volume of each item. UsageError: not even a mean day's demand fits in."""
        room = 100.0 * self.items
        if (daily := float((self.series.demand[: self.cut].mean(0) * self.series.volume).sum())) > room:
            raise UsageError(
                f"env=inventory-multi: a mean day's demand takes {daily:,.0f} units of volume, and the store has room "
                f"for {room:,.0f}, 100 for each item; write env.capacity=..., such as the room of "
                f"{DAYS_OF_ROOM} days' demand, env.capacity={float(f'{DAYS_OF_ROOM * daily:.2g}'):.0f}"
            )
        return room

    def opening(self, day: Tensor) -> State:
        """The state in which episodes begin on the days (n,)."""
        mean = self.means(day).floor()
        under_way = torch.arange(self.width, device=self.device) < self.lead_time[:, None]
        zeros = torch.zeros(len(day), device=self.device, dtype=self.dtype)
        return {
            "stock": mean,
            "coming": mean[..., None] * under_way,
            "day": day,
            "part": torch.zeros_like(mean),
            **dict.fromkeys(TOTALS, zeros),
        }

    def means(self, day: Tensor) -> Tensor:
        """Mean demand of the days before, (n, K)."""
        return self.mean[day - self.config.lookback]

    def room(self, units: Tensor) -> Tensor:
        """Volume (...) of units (..., K)."""
        return (units * self.volume).sum(-1)

    def orders(self, action: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Whole units (..., K) of actions, and which of these were none of the env's."""
        grid = self.config.actions == "grid"
        known = action.clamp(0, len(GRID) - 1) if grid else action.nan_to_num(0.0).clamp(0, GRID[-1])
        odd = known != action
        times = self.grid[known] if grid else known.to(self.dtype)
        if self.config.out_of_range == "refuse":
            times = times.masked_fill(odd, 0.0)
        return (times * mean).floor(), odd

    def action(self, units: Tensor, mean: Tensor) -> Tensor:
        """The action (..., K) whose order is nearest to so many units."""
        if self.config.actions == "grid":
            return torch.bucketize(units / mean.clamp(min=1e-6), self.middles)
        # half a unit more, so that rounding down gives the unit that was meant
        times = (units.floor() + 0.5) / mean.clamp(min=1e-6)
        return times.masked_fill(units < 1, 0.0).clamp(0, GRID[-1]).to(torch.float32)

    def evening(self, stock: Tensor, coming: Tensor, order: Tensor, demand: Tensor, capacity: float) -> Evening:
        """One day of stocks, orders and demand (..., K) and ``coming`` (..., K, W)."""
        c = self.config
        sold = stock.minimum(demand)
        lost, left = demand - sold, stock - sold
        queue = F.pad(coming, (0, 1)) + order[..., None] * self.place
        arriving = queue[..., 0]
        free = (capacity - self.room(left)).clamp(min=0)
        share = (free / self.room(arriving).clamp(min=1e-9)).clamp(max=1)
        taken = (arriving * share[..., None]).floor()
        stock, excess = left + taken, arriving - taken
        gain = self.margin * (sold - c.lost_ratio * lost) - c.overflow_ratio * self.cost * excess
        earned = gain - c.order_cost * (order > 0) - self.holding * stock
        worth = c.overflow_ratio * self.cost * arriving
        others = worth.sum(-1, keepdim=True) - worth
        without = self.room(arriving)[..., None] - self.volume * arriving
        theirs = 1 - (free[..., None] / without.clamp(min=1e-9)).clamp(max=1)
        part = earned - others * (1 - share[..., None] - theirs)
        return Evening(stock, queue[..., 1:], lost, excess, earned, part)
