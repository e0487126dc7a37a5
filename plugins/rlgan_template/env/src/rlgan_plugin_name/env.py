"""A shop's shelf: order each morning, sell what the day asks for. Orders cost a fee, and so does what is left over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor

from rlgan import EnvSpec, Score, hookimpl
from rlgan.core.protocols import Bound, Policy, State

SHELF, MOST = 20, 10
"""Pieces that the shelf holds; the largest order, which is also the largest demand of a day."""


@dataclass(frozen=True)
class PluginNameConfig:
    """Settings of plugin_name: money per piece, but for the fee."""

    max_steps: Annotated[int, Gt(0)] = 30
    """Days in an episode."""
    price: Annotated[float, Ge(0)] = 4.0
    """Earned by a sale."""
    cost: Annotated[float, Ge(0)] = 2.0
    """Paid to the supplier."""
    fee: Annotated[float, Ge(0)] = 3.0
    """Paid for each order that is not empty."""
    storage: Annotated[float, Ge(0)] = 0.1
    """Paid for each piece left in the evening."""


class PluginNameEnv:
    """State ``stock`` (n,): pieces on the shelf in the morning. Action: pieces to order, 0 to 10, there at once.

    What does not fit on the shelf is not bought. Demand is uniform over 0 to 10; what is not there is not sold. The
    reward is the day's profit. Nothing ever ends but by the time limit, which is rlgan's work.
    """

    def __init__(self, config: PluginNameConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.max_steps = config.max_steps
        self.observation_space = Box(0.0, 1.0, (1,), np.float32)
        self.action_space = Discrete(MOST + 1)

    def reset(self, n: int, rng: Generator | None) -> State:
        """Any stock from an empty to a full shelf."""
        return {"stock": torch.randint(SHELF + 1, (n,), generator=rng, device=self.device)}

    def observe(self, state: State) -> Tensor:
        """The share of the shelf that is full, (n, 1)."""
        return state["stock"].unsqueeze(-1).to(self.dtype) / SHELF

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """One day."""
        demand = torch.randint(MOST + 1, action.shape, generator=rng, device=self.device)
        return self.day(state, action, demand)

    def day(self, state: State, order: Tensor, demand: Tensor) -> tuple[State, Tensor, Tensor]:
        """The day's arithmetic, without its chance."""
        c = self.config
        bought = torch.minimum(order, SHELF - state["stock"])
        stock = state["stock"] + bought
        sold = torch.minimum(stock, demand)
        profit = c.price * sold - c.cost * bought - c.fee * (bought > 0) - c.storage * (stock - sold)
        return {"stock": stock - sold}, profit.to(self.dtype), torch.zeros_like(sold, dtype=torch.bool)

    def references(self) -> dict[str, Policy | Bound]:
        """Random orders; a full order when stock is low."""

        def random(state: State, rng: Generator | None) -> Tensor:
            return torch.randint(MOST + 1, state["stock"].shape, generator=rng, device=self.device)

        def refill(state: State, rng: Generator | None) -> Tensor:
            return torch.where(state["stock"] <= 6, MOST, 0)

        return {"random": random, "refill": refill}


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """plugin_name. The scores give results a scale: random play is 0, the best of the others is 1."""
    yield EnvSpec(
        "plugin_name",
        PluginNameEnv,
        PluginNameConfig,
        "order for a shop's shelf under random demand",
        scores=(
            Score("random", 172.1, "exact, by backward induction over 30 days"),
            Score("optimum", 247.0, "exact, by backward induction over 30 days"),
        ),
        tags=("business", "discrete"),
    )
