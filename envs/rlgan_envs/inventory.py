"""Lost sales with a lead time (Karlin & Scarf 1958; Zipkin 2008): an order comes after customers have left.

No simple policy is optimal. Small cases are solved exactly by their model, under the average cost per period.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlgan.core.protocols import Bound, Policy
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.demand import expected_excess
from rlgan_envs.stock import Stock, StockConfig, axis


@dataclass(frozen=True)
class InventoryConfig(StockConfig):
    """Settings of the store with lost sales."""


class Inventory(Stock):
    """One period: order q; meet demand D from stock x, what is not met is lost; receive the order of L - 1 periods ago.

    Cost ``h (x - D)+ + p (D - x)+``, and K if q > 0; the reward is its negative. Never terminated. State and
    observation: see `Stock`.
    """

    def __init__(self, config: InventoryConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config, device, dtype, "inventory", waits=False)
        self.places = [self.orders**k for k in range(self.width - 1, -1, -1)]
        """What a unit counts in a state's number: in stock most, in the last order least."""
        self.states, self.outcomes = (self.capacity + 1) * self.places[0], self.capacity + 1

    def number(self, obs: Tensor) -> Tensor:
        """All pipelines in order, (n,): stock first."""
        number, *orders = self.units(obs).unbind(-1)
        for order in orders:
            number = number * self.orders + order
        return number

    def outcome(self, state: Tensor, action: Tensor, demand: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The env itself. All demands that empty the store are one outcome."""
        c, most = self.config, self.capacity
        stock = state // self.places[0]
        if self.lead_time == 0:
            stock = (stock + action).clamp(max=most)
        short = expected_excess(self.demand.pmf, most).to(self.device)[stock]
        cost = c.holding * (stock - c.mean + short) + c.shortage * short + c.order_cost * (action > 0)
        pmf = self.demand.pmf[: most + 1].to(self.device)
        pmf = torch.nn.functional.pad(pmf, (0, most + 1 - len(pmf)))
        at_least = (1 - pmf.cumsum(0) + pmf).clamp(min=0)
        prob = torch.where(demand < stock, pmf, at_least).masked_fill(demand > stock, 0.0)
        left = (stock - demand).clamp(min=0)
        if self.lead_time > 0:
            arriving = state // self.places[1] % self.orders if self.lead_time > 1 else action
            left = (left + arriving).clamp(max=most)
        following = left * self.places[0]
        if self.lead_time > 1:
            following = following + state % self.places[1] * self.orders + action
        return following, prob, cost

    def references(self) -> dict[str, Policy | Bound]:
        """Random and constant orders, base-stock and capped base-stock as tuned by simulation, and the optimum."""
        levels = self.capacity + 1

        def base_stock(pipeline: Tensor, parameters: Tensor) -> Tensor:
            return parameters[:, 0] - pipeline.sum(1)

        def capped(pipeline: Tensor, parameters: Tensor) -> Tensor:
            return base_stock(pipeline, parameters).minimum(parameters[:, 1])

        def constant(pipeline: Tensor, parameters: Tensor) -> Tensor:
            return parameters[:, 0]

        return {
            "random": self.random,
            "constant-order": self.tuned(constant, lambda: axis(self.orders)),
            "base-stock": self.tuned(base_stock, lambda: axis(levels)),
            "capped-base-stock": self.tuned(capped, lambda: axis(levels, self.orders)),
            **self.optimum(),
        }


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Lost sales."""
    yield EnvSpec(
        "inventory",
        Inventory,
        InventoryConfig,
        "order for a store whose unmet demand is lost, with a lead time; small cases have their exact optimum",
        scored=unchanged,
        scores=(
            Score("random", -29840.2, "1,000 periods of the model, uniform orders"),
            Score("base-stock", -4638.6, "average cost with S = 16, from the model, x 1,000 periods"),
            Score("capped-base-stock", -4405.7, "average cost with S = 17, r = 5, from the model, x 1,000 periods"),
            Score("optimum", -4395.3, "least average cost, from the model, x 1,000 periods"),
        ),
        tags=("business", "discrete", "model"),
    )
