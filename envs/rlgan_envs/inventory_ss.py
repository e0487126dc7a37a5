"""A fixed cost of ordering, and customers who wait (Arrow, Harris & Marschak 1951): order rarely, and much.

The best policy is (s, S): at a level s or below order up to S (Scarf 1960; Iglehart 1963). The model is exact for any
lead time: an order decides, with all that is under way, the costs of the period in which it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from rlgan.core.protocols import Bound, Model, Policy
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.demand import expected_excess
from rlgan_envs.stock import Stock, StockConfig, axis

RARE = 1e-9
"""Probability of a demand that leads below the model's lowest position from zero."""


@dataclass(frozen=True)
class InventorySSConfig(StockConfig):
    """Settings of the store whose customers wait; the defaults are an example of Zheng & Federgruen (1991)."""

    mean: Annotated[float, Gt(0)] = 10.0
    """Mean demand of a period, in units."""
    lead_time: Annotated[int, Ge(0)] = 0
    """Periods from an order to its arrival; what is ordered with 0 can be sold in the same period."""
    shortage: Annotated[float, Gt(0)] = 9.0
    """Cost of a unit of demand that waits, in each period."""
    order_cost: Annotated[float, Ge(0)] = 64.0
    """Cost of an order, whatever its size."""


class InventorySS(Stock):
    """One period: order q, which arrives L periods later; meet demand D from stock x, what is not met waits (x < 0).

    Cost ``h (x - D)+ + b (D - x)+``, and K if q > 0; the reward is its negative. Never terminated. State and
    observation: see `Stock`; states of the model are positions, stock and all that is under way.
    """

    def __init__(
        self, config: InventorySSConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(config, device, dtype, "inventory-ss", waits=True)
        self.outcomes = self.demand.quantile(1 - RARE) + 1
        self.lowest = 1 - self.outcomes
        self.states = self.capacity - self.lowest + 1

    def optimum(self) -> dict[str, Policy | Bound]:
        """Of `Stock`; none where positions do not tell what will fit."""
        return {} if self.config.capacity and self.lead_time else super().optimum()

    def model(self) -> Model:
        """Of `Stock`. UsageError: positions do not tell what will fit."""
        if self.config.capacity and self.lead_time:
            raise UsageError(
                f"env=inventory-ss: env.capacity={self.capacity} bounds the stock, and with env.lead_time="
                f"{self.lead_time} the model, whose states are stock and orders under way together, cannot tell what "
                "will fit; write env.capacity=0 or env.lead_time=0"
            )
        return super().model()

    def number(self, obs: Tensor) -> Tensor:
        """The position, counted from the lowest one; what lies below is taken for it."""
        return self.units(obs).sum(-1).clamp(self.lowest, self.capacity) - self.lowest

    def outcome(self, state: Tensor, action: Tensor, demand: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From position to position, at the mean cost of the period in which the order arrives."""
        c = self.config
        position = (state + self.lowest + action).clamp(max=self.capacity)
        pmf, mean = self.demand.over(self.lead_time + 1), (self.lead_time + 1) * c.mean
        short = expected_excess(pmf, self.capacity).to(self.device)[position.clamp(min=0)] - position.clamp(max=0)
        cost = c.holding * (position - mean + short) + c.shortage * short + c.order_cost * (action > 0)
        prob = self.demand.pmf[: self.outcomes].to(self.device)
        following = (position - demand).clamp(min=self.lowest) - self.lowest
        return following, prob / prob.sum(), cost

    def references(self) -> dict[str, Policy | Bound]:
        """Random orders, (s, S) as tuned by simulation, and the optimum."""

        def levels() -> Tensor:
            found = axis(self.states, self.states) + self.lowest
            return found[found[:, 0] < found[:, 1]]

        def reorder(pipeline: Tensor, parameters: Tensor) -> Tensor:
            position = pipeline.sum(1)
            return (parameters[:, 1] - position).where(position <= parameters[:, 0], 0.0)

        return {
            "random": self.random,
            "s-S": self.tuned(reorder, levels),
            **self.optimum(),
        }


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Fixed cost of ordering."""
    yield EnvSpec(
        "inventory-ss",
        InventorySS,
        InventorySSConfig,
        "order for a store whose customers wait, where each order has a fixed cost: (s, S) is best",
        scored=unchanged,
        scores=(
            Score("random", -171631.8, "1,000 periods of the model, uniform orders"),
            Score("optimum", -35021.6, "least average cost, (6, 40), from the model, x 1,000 periods"),
        ),
        tags=("business", "discrete", "model"),
    )
