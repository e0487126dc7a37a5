"""Mountain car with a graded push, and the constants of Gymnasium's MountainCarContinuous-v0, equal to it step by step.

Gymnasium rounds the state to float32 after each step; here it stays in the env's own dtype.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from gymnasium.spaces import Box
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan_envs.mountaincar import LEFT, MAX_SPEED, RIGHT, picture, roll, starts

POWER, GOAL = 0.0015, 0.45
GENTLE = 0.2  # pushes of 0.16 never reach the goal in 999 steps, and larger ones cost more
ZOO = Score("ARS", 96.7, "RL Baselines3 Zoo, benchmark.md: 500k steps, one run")


@dataclass(frozen=True)
class MountainCarContinuousConfig:
    """Settings of mountain car with a graded push."""

    max_steps: Annotated[int, Gt(0)] = 999
    """Length at which an episode is truncated; 999 as in MountainCarContinuous-v0."""
    goal_velocity: float = 0.0
    """Least velocity at which the goal counts as reached, per step."""


class MountainCarContinuous:
    """State ``x`` (n, 2): position in -1.2 to 0.6, velocity in +-0.07 per step. The hill is ``sin(3 position)``.

    Action (n, 1): push, clipped to +-1. Reward ``-0.1 action^2`` a step, of the action before it is clipped, and 100 on
    the one that ends the episode. Terminated at position 0.45. The left end is a wall that stops the car.
    """

    fps = 30

    def __init__(
        self, config: MountainCarContinuousConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.max_steps, self.goal_velocity = config.max_steps, config.goal_velocity
        self.device, self.dtype = device, dtype
        low, high = np.array([[LEFT, -MAX_SPEED], [RIGHT, MAX_SPEED]], np.float32)
        self.observation_space = Box(low, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, n: int, rng: Generator | None) -> State:
        """At rest in the valley, position uniform in -0.6 to -0.4."""
        return {"x": starts(n, rng, self.device, self.dtype)}

    def observe(self, state: State) -> Tensor:
        """The state itself, (n, 2)."""
        return state["x"]

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """One step of `rlgan_envs.mountaincar.roll` under a push of up to 0.0015."""
        action = action.squeeze(-1).to(self.dtype)
        x = roll(state["x"], POWER * action.clamp(-1.0, 1.0))
        terminated = (x[:, 0] >= GOAL) & (x[:, 1] >= self.goal_velocity)
        return {"x": x}, 100.0 * terminated - 0.1 * action.square(), terminated

    def references(self) -> dict[str, Policy | Bound]:
        """Random pushes; small pushes along the velocity, which always add energy; the best published score."""

        def random(state: State, rng: Generator | None) -> Tensor:
            return torch.empty((len(state["x"]), 1), device=self.device).uniform_(-1.0, 1.0, generator=rng)

        def pump(state: State, rng: Generator | None) -> Tensor:
            return torch.where(state["x"][:, 1:] >= 0, GENTLE, -GENTLE)

        return {"random": random, "gentle-pump": pump, ZOO.who: Bound(ZOO.value, "published score", ZOO.source)}

    def render(self, state: State, i: int) -> np.ndarray:
        """Side view, (400, 600, 3) uint8."""
        return picture(state["x"][i, 0].item(), GOAL)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Mountain car with a graded push."""
    yield EnvSpec(
        "mountaincar-continuous",
        MountainCarContinuous,
        MountainCarContinuousConfig,
        "rock a car out of a valley with little force; equal to Gymnasium's MountainCarContinuous-v0, on the device",
        scores=(
            Score("random", -33.1, "mean of 10,000 episodes, this env"),
            Score("solved", 90.0, "reward_threshold of MountainCarContinuous-v0"),
            Score("gentle-pump", 98.6, "mean of 2,000 episodes, this env"),
            ZOO,
        ),
        scored=unchanged,
        tags=("control", "continuous"),
    )
