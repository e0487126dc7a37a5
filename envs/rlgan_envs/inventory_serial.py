"""A chain of stages, each of which orders from the next one (Hubbs et al. 2020, OR-Gym, arXiv 2008.06319).

Model, timing and constants of OR-Gym's ``InvManagement`` envs. What is corrected: the agent sees what was shipped and
what waits (there: what was asked for, and no backlog, so that the state is not seen whole); random numbers are the
env's own; the rule of echelon base-stock works. Prices between stages cancel out of the chain's profit: they are left
out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.serial_chain import InventorySerialConfig, SerialChain
from rlgan_envs.serial_rules import echelon_base_stock, perfect_information
from rlgan_envs.stock_picture import Chart


class InventorySerial(SerialChain):
    """The chain as an env.

    Observation: stock, what is coming and what waits, in periods of mean demand, and the share of the episode that is
    over. Action (M,): orders, rounded to whole units.
    """

    fps = 10

    def __init__(
        self, config: InventorySerialConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(config, device, dtype)
        seen = torch.arange(self.width, device=device) < self.lead_time[:, None]
        self.seen = seen.flatten().nonzero().flatten()
        """Places of ``coming`` in which something can be."""
        size = self.stages + len(self.seen) + self.stages + 1 + 1
        self.observation_space = Box(0.0, np.inf, (size,), np.float32)
        self.action_space = Box(np.zeros(self.stages, np.float32), np.array(config.capacities, np.float32))
        self.charts: dict[tuple[int, int], Chart] = defaultdict(Chart)

    def observe(self, state: State) -> Tensor:
        """What the class says, (n, F)."""
        coming = state["coming"].flatten(1).index_select(1, self.seen)
        units = torch.cat((state["stock"], coming, state["waiting"]), 1) / self.config.mean
        return torch.cat((units, state["periods"][:, None] / self.max_steps), 1).to(torch.float32)

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Order and ship, receive, sell."""
        return self.advance(state, action, self.demand.draw(len(action), rng))

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Share of demand that was met at once, number of orders out of range."""
        return {"served": 1 - state["short"][:, 0] / state["demanded"].clamp(min=1), "out_of_range": state["odd"]}

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
            "perfect-information": perfect_information(self),
        }

    def render(self, state: State, i: int) -> np.ndarray:
        """Stock, orders and demand of each stage, one chart below the other, (480 M, 720, 3) uint8."""
        shown = {name: value[i].tolist() for name, value in state.items()}
        demand = [shown["demand"], *shown["order"]]
        pictures = []
        for k in range(self.stages):
            stage = {
                "periods": shown["periods"],
                "short": shown["short"][k],
                "pipeline": [shown["stock"][k] - shown["waiting"][k], *shown["coming"][k]],
                "demand": demand[k],
                "order": shown["order"][k],
            }
            pictures.append(self.charts[i, k].draw(stage, f"stage {k + 1} of {self.stages}, "))
        return np.concatenate(pictures)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """A chain."""
    yield EnvSpec(
        "inventory-serial",
        InventorySerial,
        InventorySerialConfig,
        "order for every stage of a supply chain, with long lead times; OR-Gym's model",
        scored=unchanged,
        scores=(
            Score("random", -669.4, "2,000 episodes, this env"),
            Score("echelon-base-stock", 410.1, "levels 91, 212, 415, found by search, 4,096 episodes"),
            Score("perfect information", 560.4, "linear programme, 256 episodes"),
        ),
        tags=("business", "continuous"),
    )
