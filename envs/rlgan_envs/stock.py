"""One item in one store: orders that arrive after a lead time, random demand, costs of stock and of shortage.

What the envs ``inventory`` (unmet demand is lost) and ``inventory-ss`` (it waits) share. Shapes: n copies, W width of
the pipeline, which is the lead time L and at least 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Model, Policy, State
from rlgan.errors import UsageError
from rlgan.tables import best_average
from rlgan_envs.demand import Demand
from rlgan_envs.stock_picture import Chart

TABLE = 20_000_000
"""Most entries (S, A, K) of a model: some 0.7 GB."""
ROUNDS = ((16, 128, 64), (64, 256, 8), (1_024, 256, 1))
"""Tuning of a rule: copies, periods, and how many candidates stay. So 2,048 periods of each candidate, 16,384 of the
best 64 and 262,144 of the best 8, all of them against the same demand."""
TOTALS = ("periods", "demanded", "short", "ordered", "odd")
CANDIDATES = 1_000_000
"""Most candidates of a rule: the first round plays 16 copies of each at once."""
WARM_UP = 64
"""Periods of a round that do not count."""

Rule = Callable[[Tensor, Tensor], Tensor]
"""Orders (n,) of pipelines (n, W) by parameters (n, P)."""


@dataclass(frozen=True)
class StockConfig:
    """Settings of one item in one store."""

    demand: Literal["poisson", "geometric"] = "poisson"
    """Distribution of the demand of a period; geometric is on 0, 1, ..."""
    mean: Annotated[float, Gt(0)] = 5.0
    """Mean demand of a period, in units."""
    lead_time: Annotated[int, Ge(0)] = 2
    """Periods from an order to its arrival; what is ordered with 0 can be sold in the same period."""
    holding: Annotated[float, Gt(0)] = 1.0
    """Cost of a unit in stock at the end of a period."""
    shortage: Annotated[float, Gt(0)] = 4.0
    """Cost of a unit of demand that is not met; of one that waits, in each period."""
    order_cost: Annotated[float, Ge(0)] = 0.0
    """Cost of an order, whatever its size."""
    max_order: Annotated[int, Ge(0)] = 0
    """Most units of an order; 0 = mean + 3 deviations of demand, 6 where it waits, and the economic order quantity; or,
    where that is more, as much as demand does not exceed with probability shortage / (shortage + holding)."""
    capacity: Annotated[int, Ge(0)] = 0
    """Most units in stock: what does not fit goes back at no cost; 0 = so many that good policies never notice."""
    out_of_range: Literal["clip", "refuse"] = "clip"
    """An order that is no action of the env is cut to the nearest one, or nothing is ordered. Both are counted."""
    max_steps: Annotated[int, Gt(0)] = 1000
    """Length at which an episode is truncated."""


class Stock:
    """Subclasses number the ``states`` and ``outcomes`` of their model and say what leads where.

    State: ``pipeline`` (n, W), the stock and then the orders under way, the next to arrive first; ``demand`` and
    ``order`` (n,) of the last period; sums since the start, (n,) each: ``periods``, units ``demanded`` and ``short``,
    periods that ``ordered``, and orders out of range, ``odd``.

    Args:
        config: Settings.
        device: Where the env's tensors are.
        dtype: Of state and reward.
        name: Of the env, for messages.
        waits: Whether unmet demand waits; else it is lost.
    """

    fps = 10
    states: int
    outcomes: int

    def __init__(
        self, config: StockConfig, device: torch.device | str, dtype: torch.dtype, name: str, waits: bool
    ) -> None:
        if config.lead_time >= config.max_steps:
            raise UsageError(
                f"env={name}: env.lead_time={config.lead_time} is no shorter than an episode, so no order would ever "
                f"arrive; write a lead time below env.max_steps={config.max_steps}"
            )
        self.name, self.config, self.device, self.dtype, self.waits = name, config, device, dtype, waits
        self.max_steps, self.lead_time = config.max_steps, config.lead_time
        self.demand = Demand(config.demand, config.mean, device, dtype)
        mean, deviation = self.demand.mean, self.demand.deviation
        lot = math.sqrt(2 * config.order_cost * mean / config.holding)
        # who waits must be served some day, after any demand; what is lost is never ordered again
        most = mean + (6 if waits else 3) * deviation + lot
        wanted = self.demand.quantile(config.shortage / (config.shortage + config.holding))
        self.max_order = config.max_order or max(math.ceil(most), wanted)
        if waits and self.max_order <= mean:
            raise UsageError(
                f"env={name}: with orders of at most env.max_order={self.max_order} and a mean demand of "
                f"env.mean={mean:g} ever more customers would wait; write a larger one, or 0 for large enough"
            )
        self.orders = self.max_order + 1
        far = max(12.0, 6.0 * math.sqrt(config.lead_time + 1)) * deviation  # also of the demand until an order arrives
        enough = math.ceil((config.lead_time + 1) * mean + far + 2 * lot)
        self.capacity = config.capacity or max(enough, self.max_order)
        if not config.mean / 2 <= self.capacity:
            raise UsageError(
                f"env={name}: env.capacity={self.capacity} holds less than half of a period's mean demand "
                f"({config.mean:g}); write a larger one, or 0 for one that is large enough"
            )
        self.width = max(self.lead_time, 1)
        high = np.array([self.capacity, *[self.max_order] * (self.width - 1)], np.float32)
        low = np.array([-np.inf if waits else 0.0, *[0.0] * (self.width - 1)], np.float32)
        self.observation_space = Box(low / np.float32(mean), high / np.float32(mean), dtype=np.float32)
        self.action_space = Discrete(self.orders)
        self.charts: dict[int, Chart] = defaultdict(Chart)

    def reset(self, n: int, rng: Generator | None) -> State:
        """Mean demand in stock, and under way for each period of the lead time."""
        start = min(round(self.config.mean), self.capacity, self.max_order)
        pipeline = torch.full((n, self.width), float(start), device=self.device, dtype=self.dtype)
        zeros = torch.zeros(n, device=self.device, dtype=self.dtype)
        return {"pipeline": pipeline, "demand": zeros, "order": zeros, **dict.fromkeys(TOTALS, zeros)}

    def observe(self, state: State) -> Tensor:
        """The pipeline in periods of mean demand, (n, W)."""
        return state["pipeline"] / self.config.mean

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Order, meet the demand of one period, receive."""
        return self.advance(state, action, self.demand.draw(len(action), rng))

    def advance(self, state: State, action: Tensor, demand: Tensor) -> tuple[State, Tensor, Tensor]:
        """The step of a given demand (n,)."""
        c, pipeline = self.config, state["pipeline"]
        order = action.clamp(0, self.max_order)
        odd = order != action
        if c.out_of_range == "refuse":
            order = order.masked_fill(odd, 0)
        order = order.to(self.dtype)
        ordered = order > 0
        stock = pipeline[:, 0]
        if self.lead_time == 0:
            stock = (stock + order).clamp(max=self.capacity)
        left = stock - demand
        kept = left.clamp(min=0)
        short = kept - left
        cost = c.holding * kept + c.shortage * short
        if c.order_cost:
            cost = cost + c.order_cost * ordered
        after = left if self.waits else kept
        if self.lead_time > 0:
            arriving = pipeline[:, 1] if self.lead_time > 1 else order
            after = (after + arriving).clamp(max=self.capacity)
        parts = (after[:, None], pipeline[:, 2:], order[:, None])[: 3 if self.lead_time > 1 else 1]
        following = {
            "pipeline": torch.cat(parts, 1),
            "demand": demand,
            "order": order,
            "periods": state["periods"] + 1,
            "demanded": state["demanded"] + demand,
            "short": state["short"] + short,
            "ordered": state["ordered"] + ordered,
            "odd": state["odd"] + odd,
        }
        return following, -cost, torch.zeros_like(odd)

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Share of demand that was met at once, share of periods with an order, number of orders out of range."""
        return {
            "served": 1 - state["short"] / state["demanded"].clamp(min=1),
            "ordered": state["ordered"] / state["periods"].clamp(min=1),
            "out_of_range": state["odd"],
        }

    def random(self, state: State, rng: Generator | None) -> Tensor:
        """Any order with the same probability, (n,)."""
        n = len(state["pipeline"])
        return torch.randint(self.orders, (n,), generator=rng, device=self.device)

    def tuned(self, rule: Rule, grid: Callable[[], Tensor]) -> Policy:
        """The rule with the parameters among ``grid()`` (C, P) that cost least in simulation, found at the first call.

        The policy raises UsageError where there are more than ``CANDIDATES``.
        """
        found: list[Tensor] = []

        def policy(state: State, rng: Generator | None) -> Tensor:
            if not found:
                found.append(self.tune(rule, grid())[0])
            pipeline = state["pipeline"]
            return self._order(rule, pipeline, found[0].expand(len(pipeline), -1))

        return policy

    def tune(self, rule: Rule, grid: Tensor) -> tuple[Tensor, float]:
        """Parameters (P,) that cost least, and their average cost in the last of the ``ROUNDS``."""
        rng = Generator(self.device).manual_seed(0)
        for copies, periods, stay in ROUNDS:
            cost = self.simulate(rule, grid, copies, periods, rng)
            best = cost.argsort(stable=True)[:stay]
            grid = grid[best]
        return grid[0], float(cost[best[0]])

    def simulate(self, rule: Rule, grid: Tensor, copies: int, periods: int, rng: Generator | None) -> Tensor:
        """Average cost of a period for each of the parameters ``grid`` (C, P), all against the same demand, (C,)."""
        candidates = len(grid)
        parameters = grid.repeat_interleave(copies, 0)
        state, total = (
            self.reset(len(parameters), rng),
            torch.zeros(candidates, dtype=torch.float64, device=self.device),
        )
        for t in range(WARM_UP + periods):
            order = self._order(rule, state["pipeline"], parameters)
            state, reward, _ = self.advance(state, order, self.demand.draw(copies, rng).repeat(candidates))
            if t >= WARM_UP:
                total -= reward.view(candidates, copies).double().mean(1)
        return total / periods

    def _order(self, rule: Rule, pipeline: Tensor, parameters: Tensor) -> Tensor:
        return rule(pipeline, parameters).clamp(0, self.max_order).long()

    def optimum(self) -> dict[str, Policy | Bound]:
        """The best policy of the model and what it brings in an episode; nothing where the model is too large."""
        if self.entries > TABLE:
            return {}
        how = f"relative value iteration: average cost of a period x {self.max_steps} periods"

        def optimal(state: State, rng: Generator | None) -> Tensor:
            return self.best[1][self.number(self.observe(state))]

        return {"optimal": optimal, "optimum": Bound(self.best[0] * self.max_steps, how, "computed from the model")}

    @cached_property
    def best(self) -> tuple[float, Tensor]:
        """Most reward per period for ever, and the best action (S,) of each state of the model."""
        return best_average(self.model())

    @property
    def entries(self) -> int:
        """Size of the model's table, S x A x K."""
        return self.states * self.orders * self.outcomes

    def model(self) -> Model:
        """The table of the env, for planning; costs are means over demand.

        Raises:
            UsageError: it would be too large.
        """
        if self.entries > TABLE:
            raise UsageError(
                f"env={self.name}: its model would have {self.entries:,} entries, {self.states:,} states x "
                f"{self.orders} orders x {self.outcomes} demands, and {TABLE:,} are the most; write a smaller "
                f"env.capacity (now {self.capacity}), env.max_order (now {self.max_order}) "
                "or env.lead_time, or learn without the model"
            )
        shape = self.states, self.orders, self.outcomes
        state, action, demand = (torch.arange(size, device=self.device) for size in shape)
        following, prob, cost = self.outcome(state[:, None, None], action[:, None], demand)
        never = torch.zeros((), dtype=torch.bool, device=self.device)
        parts = (part.expand(shape) for part in (following, prob, -cost, never))
        return Model(*parts, None, self.number)

    def outcome(self, state: Tensor, action: Tensor, demand: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next states, probabilities and mean costs of states (S, 1, 1), actions (A, 1), demands (K,)."""
        raise NotImplementedError

    def number(self, obs: Tensor) -> Tensor:
        """Number (n,) of the model's state that an observation (n, W) shows."""
        raise NotImplementedError

    def units(self, obs: Tensor) -> Tensor:
        """The pipeline (n, W) int64 that an observation shows."""
        return (obs.double() * self.config.mean).round().long()

    def render(self, state: State, i: int) -> np.ndarray:
        """Stock, orders and demand of the periods that this env was asked to draw, (480, 720, 3) uint8."""
        return self.charts[i].draw({name: value[i].tolist() for name, value in state.items()})


def axis(*sizes: int) -> Tensor:
    """All combinations of whole numbers below the sizes, (C, P) float64. UsageError: more than ``CANDIDATES``."""
    if math.prod(sizes) > CANDIDATES:
        raise UsageError(
            f"a rule with {math.prod(sizes):,} candidates is too large to be tuned, {CANDIDATES:,} are the most: write "
            "a smaller env.mean, env.capacity or env.max_order, in larger units"
        )
    return torch.cartesian_prod(*(torch.arange(size, dtype=torch.float64) for size in sizes)).view(-1, len(sizes))
