"""The newsvendor (Arrow, Harris & Marschak 1951): order before demand is known; what is left over is worth nothing.

The best order is the critical quantile of demand. ``vary`` draws the terms of trade from the ranges of Balaji et al.
(2019), arXiv 1911.10641; unlike theirs, orders arrive at once and nothing is discounted: the quantile stays the best.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from gymnasium.spaces import Box
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.stock_picture import Chart

MOST = 10_000
"""Largest mean demand: quantiles are read off a table of all demands."""
RANGES = {"price": 100.0, "disposal": 5.0, "goodwill": 10.0, "mean": 200.0}
"""Upper ends of the uniform ranges of ``vary``; the cost lies below the price, disposal below the cost as well."""
DRAWS = 1 << 13
"""Terms of trade over which the optimum of ``vary`` is averaged."""


@dataclass(frozen=True)
class NewsvendorConfig:
    """Settings of the newsvendor."""

    mean: Annotated[float, Gt(0), Le(MOST)] = 20.0
    """Mean demand of a period; demand is Poisson."""
    price: Annotated[float, Gt(0)] = 10.0
    """Earned by a unit sold."""
    cost: Annotated[float, Ge(0)] = 6.0
    """Paid for a unit ordered."""
    disposal: float = 0.0
    """Paid for a unit left over; negative is a salvage value."""
    goodwill: Annotated[float, Ge(0)] = 0.0
    """Lost, beside the sale, with a unit of demand that is not met."""
    vary: bool = False
    """Draw these five in each episode: price <= 100, cost <= price, disposal <= 5 and <= cost, goodwill <= 10, mean
    <= 200."""
    out_of_range: Literal["clip", "refuse"] = "clip"
    """An order that cannot be is cut to the nearest one, NaN to 0, or nothing is ordered. Both are counted."""
    max_steps: Annotated[int, Gt(0)] = 40
    """Periods after which an episode is truncated."""


class Newsvendor:
    """State: ``terms`` (n, 5), price p, cost c, disposal h, goodwill k and mean demand; ``demand`` and ``order`` (n,)
    of the last period; sums since the start, (n,) each: ``periods``, units ``demanded`` and ``short``, and orders out
    of range, ``odd``. The agent sees the terms, each over the largest value that it can have.

    Action (n, 1): the order q, rounded to whole units. Reward ``p min(q, D) - c q - h (q - D)+ - k (D - q)+``.
    """

    fps = 10

    def __init__(
        self, config: NewsvendorConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        if not config.vary and config.cost + config.disposal <= 0:
            raise UsageError(
                f"env=newsvendor: env.cost={config.cost:g} and env.disposal={config.disposal:g} make every unit left "
                "over a gain, so there is no best order; write a cost above the salvage value"
            )
        if not config.vary and config.price + config.goodwill <= config.cost:
            raise UsageError(
                f"env=newsvendor: a unit that is sold brings env.price={config.price:g}, saves env.goodwill="
                f"{config.goodwill:g} and costs env.cost={config.cost:g}, so it is best to "
                "order nothing; write a higher price"
            )
        self.config, self.max_steps, self.device, self.dtype = config, config.max_steps, device, dtype
        fixed = [config.price, config.cost, config.disposal, config.goodwill, config.mean]
        self.terms = torch.tensor(fixed, device=device, dtype=dtype)
        most = RANGES["mean"] if config.vary else config.mean
        self.max_order = int(most + 4 * most**0.5 + 4)
        highest = [RANGES[name] for name in ("price", "price", "disposal", "goodwill", "mean")]
        self.scale = torch.tensor(highest if config.vary else [max(abs(term), 1.0) for term in fixed], device=device)
        low = -1.0 if config.disposal < 0 and not config.vary else 0.0
        self.observation_space = Box(low, 1.0, (5,), np.float32)
        self.action_space = Box(0.0, float(self.max_order), (1,), np.float32)
        self.charts: dict[int, Chart] = defaultdict(Chart)

    def reset(self, n: int, rng: Generator | None) -> State:
        """The terms of the settings, or drawn anew."""
        terms = self.terms.expand(n, -1).clone()
        if self.config.vary:
            # 1 - u lies in (0, 1]: neither price nor mean demand is 0
            u = 1 - torch.rand((n, 5), generator=rng, device=self.device, dtype=self.dtype)
            price = u[:, 0] * RANGES["price"]
            cost = u[:, 1] * price
            disposal = u[:, 2] * cost.clamp(max=RANGES["disposal"])
            terms = torch.stack((price, cost, disposal, u[:, 3] * RANGES["goodwill"], u[:, 4] * RANGES["mean"]), 1)
        zeros = torch.zeros(n, device=self.device, dtype=self.dtype)
        names = ("demand", "order", "periods", "demanded", "short", "odd")
        return {"terms": terms, **dict.fromkeys(names, zeros)}

    def observe(self, state: State) -> Tensor:
        """The terms, (n, 5)."""
        return (state["terms"] / self.scale).to(torch.float32)

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Order, then meet the demand of one period."""
        return self.advance(state, action, torch.poisson(state["terms"][:, 4], generator=rng))

    def advance(self, state: State, action: Tensor, demand: Tensor) -> tuple[State, Tensor, Tensor]:
        """The step of a given demand (n,)."""
        price, cost, disposal, goodwill, _ = state["terms"].unbind(1)
        asked = action[:, 0].to(self.dtype).round()
        order = asked.nan_to_num(0.0).clamp(0, self.max_order)
        odd = order != asked
        if self.config.out_of_range == "refuse":
            order = order.masked_fill(odd, 0.0)
        left, short = (order - demand).clamp(min=0), (demand - order).clamp(min=0)
        reward = price * (demand - short) - cost * order - disposal * left - goodwill * short
        following = {
            "terms": state["terms"],
            "demand": demand,
            "order": order,
            "periods": state["periods"] + 1,
            "demanded": state["demanded"] + demand,
            "short": state["short"] + short,
            "odd": state["odd"] + odd,
        }
        return following, reward, torch.zeros_like(odd)

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Share of demand that was met, number of orders out of range."""
        return {"served": 1 - state["short"] / state["demanded"].clamp(min=1), "out_of_range": state["odd"]}

    def quantile(self, terms: Tensor) -> Tensor:
        """The best orders (n,) of terms (n, 5): least q with ``F(q) >= (p - c + k) / (p + k + h)``."""
        price, cost, disposal, goodwill, _ = terms.double().unbind(1)
        ratio = (price - cost + goodwill) / (price + goodwill + disposal)
        return (self._pmf(terms).cumsum(1) < ratio[:, None]).sum(1).clamp(max=self.max_order)

    def profit(self, terms: Tensor, order: Tensor) -> Tensor:
        """Expected profit (n,) of a period with terms (n, 5) and orders (n,)."""
        price, cost, disposal, goodwill, mean = terms.double().unbind(1)
        value = torch.arange(self.max_order + 1, device=terms.device)
        left = ((order[:, None] - value).clamp(min=0) * self._pmf(terms)).sum(1)
        short = mean - order + left
        return price * (mean - short) - cost * order - disposal * left - goodwill * short

    def _pmf(self, terms: Tensor) -> Tensor:
        """Probabilities (n, Q + 1) of the demands that can be met."""
        mean, k = terms[:, 4:].double(), torch.arange(self.max_order + 1, device=terms.device, dtype=torch.float64)
        return torch.exp(k * mean.log() - mean - torch.lgamma(k + 1))

    def references(self) -> dict[str, Policy | Bound]:
        """Random orders, the mean demand, the critical quantile, and what that earns in an episode."""

        def random(state: State, rng: Generator | None) -> Tensor:
            n = len(state["terms"])
            return torch.rand((n, 1), generator=rng, device=self.device) * self.max_order

        terms, how = self.terms[None], "closed form"
        if self.config.vary:
            terms = self.reset(DRAWS, Generator(self.device).manual_seed(0))["terms"]
            how = f"closed form, mean of {DRAWS:,} terms"
        best = float(self.profit(terms, self.quantile(terms)).mean())
        return {
            "random": random,
            "mean-demand": lambda state, rng: state["terms"][:, 4:].float(),
            "critical-quantile": lambda state, rng: self.quantile(state["terms"])[:, None].float(),
            "optimum": Bound(best * self.max_steps, how, "F(q) = (p - c + k) / (p + k + h)"),
        }

    def render(self, state: State, i: int) -> np.ndarray:
        """Orders, demand and what was left of the periods drawn, (480, 720, 3) uint8."""
        shown = {name: value[i].tolist() for name, value in state.items()}
        return self.charts[i].draw({**shown, "pipeline": [max(shown["order"] - shown["demand"], 0.0)]})


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Newsvendor."""
    yield EnvSpec(
        "newsvendor",
        Newsvendor,
        NewsvendorConfig,
        "order before demand is known; the best order is a quantile of demand",
        scored=unchanged,
        scores=(
            Score("random", 1032.9, "mean of 5,000 episodes, this env"),
            Score("optimum", 2517.4, "closed form, 40 periods"),
        ),
        tags=("business", "continuous"),
    )
