"""Random tensors of any spaces, values that lie outside, and an env of random observations for learners under test."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Generator, Tensor

from rlgan.core.protocols import Batch, Bound, Model, Policy, State

STEPS = 100_000
"""Length of the run that learners are told of."""
VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
PAIRS: tuple[tuple[Space, Space], ...] = (
    (VECTOR, Discrete(3)),
    (VECTOR, Box(-2.0, 2.0, (2,), np.float32)),
    (Discrete(6), Discrete(3)),
    (VECTOR, Discrete(3, start=2)),
    (VECTOR, MultiDiscrete([2, 3])),
    (Box(0, 255, (4, 84, 84), np.uint8), Discrete(3)),
)
"""Observations and actions that learners are tried with."""


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

    def references(self) -> dict[str, Policy | Bound]:
        """A policy that plays at random."""
        return {"random": lambda state, rng: draw(self.action_space, len(state["obs"]), rng, self.device)}

    def model(self) -> Model:
        """A table of the numbered observations and actions to plan with; it is not how this env steps."""
        assert isinstance(self.observation_space, Discrete) and isinstance(self.action_space, Discrete)
        size = int(self.observation_space.n), int(self.action_space.n), 2
        state, action, outcome = (torch.arange(n, device=self.device) for n in size)
        following = (state[:, None, None] + action[:, None] + outcome) % size[0]
        prob = torch.full(size, 0.5, dtype=torch.float64, device=self.device)
        return Model(following, prob, (action[:, None] + 1).double().expand(size), following == 0, 0.9)


class Player:
    """Plays at random, and learns nothing: the learner beside a reward model under test."""

    def __init__(self, action: Space, device: torch.device) -> None:
        self.action, self.device = action, device

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """Draw an action for each observation (n, ...)."""
        return {"action": draw(self.action, len(obs), None, self.device)}, None


def draw(space: Space, n: int, rng: Generator | None, device: torch.device) -> Tensor:
    """Draw n values on the device, (n, ...): normal ones cut at the bounds for floats, uniform ones for integers."""
    if isinstance(space, Discrete):
        return torch.randint(int(space.n), (n,), generator=rng, device=device) + int(space.start)
    if isinstance(space, MultiDiscrete):
        wide = torch.rand((n, *space.shape), generator=rng, device=device, dtype=torch.float64)
        return (wide * torch.from_numpy(space.nvec).to(device)).long() + torch.from_numpy(space.start).to(device)
    assert isinstance(space, Box)
    shape, dtype = (n, *space.shape), torch.from_numpy(np.empty(0, space.dtype)).dtype
    if not dtype.is_floating_point:
        bounds = int(space.low.min()), int(space.high.max()) + 1
        return torch.randint(*bounds, shape, generator=rng, device=device).to(dtype)
    low, high = (torch.from_numpy(bound).to(device) for bound in (space.low, space.high))
    return torch.randn(shape, generator=rng, device=device, dtype=dtype).clamp(low, high)
