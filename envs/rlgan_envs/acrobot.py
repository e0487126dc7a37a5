"""Acrobot (Sutton 1996) with the constants of Gymnasium's Acrobot-v1, equal to it step by step."""

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
from rlgan_envs.pendulum import wrap

GRAVITY, LENGTH, CENTRE, INERTIA, TAU = 9.8, 1.0, 0.5, 1.0, 0.2
MAX_SPEEDS = 4 * math.pi, 9 * math.pi
ZOO = Score("QR-DQN", -69.1, "RL Baselines3 Zoo, benchmark.md: 100k steps, one run")


@dataclass(frozen=True)
class AcrobotConfig:
    """Settings of the acrobot."""

    max_steps: Annotated[int, Gt(0)] = 500
    """Length at which an episode is truncated; 500 as in Acrobot-v1."""


class Acrobot:
    """State ``x`` (n, 4): angle of the first link from hanging, angle of the second from the first (rad,
    counter-clockwise, in +-pi), their velocities (rad/s).

    Action 0, 1, 2: torque of -1, 0, 1 N m at the joint between the links. Reward -1 a step, 0 on the one that ends the
    episode. Terminated when the free end is more than one link above the fixed one. Runge-Kutta steps of 0.2 s.
    """

    fps = 15

    def __init__(self, config: AcrobotConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.max_steps = config.max_steps
        self.device, self.dtype = device, dtype
        high = np.array([1.0, 1.0, 1.0, 1.0, *MAX_SPEEDS], np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)
        self.action_space = Discrete(3)

    def reset(self, n: int, rng: Generator | None) -> State:
        """Hanging; uniform in +-0.1 in each coordinate."""
        return {"x": torch.empty((n, 4), device=self.device, dtype=self.dtype).uniform_(-0.1, 0.1, generator=rng)}

    def observe(self, state: State) -> Tensor:
        """Cosine and sine of either angle, and both velocities, (n, 6)."""
        first, second, *velocities = state["x"].unbind(-1)
        return torch.stack((first.cos(), first.sin(), second.cos(), second.sin(), *velocities), -1)

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """One fourth-order Runge-Kutta step; angles are wrapped and velocities clipped after it."""
        x, torque = state["x"], (action - 1).to(self.dtype)
        k1 = derivative(x, torque)
        k2 = derivative(x + TAU / 2 * k1, torque)
        k3 = derivative(x + TAU / 2 * k2, torque)
        k4 = derivative(x + TAU * k3, torque)
        first, second, speed1, speed2 = (x + TAU / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).unbind(-1)
        first, second = wrap(first), wrap(second)
        speed1, speed2 = (s.clamp(-limit, limit) for s, limit in zip((speed1, speed2), MAX_SPEEDS, strict=True))
        terminated = -first.cos() - (first + second).cos() > 1.0
        return {"x": torch.stack((first, second, speed1, speed2), -1)}, terminated.to(self.dtype) - 1.0, terminated

    def references(self) -> dict[str, Policy | Bound]:
        """Random torques; torques whose reaction drives the first link on; the best published score."""

        def random(state: State, rng: Generator | None) -> Tensor:
            return torch.randint(3, state["x"].shape[:1], generator=rng, device=self.device)

        def pump(state: State, rng: Generator | None) -> Tensor:
            return 1 - state["x"][:, 2].sign().long()

        return {"random": random, "reaction-pump": pump, ZOO.who: Bound(ZOO.value, "published score", ZOO.source)}

    def render(self, state: State, i: int) -> np.ndarray:
        """Both links and the height to reach, (480, 480, 3) uint8."""
        import cv2

        first, second, _, _ = state["x"][i].tolist()
        frame = np.full((480, 480, 3), 248, np.uint8)
        line = {"lineType": cv2.LINE_AA}
        cv2.line(frame, (0, 132), (480, 132), (200, 70, 60), 2, **line)
        at, turn = (240, 240), 0.0
        joints = [at]
        for angle, colour in ((first, (45, 55, 72)), (second, (202, 130, 52))):
            turn += angle
            end = (round(at[0] + 108 * math.sin(turn)), round(at[1] + 108 * math.cos(turn)))
            cv2.line(frame, at, end, colour, 14, **line)
            joints.append(at := end)
        for joint in joints[:2]:
            cv2.circle(frame, joint, 9, (129, 132, 203), -1, **line)
        cv2.circle(frame, joints[2], 6, (200, 70, 60), -1, **line)
        return frame


def derivative(x: Tensor, torque: Tensor) -> Tensor:
    """Time derivative (n, 4) of ``x`` under ``torque`` (n,): Sutton & Barto (1998), section 11.3.

    Both links have mass 1 kg, which is left out, and the same length, centre of mass and moment of inertia.
    """
    first, second, speed1, speed2 = x.unbind(-1)
    sin, cos = second.sin(), second.cos()
    bend = LENGTH * CENTRE
    d1 = 2 * CENTRE**2 + LENGTH**2 + 2 * bend * cos + 2 * INERTIA
    d2 = CENTRE**2 + bend * cos + INERTIA
    phi2 = CENTRE * GRAVITY * (first + second).sin()
    phi1 = (CENTRE + LENGTH) * GRAVITY * first.sin() + phi2 - bend * speed2 * (speed2 + 2 * speed1) * sin
    ratio = d2 / d1
    acc2 = (torque + ratio * phi1 - bend * speed1.square() * sin - phi2) / (CENTRE**2 + INERTIA - ratio * d2)
    acc1 = -(d2 * acc2 + phi1) / d1
    return torch.stack((speed1, speed2, acc1, acc2), -1)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Acrobot."""
    yield EnvSpec(
        "acrobot",
        Acrobot,
        AcrobotConfig,
        "swing up two links by the joint between them; equal to Gymnasium's Acrobot-v1, on the device",
        scores=(
            Score("random", -498.8, "mean of 10,000 episodes, this env"),
            Score("solved", -100.0, "reward_threshold of Acrobot-v1"),
            ZOO,
        ),
        scored=unchanged,
        tags=("control", "discrete"),
    )
