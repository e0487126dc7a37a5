"""One shelf: order each morning, sell to a random number of customers, pay for what is left. An env in one file."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from gymnasium.spaces import Box, Discrete


@dataclass(frozen=True)
class ShopConfig:
    """Settings of the shop."""

    shelf: Annotated[int, Ge(1)] = 10
    """Most pieces that the shelf holds."""


class Shop:
    """State ``stock`` (n,): pieces on the shelf. Action: pieces ordered, which come before the doors open."""

    max_steps = 30

    def __init__(self, config: ShopConfig, device, dtype):
        self.shelf, self.device, self.dtype = config.shelf, device, dtype
        self.observation_space = Box(0.0, 1.0, (1,), np.float32)
        self.action_space = Discrete(6)

    def reset(self, n, rng):
        return {"stock": torch.randint(self.shelf + 1, (n,), generator=rng, device=self.device)}

    def observe(self, state):
        return (state["stock"].to(self.dtype) / self.shelf)[:, None]

    def step(self, state, action, rng):
        stock = (state["stock"] + action).clamp(max=self.shelf)
        demand = torch.randint(6, stock.shape, generator=rng, device=self.device)
        left = (stock - demand).clamp(min=0)
        reward = 2.0 * (stock - left) - action - 0.1 * left
        return {"stock": left}, reward.to(self.dtype), torch.zeros_like(left, dtype=torch.bool)
