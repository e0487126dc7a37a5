"""Many items on the shelves of one store (MABIM, Yang et al. 2023, arXiv 2306.07542): room is short, orders cost.

Model, reward ("reward2") and constants of MABIM's ``single_store`` tasks: replenish, sell, receive. Unlike there the
assortment is made up, since MABIM's data is not packaged, or read from a file of one's own; a delivery that does not
fit is cut by volume, where MABIM divides room by units; and the store opens with mean demand in stock and under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Box, MultiDiscrete
from torch import Generator, Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Bound, Policy, State
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score
from rlgan_envs import series
from rlgan_envs.multi_rules import rules
from rlgan_envs.stock_picture import Chart

GRID = (0.0, 0.16, 0.33, *(x / 20 for x in range(8, 13)), 0.66, 0.83)
GRID += tuple(round(whole + part, 2) for whole in (1, 2, 3) for part in (0, 0.16, 0.33, 0.5, 0.66, 0.83))
GRID += (4.0, 5.0, 6.0, 7.0, 9.0, 12.0)
"""MABIM's 34 orders, in days of mean demand."""
AHEAD = 7
"""Days of the calendar of promotions that are in sight."""
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
    """What the store earned by the item: its own, and minus what its delivery has cost others, who were pushed out."""


class InventoryMulti:
    """State: ``stock`` (n, K) and ``coming`` (n, K, W), what is received in the evening of each of the next days;
    ``day`` (n,) int64 of the series; ``part`` (n, K) in the last reward, see `Evening`; (n,) each: ``demand`` and
    ``order`` of the last day over all items, and sums since the start: ``periods``, units ``demanded``, ``short`` and
    ``excess``, order ``lines``, and orders out of range, ``odd``.

    Observation (n, K, F): stock, what is coming (W) and demand of the last days (lookback, oldest first), over mean
    demand + 1; weekday (7); promotions from today on (7); ten numbers of item and store, see `observe`; and the
    item's part in the last reward, over the ``unit`` that items earn a day on average. Parts are difference rewards
    (Wolpert & Tumer 2002) and sum to the reward where all deliveries found room.
    """

    fps = 10

    def __init__(
        self, config: InventoryMultiConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config, self.max_steps, self.device, self.dtype = config, config.max_steps, device, dtype
        most = config.max_steps
        self.series = s = series.read(config.csv, most) if config.csv else series.make(config.skus, config.instance)
        if s.lead_time.max() >= most:
            raise UsageError(
                f"env=inventory-multi: lead times of up to {s.lead_time.max()} days are no shorter than an episode; "
                f"write a larger env.max_steps (now {most})"
            )
        days, self.items = s.demand.shape
        cut = days - int(days * config.test_share)
        first, end = {"train": (0, cut), "test": (cut, days), "all": (0, days)}[config.days]
        self.first, self.last = self._starts(first, end)
        self.train = (self.first, self.last) if config.days == "all" else self._starts(0, cut)
        self.capacity = config.capacity or 100.0 * self.items
        self.days, self.width = days, max(int(s.lead_time.max()), 1)

        def on_device(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, device=device, dtype=dtype)

        self.demand, self.volume = on_device(s.demand), on_device(s.volume)
        self.margin, self.cost = on_device(s.price - s.cost), on_device(s.cost)
        self.lead_time = torch.as_tensor(s.lead_time, device=device)
        self.place = F.one_hot(self.lead_time, self.width + 1).to(dtype)
        self.holding = config.holding + config.storage * self.volume
        self.past = self.demand.unfold(0, config.lookback, 1)  # (T - lookback + 1, K, lookback)
        self.mean = self.past.mean(-1)
        """Mean demand of the days before day t, (..., K), at t - lookback."""
        self.promotion = F.pad(on_device(s.promotion), (0, 0, 0, AHEAD)).unfold(0, AHEAD, 1)
        self.weekday = F.one_hot(torch.as_tensor(np.append(s.weekday, (s.weekday[-1] + 1) % 7), device=device), 7)
        self.grid = torch.tensor(GRID, device=device, dtype=dtype)
        self.middles = (self.grid[1:] + self.grid[:-1]) / 2
        terms = (s.price - s.cost) / s.price, s.lead_time / self.width, s.volume * self.items / self.capacity
        self.terms = on_device(np.stack(terms, 1))
        self.unit = float((self.margin * self.demand[:cut].mean(0)).mean())
        features = 1 + self.width + config.lookback + 7 + AHEAD + 10 + 1
        low = np.zeros((self.items, features), np.float32)
        low[:, -1] = -np.inf
        self.observation_space = Box(low, np.inf, dtype=np.float32)
        if config.actions == "grid":
            self.action_space: MultiDiscrete | Box = MultiDiscrete([len(GRID)] * self.items)
        else:
            self.action_space = Box(0.0, GRID[-1], (self.items,), np.float32)
        self.charts: dict[int, Chart] = defaultdict(Chart)

    def _starts(self, first: int, end: int) -> tuple[int, int]:
        """First and last day on which an episode of the days ``first`` to ``end`` may begin."""
        c, days = self.config, len(self.series.demand)
        first = max(first, c.lookback)
        if end - c.max_steps < first:
            of = f"{c.csv} has" if c.csv else "the made-up series has"
            raise UsageError(
                f"env=inventory-multi: {of} {days} days, and an episode of env.max_steps={c.max_steps} does not "
                f"fit into those of env.days={c.days} after env.lookback={c.lookback}; write fewer steps, another "
                f"env.test_share (now {c.test_share:g}) or env.days=all, or give more days"
            )
        return first, end - c.max_steps

    def reset(self, n: int, rng: Generator | None) -> State:
        """A random day; mean demand in stock, and under way for each day of the lead time."""
        day = torch.randint(self.first, self.last + 1, (n,), generator=rng, device=self.device)
        return self.opening(day)

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

    def observe(self, state: State) -> Tensor:
        """What the class says. The ten: margin over price; lead time over the longest; room of a unit, and of a day's
        demand, in shares of an item's; logarithm of a day's demand; a day's margin over the unit; an order in days of
        margin; 100 days of holding a unit over its margin; room taken, and room that what is coming will take, in
        shares of the store. A day's demand is mean demand + 1, its margin what that earns."""
        day, n = state["day"], len(state["day"])
        scale = self.means(day) + 1
        taken, due = self.room(state["stock"]), self.room(state["coming"].sum(-1))
        margin = self.margin * scale
        each = (
            state["stock"][..., None] / scale[..., None],
            state["coming"] / scale[..., None],
            self.past[day - self.config.lookback] / scale[..., None],
            self.weekday[day][:, None].expand(-1, self.items, -1),
            self.promotion[day],
            self.terms.expand(n, -1, -1),
            torch.stack(
                (
                    self.volume * scale * self.items / self.capacity,
                    scale.log(),
                    margin / self.unit,
                    self.config.order_cost / margin,
                    (100 * self.holding / self.margin).expand_as(scale),
                    (taken / self.capacity)[:, None].expand_as(scale),
                    (due / self.capacity)[:, None].expand_as(scale),
                    state["part"] / self.unit,
                ),
                -1,
            ),
        )
        return torch.cat([part.to(torch.float32) for part in each], -1)

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

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Order, sell, receive. The series holds what customers ask for, so nothing is drawn."""
        order, odd = self.orders(action, self.means(state["day"]))
        # an episode that ended on the last day is stepped once more before its reset
        demand = self.demand[state["day"].clamp(max=self.days - 1)]
        after = self.evening(state["stock"], state["coming"], order, demand, self.capacity)
        asked, short = demand.sum(1), after.lost.sum(1)
        following = {
            "stock": after.stock,
            "coming": after.coming,
            "day": (state["day"] + 1).clamp(max=self.days),
            "part": after.part,
            "demand": asked,
            "order": order.sum(1),
            "periods": state["periods"] + 1,
            "demanded": state["demanded"] + asked,
            "short": state["short"] + short,
            "lines": state["lines"] + (order > 0).sum(1),
            "excess": state["excess"] + after.excess.sum(1),
            "odd": state["odd"] + odd.sum(1),
        }
        return following, after.earned.sum(1), torch.zeros(len(asked), dtype=torch.bool, device=self.device)

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

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Share of demand that was met, orders of an item per day, units that found no room, orders out of range."""
        return {
            "served": 1 - state["short"] / state["demanded"].clamp(min=1),
            "lines": state["lines"] / (state["periods"].clamp(min=1) * self.items),
            "overflow": state["excess"],
            "out_of_range": state["odd"],
        }

    def references(self) -> dict[str, Policy | Bound]:
        """Random orders, three rules tuned by simulation, and a bound of those who know the future."""
        return rules(self)

    def render(self, state: State, i: int) -> np.ndarray:
        """Stock, orders and demand over all items, day by day, (480, 720, 3) uint8."""
        shown = {name: state[name][i].item() for name in TOTALS}
        pipeline = [state["stock"][i].sum().item(), *state["coming"][i].sum(0).tolist()]
        return self.charts[i].draw({**shown, "pipeline": pipeline})


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Many items."""
    yield EnvSpec(
        "inventory-multi",
        InventoryMulti,
        InventoryMultiConfig,
        "order 50 items for a store that is short of room, with promotions to plan for; or items of your own CSV",
        scores=(
            Score("random", -349600.0, "256 episodes of train days, this env"),
            Score("base-stock", 379200.0, "tuned by simulation, 256 episodes of train days"),
            Score("capped-base-stock", 379400.0, "tuned by simulation, 256 episodes of train days"),
            Score("s-S", 405300.0, "tuned by simulation, 256 episodes of train days"),
            Score("clairvoyant bound", 438800.0, "dual of a linear programme, 8 episodes of train days"),
        ),
        tags=("business", "multi-discrete", "continuous"),
    )
