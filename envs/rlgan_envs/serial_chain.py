"""The chain of `inventory-serial`: its settings, and what is ordered, shipped and sold in a period."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Generator, Tensor
from torch.nn import functional as F

from rlgan.core.protocols import State
from rlgan.errors import UsageError
from rlgan_envs.demand import Demand

Units = tuple[Annotated[int, Ge(0)], ...]
Costs = tuple[Annotated[float, Ge(0)], ...]


@dataclass(frozen=True)
class InventorySerialConfig:
    """Settings of the chain; lists begin with the stage that sells to customers."""

    mean: Annotated[float, Gt(0)] = 20.0
    """Mean demand of a period; demand is Poisson."""
    start: Units = (100, 100, 200)
    """Units in stock at the start, for each stage."""
    lead_times: Units = (3, 5, 10)
    """Periods from the shipment to a stage to its arrival; 0 can be sold in the same period."""
    capacities: Units = (100, 90, 80)
    """Most units that are shipped to a stage in a period."""
    holding: Costs = (0.15, 0.10, 0.05)
    """Cost of a unit in stock at the end of a period, for each stage."""
    shortage: Costs = (0.10, 0.075, 0.05, 0.025)
    """Cost of a unit not sold, then of a unit that each stage has ordered and was not shipped, in each period."""
    price: Annotated[float, Gt(0)] = 2.0
    """Earned by a unit sold to a customer."""
    cost: Annotated[float, Ge(0)] = 0.5
    """Paid for a unit that is shipped to the last stage, from a source without end."""
    discount: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.97
    """Worth of a profit one period later; rewards are discounted by it."""
    waits: bool = True
    """Customers and orders that are not served wait; else both are lost."""
    out_of_range: Literal["clip", "refuse"] = "clip"
    """An order that is no action of the env is cut to the nearest one, or nothing is ordered. Both are counted."""
    max_steps: Annotated[int, Gt(0)] = 30
    """Periods after which an episode is truncated."""


class SerialChain:
    """State, for M stages: ``stock`` (n, M); ``coming`` (n, M, W), what arrives in each of the next periods;
    ``waiting`` (n, M + 1), customers and then the orders of each stage; ``order`` (n, M) of each stage in the last
    period; ``worth`` (n,) of a profit now; (n,) ``demand`` of the last period; and sums since the start: ``periods``
    and units ``demanded`` (n,), units ``short`` (n, M + 1) as those who wait, and orders out of range, ``odd`` (n,).
    """

    def __init__(
        self, config: InventorySerialConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        c, self.stages = config, len(config.lead_times)
        lengths = {name: len(getattr(c, name)) for name in ("start", "lead_times", "capacities", "holding")}
        if self.stages == 0 or set(lengths.values()) != {self.stages} or len(c.shortage) != self.stages + 1:
            found = ", ".join(f"env.{name} {length}" for name, length in lengths.items())
            raise UsageError(
                f"env=inventory-serial: {found} and env.shortage {len(c.shortage)} entries make no chain; write one "
                "entry for each stage, and one more in env.shortage"
            )
        if max(c.lead_times) >= c.max_steps:
            raise UsageError(
                f"env=inventory-serial: env.lead_times has {max(c.lead_times)}, which is no shorter than an episode; "
                f"write lead times below env.max_steps={c.max_steps}"
            )
        if min(c.capacities) == 0:
            raise UsageError(
                "env=inventory-serial: env.capacities has 0, and nothing would be shipped; write 1 or more"
            )
        self.config, self.max_steps, self.device, self.dtype = c, c.max_steps, device, dtype
        self.demand = Demand("poisson", c.mean, device, dtype)
        self.width = max(*c.lead_times, 1)

        def vector(values: Iterable[float]) -> Tensor:
            return torch.tensor(list(values), device=device, dtype=dtype)

        self.start, self.capacity = vector(c.start), vector(c.capacities)
        self.holding, self.shortage = vector(c.holding), vector(c.shortage)
        self.lead_time = torch.tensor(c.lead_times, device=device)
        self.place = F.one_hot(self.lead_time, self.width + 1).to(dtype)

    def reset(self, n: int, rng: Generator | None) -> State:
        """The stocks of the settings, and nothing under way."""
        zeros = torch.zeros(n, device=self.device, dtype=self.dtype)
        each = zeros[:, None].expand(-1, self.stages)
        return {
            "stock": self.start.expand(n, -1),
            "coming": each[..., None].expand(-1, -1, self.width),
            **dict.fromkeys(("waiting", "short"), zeros[:, None].expand(-1, self.stages + 1)),
            "order": each,
            "worth": zeros + 1,
            **dict.fromkeys(("demand", "periods", "demanded", "odd"), zeros),
        }

    def advance(self, state: State, action: Tensor, demand: Tensor) -> tuple[State, Tensor, Tensor]:
        """The step of a given demand (n,)."""
        c = self.config
        wished = action.to(self.dtype).round()
        order = wished.nan_to_num(0.0).clamp(min=0).minimum(self.capacity)
        odd = order != wished
        if c.out_of_range == "refuse":
            order = order.masked_fill(odd, 0.0)
        asked = order + state["waiting"][:, 1:]
        # a stage ships what it had at the start of the period; the source has no end
        above = F.pad(state["stock"][:, 1:], (0, 1), value=torch.inf)
        shipped = asked.minimum(self.capacity).minimum(above)
        queue = F.pad(state["coming"], (0, 1)) + shipped[..., None] * self.place
        stock = state["stock"] + queue[..., 0]
        due = demand + state["waiting"][:, 0]
        sold = due.minimum(stock[:, 0])
        stock = stock - torch.cat((sold[:, None], shipped[:, :-1]), 1)
        unmet = torch.cat(((due - sold)[:, None], asked - shipped), 1)
        costs = (self.shortage * unmet).sum(1) + (self.holding * stock).sum(1) + c.cost * shipped[:, -1]
        following = {
            "stock": stock,
            "coming": queue[..., 1:],
            "waiting": unmet if c.waits else torch.zeros_like(unmet),
            "order": order,
            "worth": state["worth"] * c.discount,
            "demand": demand,
            "periods": state["periods"] + 1,
            "demanded": state["demanded"] + demand,
            # of those who wait, whoever came in this period and found the shelf empty
            "short": state["short"] + unmet.minimum(torch.cat((demand[:, None], order), 1)),
            "odd": state["odd"] + odd.sum(1),
        }
        never = torch.zeros(len(demand), dtype=torch.bool, device=self.device)
        return following, state["worth"] * (c.price * sold - costs), never
