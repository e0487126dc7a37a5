"""Pendulum swing-up with the constants of Gymnasium's Pendulum-v1, equal to it step by step."""

from __future__ import annotations

import math
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

MASS, LENGTH, TAU = 1.0, 1.0, 0.05
MAX_SPEED, MAX_TORQUE = 8.0, 2.0
ZOO = Score("TQC", -151.3, "RL Baselines3 Zoo, benchmark.md: 20k steps, one run")


@dataclass(frozen=True)
class PendulumConfig:
    """Settings of the pendulum."""

    max_steps: Annotated[int, Gt(0)] = 200
    """Length at which an episode is truncated; 200 as in Pendulum-v1."""
    gravity: Annotated[float, Gt(0)] = 10.0
    """Acceleration of gravity in m/s^2; ``g`` of Pendulum-v1."""


class Pendulum:
    """State ``x`` (n, 2): angle from upright (rad, counter-clockwise, never wrapped), its velocity (rad/s).

    Action (n, 1): torque in N m, clipped to +-2. Reward ``-(angle^2 + 0.1 velocity^2 + 0.001 torque^2)`` with the angle
    in +-pi, of the state before the step. Never terminated. Steps of 0.05 s, in which the new velocity moves the angle.
    """

    fps = 20

    def __init__(self, config: PendulumConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.max_steps, self.gravity = config.max_steps, config.gravity
        self.device, self.dtype = device, dtype
        high = np.array([1.0, 1.0, MAX_SPEED], np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)

    def reset(self, n: int, rng: Generator | None) -> State:
        """Angle uniform in +-pi, velocity uniform in +-1."""
        unit = torch.empty((n, 2), device=self.device, dtype=self.dtype).uniform_(-1.0, 1.0, generator=rng)
        return {"x": unit * torch.tensor([math.pi, 1.0], device=self.device, dtype=self.dtype)}

    def observe(self, state: State) -> Tensor:
        """Cosine and sine of the angle, and the velocity, (n, 3)."""
        angle, velocity = state["x"].unbind(-1)
        return torch.stack((angle.cos(), angle.sin(), velocity), -1)

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """A uniform rod turning about its end, moment of inertia ``m l^2 / 3``."""
        angle, velocity = state["x"].unbind(-1)
        torque = action.squeeze(-1).clamp(-MAX_TORQUE, MAX_TORQUE).to(self.dtype)
        cost = wrap(angle).square() + 0.1 * velocity.square() + 0.001 * torque.square()
        acceleration = 3 * self.gravity / (2 * LENGTH) * angle.sin() + 3 / (MASS * LENGTH**2) * torque
        velocity = (velocity + TAU * acceleration).clamp(-MAX_SPEED, MAX_SPEED)
        moved = torch.stack((angle + TAU * velocity, velocity), -1)
        return {"x": moved}, -cost, torch.zeros_like(cost, dtype=torch.bool)

    def references(self) -> dict[str, Policy | Bound]:
        """Random torques; pumping energy, then a linear feedback near the top; the best published score."""

        def random(state: State, rng: Generator | None) -> Tensor:
            shape = (len(state["x"]), 1)
            return torch.empty(shape, device=self.device).uniform_(-MAX_TORQUE, MAX_TORQUE, generator=rng)

        def swing_up(state: State, rng: Generator | None) -> Tensor:
            angle, velocity = wrap(state["x"][:, :1]), state["x"][:, 1:]
            missing = 1.5 * self.gravity / LENGTH * (1 - angle.cos()) - velocity.square() / 2
            hold = -(10 * angle + 2 * velocity).clamp(-MAX_TORQUE, MAX_TORQUE)
            return torch.where(angle.abs() < 0.5, hold, MAX_TORQUE * (missing * velocity).sign())

        return {"random": random, "energy-swing-up": swing_up, ZOO.who: Bound(ZOO.value, "published score", ZOO.source)}

    def render(self, state: State, i: int) -> np.ndarray:
        """The rod in its plane, (480, 480, 3) uint8."""
        import cv2

        angle, _ = state["x"][i].tolist()
        frame = np.full((480, 480, 3), 248, np.uint8)
        line = {"lineType": cv2.LINE_AA}
        cv2.circle(frame, (240, 240), 190, (225, 228, 232), 2, **line)
        cv2.line(frame, (240, 40), (240, 60), (200, 70, 60), 2, **line)
        tip = (round(240 - 190 * math.sin(angle)), round(240 - 190 * math.cos(angle)))
        cv2.line(frame, (240, 240), tip, (202, 130, 52), 18, **line)
        cv2.circle(frame, tip, 16, (45, 55, 72), -1, **line)
        cv2.circle(frame, (240, 240), 8, (129, 132, 203), -1, **line)
        return frame


def wrap(angle: Tensor) -> Tensor:
    """Return ``angle`` (rad) shifted by whole turns into +-pi."""
    return angle - 2 * math.pi * (angle / (2 * math.pi)).round()


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Pendulum."""
    yield EnvSpec(
        "pendulum",
        Pendulum,
        PendulumConfig,
        "swing a pendulum up and hold it; equal to Gymnasium's Pendulum-v1, on the device",
        scores=(
            Score("random", -1231.7, "mean of 10,000 episodes, this env"),
            Score("energy-swing-up", -150.5, "mean of 10,000 episodes, this env"),
            ZOO,
        ),
        scored=unchanged,
        tags=("control", "continuous"),
    )
