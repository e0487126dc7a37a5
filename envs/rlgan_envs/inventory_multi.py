"""Many items on the shelves of one store (MABIM, Yang et al. 2023, arXiv 2306.07542): room is short, orders cost.

Model, reward ("reward2") and constants of MABIM's ``single_store`` tasks: replenish, sell, receive. Unlike there the
assortment is made up, since MABIM's data is not packaged, or read from a file of one's own; a delivery that does not
fit is cut by volume, where MABIM divides room by units; and the store opens with mean demand in stock and under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from gymnasium.spaces import Box, MultiDiscrete
from torch import Generator, Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Bound, Policy, State
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.multi_rules import rules
from rlgan_envs.multi_store import GRID, TOTALS, InventoryMultiConfig, MultiStore
from rlgan_envs.stock_picture import Chart

AHEAD = 7
"""Days of the calendar of promotions that are in sight."""


class InventoryMulti(MultiStore):
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
        super().__init__(config, device, dtype)
        s = self.series

        def on_device(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, device=device, dtype=dtype)

        self.promotion = F.pad(on_device(s.promotion), (0, 0, 0, AHEAD)).unfold(0, AHEAD, 1)
        self.weekday = F.one_hot(torch.as_tensor(np.append(s.weekday, (s.weekday[-1] + 1) % 7), device=device), 7)
        terms = (s.price - s.cost) / s.price, s.lead_time / self.width, s.volume * self.items / self.capacity
        self.terms = on_device(np.stack(terms, 1))
        self.unit = float((self.margin * self.demand[: self.cut].mean(0)).mean())
        if not self.unit:
            raise UsageError(
                f"env=inventory-multi: {config.csv} has no demand on the days of training, the first {self.cut}: give "
                "days on which something was asked for, or a smaller env.test_share"
            )
        features = 1 + self.width + config.lookback + 7 + AHEAD + 10 + 1
        low = np.zeros((self.items, features), np.float32)
        low[:, -1] = -np.inf
        self.observation_space = Box(low, np.inf, dtype=np.float32)
        if config.actions == "grid":
            self.action_space: MultiDiscrete | Box = MultiDiscrete([len(GRID)] * self.items)
        else:
            self.action_space = Box(0.0, GRID[-1], (self.items,), np.float32)
        self.charts: dict[int, Chart] = defaultdict(Chart)

    def reset(self, n: int, rng: Generator | None) -> State:
        """A random day; mean demand in stock, and under way for each day of the lead time."""
        day = torch.randint(self.first, self.last + 1, (n,), generator=rng, device=self.device)
        return self.opening(day)

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
        scored=unchanged,
        scores=(
            Score("random", -349600.0, "256 episodes of train days, this env"),
            Score("base-stock", 379200.0, "tuned by simulation, 256 episodes of train days"),
            Score("capped-base-stock", 379400.0, "tuned by simulation, 256 episodes of train days"),
            Score("s-S", 405300.0, "tuned by simulation, 256 episodes of train days"),
            Score("clairvoyant bound", 437600.0, "dual of a linear programme, 32 episodes of train days"),
        ),
        tags=("business", "multi-discrete", "continuous"),
    )
