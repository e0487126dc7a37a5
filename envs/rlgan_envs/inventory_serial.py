"""A chain of stages, each of which orders from the next one (Hubbs et al. 2020, OR-Gym, arXiv 2008.06319).

Model, timing and constants of OR-Gym's ``InvManagement`` envs. What is corrected: the agent sees what was shipped and
what waits (there: what was asked for, and no backlog, so that the state is not seen whole); random numbers are the
env's own; the rule of echelon base-stock works. Prices between stages cancel out of the chain's profit: they are left
out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Box
from torch import Generator, Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Bound, Policy, State
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score
from rlgan_envs.demand import Demand
from rlgan_envs.serial_rules import PerfectInformation, echelon_base_stock
from rlgan_envs.stock_picture import Chart

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


class InventorySerial:
    """State, for M stages: ``stock`` (n, M); ``coming`` (n, M, W), what arrives in each of the next periods;
    ``waiting`` (n, M + 1), customers and then the orders of each stage; ``asked`` (n, M) of each stage in the last
    period, with what waited; ``worth`` (n,) of a profit now; (n,) each: ``demand`` of the last period, and sums since
    the start: ``periods``, units ``demanded`` and ``short``, and orders out of range, ``odd``.

    Observation: stock, what is coming and what waits, in periods of mean demand, and the share of the episode that is
    over. Action (M,): orders, rounded to whole units.
    """

    fps = 10

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
        lead_time = torch.tensor(c.lead_times, device=device)
        self.place = F.one_hot(lead_time, self.width + 1).to(dtype)
        seen = torch.arange(self.width, device=device) < lead_time[:, None]
        self.seen = seen.flatten().nonzero().flatten()
        """Places of ``coming`` in which something can be."""
        size = self.stages + len(self.seen) + self.stages + 1 + 1
        self.observation_space = Box(0.0, np.inf, (size,), np.float32)
        self.action_space = Box(np.zeros(self.stages, np.float32), np.array(c.capacities, np.float32))
        self.charts: dict[tuple[int, int], Chart] = defaultdict(Chart)

    def reset(self, n: int, rng: Generator | None) -> State:
        """The stocks of the settings, and nothing under way."""
        zeros = torch.zeros(n, device=self.device, dtype=self.dtype)
        each = zeros[:, None].expand(-1, self.stages)
        return {
            "stock": self.start.expand(n, -1),
            "coming": each[..., None].expand(-1, -1, self.width),
            "waiting": zeros[:, None].expand(-1, self.stages + 1),
            "asked": each,
            "worth": zeros + 1,
            **dict.fromkeys(("demand", "periods", "demanded", "short", "odd"), zeros),
        }

    def observe(self, state: State) -> Tensor:
        """What the class says, (n, F)."""
        coming = state["coming"].flatten(1).index_select(1, self.seen)
        units = torch.cat((state["stock"], coming, state["waiting"]), 1) / self.config.mean
        return torch.cat((units, state["periods"][:, None] / self.max_steps), 1).to(torch.float32)

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Order and ship, receive, sell."""
        return self.advance(state, action, self.demand.draw(len(action), rng))

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
            "asked": asked,
            "worth": state["worth"] * c.discount,
            "demand": demand,
            "periods": state["periods"] + 1,
            "demanded": state["demanded"] + demand,
            # of those who wait, whoever came in this period and found the shelf empty
            "short": state["short"] + unmet[:, 0].minimum(demand),
            "odd": state["odd"] + odd.sum(1),
        }
        never = torch.zeros(len(demand), dtype=torch.bool, device=self.device)
        return following, state["worth"] * (c.price * sold - costs), never

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Share of demand that was met at once, number of orders out of range."""
        return {"served": 1 - state["short"] / state["demanded"].clamp(min=1), "out_of_range": state["odd"]}

    def references(self) -> dict[str, Policy | Bound]:
        """Random orders, mean demand, echelon base-stock as found by simulation, and the bound of who knows demand."""

        def random(state: State, rng: Generator | None) -> Tensor:
            u = torch.rand(state["stock"].shape, generator=rng, device=self.device)
            return u * self.capacity.to(torch.float32)

        def mean_demand(state: State, rng: Generator | None) -> Tensor:
            return self.capacity.clamp(max=self.config.mean).to(torch.float32).expand_as(state["stock"])

        return {
            "random": random,
            "mean-demand": mean_demand,
            "echelon-base-stock": echelon_base_stock(self),
            "perfect-information": PerfectInformation(self),
        }

    def render(self, state: State, i: int) -> np.ndarray:
        """Stock, orders and demand of each stage, one chart below the other, (480 M, 720, 3) uint8."""
        shown = {name: value[i].tolist() for name, value in state.items()}
        asked_of = [shown["demand"], *shown["asked"]]
        pictures = []
        for k in range(self.stages):
            stage = {
                "periods": shown["periods"],
                "short": shown["short"] if k == 0 else 0.0,
                "pipeline": [shown["stock"][k] - shown["waiting"][k], *shown["coming"][k]],
                "demand": asked_of[k],
                "order": shown["asked"][k],
            }
            pictures.append(self.charts[i, k].draw(stage))
        return np.concatenate(pictures)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """A chain."""
    yield EnvSpec(
        "inventory-serial",
        InventorySerial,
        InventorySerialConfig,
        "order for every stage of a supply chain, with long lead times; OR-Gym's model",
        scores=(
            Score("random", -669.4, "2,000 episodes, this env"),
            Score("echelon-base-stock", 410.1, "levels 91, 212, 415, found by search, 4,096 episodes"),
            Score("perfect information", 564.0, "linear programme, 32 episodes"),
        ),
        tags=("business", "continuous"),
    )
