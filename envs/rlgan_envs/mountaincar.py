"""Mountain car (Moore 1990) with the constants of Gymnasium's MountainCar-v0, equal to it step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged

LEFT, RIGHT, MAX_SPEED, GRAVITY = -1.2, 0.6, 0.07, 0.0025
FORCE, GOAL = 0.001, 0.5
ZOO = Score("DQN, zoo", -100.8, "RL Baselines3 Zoo, benchmark.md: 120k steps, one run")


@dataclass(frozen=True)
class MountainCarConfig:
    """Settings of mountain car."""

    max_steps: Annotated[int, Gt(0)] = 200
    """Length at which an episode is truncated; 200 as in MountainCar-v0."""
    goal_velocity: float = 0.0
    """Least velocity at which the goal counts as reached, per step."""


class MountainCar:
    """State ``x`` (n, 2): position in -1.2 to 0.6, velocity in +-0.07 per step. The hill is ``sin(3 position)``.

    Action 0, 1, 2: push left, not at all, right. Reward -1 a step, also on the one that ends the episode. Terminated at
    position 0.5. The left end is a wall that stops the car.
    """

    fps = 30

    def __init__(
        self, config: MountainCarConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.max_steps, self.goal_velocity = config.max_steps, config.goal_velocity
        self.device, self.dtype = device, dtype
        low, high = np.array([[LEFT, -MAX_SPEED], [RIGHT, MAX_SPEED]], np.float32)
        self.observation_space = Box(low, high, dtype=np.float32)
        self.action_space = Discrete(3)

    def reset(self, n: int, rng: Generator | None) -> State:
        """At rest in the valley, see `starts`."""
        return {"x": starts(n, rng, self.device, self.dtype)}

    def observe(self, state: State) -> Tensor:
        """The state itself, (n, 2)."""
        return state["x"]

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """One step of `roll` under a push of 0.001."""
        x = roll(state["x"], (action - 1).to(self.dtype) * FORCE)
        terminated = (x[:, 0] >= GOAL) & (x[:, 1] >= self.goal_velocity)
        return {"x": x}, x.new_full((len(x),), -1.0), terminated

    def references(self) -> dict[str, Policy | Bound]:
        """Random pushes; pushes along the velocity, which always add energy; the best published score."""

        def random(state: State, rng: Generator | None) -> Tensor:
            return torch.randint(3, state["x"].shape[:1], generator=rng, device=self.device)

        def pump(state: State, rng: Generator | None) -> Tensor:
            return 2 * (state["x"][:, 1] >= 0).long()

        return {"random": random, "energy-pump": pump, ZOO.who: Bound(ZOO.value, "published score", ZOO.source)}

    def render(self, state: State, i: int) -> np.ndarray:
        """Side view, (400, 600, 3) uint8."""
        return picture(state["x"][i, 0].item(), GOAL)


def starts(n: int, rng: Generator | None, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Draw n states (n, 2): position uniform in -0.6 to -0.4, at rest."""
    position = torch.empty((n,), device=device, dtype=dtype).uniform_(-0.6, -0.4, generator=rng)
    return torch.stack((position, torch.zeros_like(position)), -1)


def roll(x: Tensor, push: Tensor) -> Tensor:
    """Return the states after states ``x`` (n, 2) under ``push`` (n,), the velocity that the engine adds."""
    position, velocity = x.unbind(-1)
    velocity = (velocity + push - GRAVITY * (3 * position).cos()).clamp(-MAX_SPEED, MAX_SPEED)
    position = (position + velocity).clamp(LEFT, RIGHT)
    velocity = torch.where(position <= LEFT, velocity.clamp(min=0.0), velocity)
    return torch.stack((position, velocity), -1)


def picture(position: float, goal: float) -> np.ndarray:
    """Draw the hill, the flag and the car from the side, (400, 600, 3) uint8."""
    import cv2

    scale = 600 / (RIGHT - LEFT)

    def point(at: float, along: float = 0.0, above: float = 0.0) -> tuple[int, int]:
        """Pixel that lies so many pixels along and above the hill's tangent at a position."""
        slope = math.atan(1.35 * math.cos(3 * at))
        x = (at - LEFT) * scale + along * math.cos(slope) - above * math.sin(slope)
        y = 210 - 0.45 * scale * math.sin(3 * at) - along * math.sin(slope) - above * math.cos(slope)
        return round(x), round(y)

    def outline(*corners: tuple[int, int]) -> np.ndarray:
        return np.array([point(position, *corner) for corner in corners], np.int32)

    frame = np.full((400, 600, 3), 248, np.uint8)
    line = {"lineType": cv2.LINE_AA}
    hill = np.array([point(at) for at in np.linspace(LEFT, RIGHT, 121).tolist()], np.int32)
    cv2.fillPoly(frame, [np.vstack((hill, [[600, 400], [0, 400]]))], (225, 228, 232), **line)
    cv2.polylines(frame, [hill], False, (120, 125, 133), 2, **line)
    x, y = point(goal)
    cv2.line(frame, (x, y), (x, y - 46), (45, 55, 72), 2, **line)
    cv2.fillPoly(frame, [np.array([(x, y - 46), (x + 24, y - 38), (x, y - 30)], np.int32)], (200, 70, 60), **line)
    cv2.fillPoly(frame, [outline((-14, 20), (-9, 30), (8, 30), (14, 20))], (202, 130, 52), **line)
    cv2.fillPoly(frame, [outline((-24, 8), (-24, 20), (24, 20), (24, 8))], (45, 55, 72), **line)
    for along in (-13, 13):
        cv2.circle(frame, point(position, along, 7), 7, (129, 132, 203), -1, **line)
    return frame


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Mountain car."""
    yield EnvSpec(
        "mountaincar",
        MountainCar,
        MountainCarConfig,
        "rock a weak car out of a valley; equal to Gymnasium's MountainCar-v0, on the device",
        scores=(
            Score("random", -200.0, "mean of 10,000 episodes, this env"),
            Score("solved", -110.0, "reward_threshold of MountainCar-v0"),
            ZOO,
        ),
        scored=unchanged,
        tags=("control", "discrete"),
    )
