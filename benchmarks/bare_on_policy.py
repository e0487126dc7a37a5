"""Bare loops of PPO and A2C: collect a rollout, advantages, updates.

Compiled, everything runs in torch.compile: the env (made of tensors) and acting in pieces of a few rows, and several
updates to a call. Eagerly the env is Gymnasium's own vector of cart-poles, which is faster than tensors for so few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from bare_loop import COPIES, Clock, compiler
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.nn.optimise import Adam, RMSProp, optimise

PIECE = 8
"""Rows of each copy that are collected in one compiled call."""


class Rows(NamedTuple):
    """Of a rollout, (T, N, ...)."""

    obs: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    ended: Tensor


class Simulators:
    """A vector env of Gymnasium. Its row after an end leads into the next episode, which changes no speed."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.obs = torch.from_numpy(env.reset(seed=0)[0])

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        following, reward, terminated, truncated, _ = self.env.step(action.numpy())
        self.obs = torch.from_numpy(following)
        return torch.from_numpy(reward.astype(np.float32)), torch.from_numpy(terminated | truncated)


class Tensors:
    """Cart-poles made of tensors, which begin anew in the step that ends them."""

    def __init__(self) -> None:
        from rlgan_envs.cartpole import CartPole, CartPoleConfig

        self.env = CartPole(CartPoleConfig(), "cpu")
        self.obs, self.age = self.env.reset(COPIES, None)["x"], torch.zeros(COPIES)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        state, reward, fallen = self.env.step({"x": self.obs}, action, None)
        age = self.age + 1
        ended = fallen | (age >= self.env.max_steps)
        self.obs = torch.where(ended[:, None], self.env.reset(COPIES, None)["x"], state["x"])
        self.age = age.masked_fill(ended, 0)
        return reward, ended


class Vectors(nn.Module):
    """A policy and a value over vectors, which share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.value = (
            nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))
            for outputs in (2, 1)
        )

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(obs), self.value(obs).squeeze(-1)


class Images(nn.Module):
    """Policy and value on one NatureCNN."""

    def __init__(self) -> None:
        from rlgan.nn.torsos import compute_dtype

        super().__init__()
        self.dtype = compute_dtype("auto", torch.device("cpu"))
        self.layout = torch.channels_last if self.dtype is torch.float32 else torch.contiguous_format
        convolutions = (nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3))
        self.cnn = nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU())
        self.policy, self.value = nn.Linear(512, 4), nn.Linear(512, 1)
        self.to(memory_format=self.layout)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not torch.float32):
            x = self.cnn(obs.to(self.dtype, memory_format=self.layout) / 255)
            return self.policy(x).float(), self.value(x).squeeze(-1).float()


@torch.no_grad()
def collect(net: nn.Module, env: Simulators | Tensors, count: int) -> Rows:
    """``count`` rows of each copy."""
    rows = []
    for _ in range(count):
        obs = env.obs
        logits, value = net(obs)
        action = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)  # drawn from their softmax
        rows.append((obs, action, taken(logits, action), value, *env.step(action)))
    return Rows(*(torch.stack(column) for column in zip(*rows, strict=True)))


def taken(logits: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities of actions."""
    return logits.log_softmax(-1).gather(-1, action[..., None]).squeeze(-1)


