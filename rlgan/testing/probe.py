"""An env of random observations for any spaces: rows for an agent under test."""

from __future__ import annotations

import torch
from gymnasium.spaces import Box, Space
from torch import Generator, Tensor

from rlgan.core.protocols import State
from rlgan.testing.spaces import draw


class Probe:
    """Each observation is drawn anew; the reward is the action's mean; one episode in ten ends at each step."""

    max_steps = 25

    def __init__(self, observation: Space, action: Space, device: torch.device) -> None:
        self.observation_space, self.action_space, self.device = observation, action, device
        image = isinstance(observation, Box) and len(observation.shape) == 3
        self.stack = observation.shape[0] if image else 1  # type: ignore[index]

    def reset(self, n: int, rng: Generator | None) -> State:
        """Draw n observations."""
        return {"obs": draw(self.observation_space, n, rng, self.device)}

    def observe(self, state: State) -> Tensor:
        """What was drawn."""
        return state["obs"]

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Draw n more."""
        following = self.reset(len(action), rng)
        terminated = torch.rand(len(action), generator=rng, device=self.device) < 0.1
        return following, action.float().flatten(1).mean(1) if action.dim() > 1 else action.float(), terminated
