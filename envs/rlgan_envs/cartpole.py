"""Cart-pole (Barto, Sutton & Anderson 1983) with the constants of Gymnasium's CartPole-v1, equal to it step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Policy, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
X_LIMIT, THETA_LIMIT, TOTAL, MOMENT = 2.4, 12 * 2 * math.pi / 360, CART + POLE, POLE * HALF_LENGTH


@dataclass(frozen=True)
class CartPoleConfig:
    """Settings of cart-pole."""

    max_steps: Annotated[int, Gt(0)] = 500
    """Length at which an episode is truncated; 500 as in CartPole-v1."""
    velocities: bool = True
    """Show both velocities; without them an agent sees the positions alone and has to remember."""


class CartPole:
    """State ``x`` (n, 4): cart position (m), its velocity (m/s), pole angle (rad), its velocity (rad/s).

    Action 1 pushes right and 0 left with 10 N. Reward 1 a step, also on the one that ends the episode. Terminated when
    the cart leaves +-2.4 m or the pole +-12 degrees. Euler steps of 0.02 s.
    """

    fps = 50

    def __init__(self, config: CartPoleConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.max_steps, self.device, self.dtype = config.max_steps, device, dtype

        def constant(*values: float) -> Tensor:
            return torch.tensor(values, device=device, dtype=dtype)

        self.limits = constant(X_LIMIT, math.inf, THETA_LIMIT, math.inf)
        self.forces, self.reward = constant(-FORCE, FORCE), constant(1.0)
        self.inertia = constant(HALF_LENGTH * 4.0 / 3.0 / GRAVITY)
        self.steps = constant(TAU, TAU / TOTAL, TAU, TAU)
        self.shown = slice(None, None, 1 if config.velocities else 2)
        high = np.array([2 * X_LIMIT, np.inf, 2 * THETA_LIMIT, np.inf], np.float32)[self.shown]
        self.observation_space, self.action_space = Box(-high, high, dtype=np.float32), Discrete(2)

    def reset(self, n: int, rng: Generator | None) -> State:
        """Uniform in +-0.05 in each coordinate."""
        return {"x": torch.empty((n, 4), device=self.device, dtype=self.dtype).uniform_(-0.05, 0.05, generator=rng)}

    def observe(self, state: State) -> Tensor:
        """The state itself, (n, 4), or the two positions alone, (n, 2)."""
        return state["x"][:, self.shown]

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """One Euler step of the equations in Florian (2007), without friction."""
        x, x_dot, theta, theta_dot = state["x"].unbind(-1)
        cos, sin = theta.cos(), theta.sin()
        # as few operations as they take: on eight copies each costs its start. The force is not yet divided by the
        # mass, and torque and inertia are both over the gravity
        force = torch.addcmul(self.forces.index_select(0, action), theta_dot.square(), sin, value=MOMENT)
        inertia = torch.addcmul(self.inertia, cos, cos, value=-HALF_LENGTH * POLE / TOTAL / GRAVITY)
        theta_acc = torch.addcmul(sin, cos, force, value=-1 / (TOTAL * GRAVITY)).div_(inertia)
        push = torch.addcmul(force, theta_acc, cos, value=-MOMENT)
        rates = torch.stack((x_dot, push, theta_dot, theta_acc), -1)
        moved = torch.addcmul(state["x"], rates, self.steps)
        return {"x": moved}, self.reward.expand(len(x)), (moved.abs() > self.limits).any(-1)

    def references(self) -> dict[str, Policy | Bound]:
        """Random pushes; a hand-tuned linear feedback; the longest possible episode."""
        gains = torch.tensor([0.1, 0.3, 1.0, 0.5], device=self.device, dtype=self.dtype)
        return {
            "random": lambda state, rng: torch.randint(2, state["x"].shape[:1], generator=rng, device=self.device),
            "linear-feedback": lambda state, rng: (state["x"] @ gains > 0).long(),
            "optimum": Bound(self.max_steps, "one reward for each step up to the time limit", "by definition"),
        }

    def render(self, state: State, i: int) -> np.ndarray:
        """Side view, (400, 600, 3) uint8."""
        import cv2

        x, _, theta, _ = state["x"][i].tolist()
        scale, ground = 600 / (2 * X_LIMIT * 1.1), 300
        frame = np.full((400, 600, 3), 248, np.uint8)
        cv2.line(frame, (0, ground), (600, ground), (120, 125, 133), 2, cv2.LINE_AA)
        for at in (round(300 - X_LIMIT * scale), round(300 + X_LIMIT * scale)):
            cv2.line(frame, (at, ground - 10), (at, ground + 10), (200, 70, 60), 2, cv2.LINE_AA)
        cart, length = round(300 + x * scale), 2 * HALF_LENGTH * scale
        cv2.rectangle(frame, (cart - 30, ground - 34), (cart + 30, ground - 4), (45, 55, 72), -1, cv2.LINE_AA)
        tip = (round(cart + length * math.sin(theta)), round(ground - 34 - length * math.cos(theta)))
        cv2.line(frame, (cart, ground - 34), tip, (202, 130, 52), 9, cv2.LINE_AA)
        cv2.circle(frame, (cart, ground - 34), 6, (129, 132, 203), -1, cv2.LINE_AA)
        return frame


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Cart-pole."""
    summary = "balance a pole on a cart; equal to Gymnasium's CartPole-v1, on the device"
    scores = (Score("random", 22.3, "mean of 10,000 episodes, this env"), Score("optimum", 500.0, "time limit"))
    # what is shown of a state changes no score
    scored = lambda config: unchanged(replace(config, velocities=True))  # noqa: E731
    tags = ("control", "discrete")
    yield EnvSpec("cartpole", CartPole, CartPoleConfig, summary, scores=scores, scored=scored, tags=tags)