@torch.no_grad()
def advantages(rows: Rows, last: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimation, (T, N); ``last`` is the value of the observation after the rows."""
    alive = 1 - rows.ended.float()
    delta = rows.reward + gamma * alive * torch.cat([rows.value[1:], last[None]]) - rows.value
    found, running = [], torch.zeros_like(last)
    for step, going in zip(reversed(delta.unbind()), reversed(alive.unbind()), strict=True):
        running = step + gamma * lam * going * running
        found.append(running)
    return torch.stack(found[::-1])


def ppo(
    net: nn.Module,
    env: Simulators | Tensors,
    steps: int,
    warm: int,
    *,
    compiled: bool = False,
    horizon: int,
    epochs: int,
    batch: int,
    lr: float,
    clip: float,
    gamma: float,
    lam: float,
    entropy: float = 0.0,
    updates_a_call: int,
) -> float:
    """PPO with linear schedules. Gives steps/s after ``warm``."""
    adam = Adam(net.parameters(), lr, eps=1e-5)
    rate, left = adam.lr.clone(), torch.ones(())
    piece = min(PIECE, horizon) if compiled else horizon

    def flat(pieces: list[Rows], obs: Tensor) -> tuple[Tensor, ...]:
        rows = Rows(*(torch.cat(column) for column in zip(*pieces, strict=True)))
        advantage = advantages(rows, net(obs)[1], gamma, lam)
        fields = (rows.obs, rows.action, rows.log_prob, advantage, advantage + rows.value)
        return tuple(field.flatten(0, 1) for field in fields)

    def learn(fields: tuple[Tensor, ...], order: Tensor) -> None:
        adam.lr.copy_(rate * left)
        for index in order:
            obs, action, before, advantage, target = (field.index_select(0, index) for field in fields)
            logits, value = net(obs)
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            ratio = (taken(logits, action) - before).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip * left, 1 + clip * left) * advantage)
            loss = 0.5 * F.mse_loss(value, target) - gain.mean()
            if entropy:
                loss = loss + entropy * (logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
            optimise(adam, loss, 0.5)

    wrap = compiler(compiled)
    collected, flattened, learned = wrap(collect), wrap(torch.no_grad()(flat)), wrap(learn)
    clock, rows = Clock(warm), horizon * COPIES
    for step in range(0, steps, rows):
        left.fill_(1 - step / steps)
        fields = flattened([collected(net, env, piece) for _ in range(horizon // piece)], env.obs)
        order = torch.rand(epochs, rows).argsort(-1).view(-1, updates_a_call, batch)
        for indices in order:
            learned(fields, indices)
        clock.mark(step + rows)
    return clock.rate()


def a2c(net: nn.Module, env: Simulators | Tensors, steps: int, warm: int, compiled: bool, iterations: int) -> float:
    """A2C with the zoo's settings, several iterations a call. Gives steps/s after ``warm``."""
    rms = RMSProp(net.parameters(), 7e-4)

    def learn() -> None:
        for _ in range(iterations):
            rows = collect(net, env, 5)
            with torch.no_grad():
                last = net(env.obs)[1]
            advantage = advantages(rows, last, 0.99, 1.0)
            logits, value = net(rows.obs.flatten(0, 1))
            policy = -(taken(logits, rows.action.flatten()) * advantage.flatten()).mean()
            optimise(rms, policy + 0.5 * F.mse_loss(value, (advantage + rows.value).flatten()), 0.5)

    learned, clock, rows = compiler(compiled)(learn), Clock(warm), 5 * COPIES * iterations
    for step in range(rows, steps + 1, rows):
        learned()
        clock.mark(step)
    return clock.rate()


def cartpoles(compiled: bool) -> Simulators | Tensors:
    """Eight copies."""
    from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

    return Tensors() if compiled else Simulators(CartPoleVectorEnv(num_envs=COPIES))


def ppo_cartpole(steps: int, warm: int, compiled: bool) -> float:
    """The zoo's settings."""
    settings = {"horizon": 32, "epochs": 20, "batch": 256, "lr": 1e-3, "clip": 0.2, "gamma": 0.98, "lam": 0.8}
    return ppo(Vectors(), cartpoles(compiled), steps, warm, compiled=compiled, updates_a_call=5, **settings)


def a2c_cartpole(steps: int, warm: int, compiled: bool) -> float:
    """The zoo's settings."""
    return a2c(Vectors(), cartpoles(compiled), steps, warm, compiled, iterations=4)


def ppo_breakout(steps: int, warm: int) -> float:
    """The zoo's settings on the real game."""
    from ale_py.vector_env import AtariVectorEnv

    env = Simulators(AtariVectorEnv("breakout", num_envs=COPIES, episodic_life=True, reward_clipping=True))
    settings = {"horizon": 128, "epochs": 4, "batch": 256, "lr": 2.5e-4, "clip": 0.1, "gamma": 0.99, "lam": 0.95}
    return ppo(Images(), env, steps, warm, entropy=0.01, updates_a_call=1, **settings)


CARTPOLES: dict[str, Callable[..., float]] = {"ppo-cartpole": ppo_cartpole, "a2c-cartpole": a2c_cartpole}
