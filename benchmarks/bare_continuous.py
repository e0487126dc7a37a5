"""Bare loops of SAC and TD3: one update of 256 per step, eight copies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bare_loop import COPIES, Ring, compiler, off_policy
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.nn.optimise import Adam, optimise, soft_update

BURST = 2
"""Updates in one compiled call, an even number; more take minutes to compile and gain nothing."""


class Stack(nn.Module):
    """Two critics of state and action as batched products; ``fixed`` gives their parameters no gradient."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        shapes = list(itertools.pairwise(sizes))
        self.w = nn.ParameterList(nn.Parameter((torch.rand(2, a, b) * 2 - 1) / a**0.5) for a, b in shapes)
        self.b = nn.ParameterList(nn.Parameter((torch.rand(2, 1, b) * 2 - 1) / a**0.5) for a, b in shapes)

    def forward(self, obs: Tensor, action: Tensor, fixed: bool = False) -> Tensor:
        x = torch.cat([obs, action], -1).expand(2, -1, -1)
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            x = torch.baddbmm(b.detach() if fixed else b, x, w.detach() if fixed else w)
            x = F.relu(x) if i < len(self.w) - 1 else x
        return x.squeeze(-1)


class Pendulums:
    """Pendulums made of tensors."""

    def __init__(self) -> None:
        from rlgan_envs.pendulum import Pendulum, PendulumConfig

        self.env, self.t = Pendulum(PendulumConfig(), "cpu"), 0
        self.state = self.env.reset(COPIES, None)
        self.obs, self.largest = self.env.observe(self.state), 2.0

    def step(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Actions in -1 to 1. Rewards and where an episode truly ended, which is nowhere."""
        self.state, reward, _ = self.env.step(self.state, self.largest * own, None)
        if (t := self.t + 1) % self.env.max_steps == 0:  # that row leads into the next episode, which changes no speed
            self.state = self.env.reset(COPIES, None)
        self.t, self.obs = t, self.env.observe(self.state)
        return reward, torch.zeros(COPIES)


class Simulators:
    """A Gymnasium id, one copy after the other. Its row after an end leads into the next episode."""

    def __init__(self, name: str) -> None:
        import gymnasium

        self.env = gymnasium.make_vec(name, num_envs=COPIES, vectorization_mode="sync")
        self.obs = torch.from_numpy(self.env.reset(seed=0)[0]).float()

    def step(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Actions in -1 to 1, which are HalfCheetah's own bounds. Rewards and where an episode truly ended."""
        following, reward, terminated, _, _ = self.env.step(own.numpy())
        self.obs = torch.from_numpy(following).float()
        return torch.from_numpy(reward.astype(np.float32)), torch.from_numpy(terminated).float()


class SAC:
    """The zoo's settings."""

    gamma, tau = 0.99, 0.005

    def __init__(self, obs: int, actions: int, lr: float) -> None:
        self.actor = perceptron(obs, (256, 256), 2 * actions)
        self.critics, self.target = Stack((obs + actions, 256, 256, 1)), Stack((obs + actions, 256, 256, 1))
        soft_update(self.target, self.critics, 1.0)
        self.log_alpha, self.entropy = torch.zeros((), requires_grad=True), -float(actions)
        self.adam = Adam([*self.actor.parameters(), *self.critics.parameters(), self.log_alpha], lr)

    def act(self, obs: Tensor) -> Tensor:
        return self.draw(obs)[0]

    def draw(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(obs).chunk(2, -1)
        log_std, noise = log_std.clamp(-20, 2), torch.randn_like(mean)
        u = mean + log_std.exp() * noise
        jacobian = 2 * (math.log(2) - u - F.softplus(-2 * u))
        return u.tanh(), (-0.5 * noise.square() - log_std - 0.919 - jacobian).sum(-1)

    def update(self, obs: Tensor, action: Tensor, reward: Tensor, following: Tensor, alive: Tensor, i: int) -> None:
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            after, log_prob = self.draw(following)
            goal = reward + self.gamma * alive * (self.target(following, after).amin(0) - alpha * log_prob)
        critic = 0.5 * (self.critics(obs, action) - goal).square().mean(-1).sum()
        own, log_prob = self.draw(obs)
        policy = (alpha * log_prob - self.critics(obs, own, fixed=True).amin(0)).mean()
        temperature = -self.log_alpha * (log_prob.detach().mean() + self.entropy)
        optimise(self.adam, critic + policy + temperature, math.inf)
        soft_update(self.target, self.critics, self.tau)


class TD3:
    """The zoo's settings for the pendulum."""

    gamma, tau = 0.98, 0.005

    def __init__(self, obs: int, actions: int, lr: float) -> None:
        self.actor, self.slow = (perceptron(obs, (400, 300), actions) for _ in range(2))
        self.critics, self.target = (Stack((obs + actions, 400, 300, 1)) for _ in range(2))
        soft_update(self.slow, self.actor, 1.0)
        soft_update(self.target, self.critics, 1.0)
        self.learn_actor, self.learn_critics = (Adam(net.parameters(), lr) for net in (self.actor, self.critics))

    def act(self, obs: Tensor) -> Tensor:
        own = self.actor(obs).tanh()
        return (own + 0.1 * torch.randn_like(own)).clamp(-1, 1)

    def update(self, obs: Tensor, action: Tensor, reward: Tensor, following: Tensor, alive: Tensor, i: int) -> None:
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5)
            after = (self.slow(following).tanh() + noise).clamp(-1, 1)
            goal = reward + self.gamma * alive * self.target(following, after).amin(0)
        critic = 0.5 * (self.critics(obs, action) - goal).square().mean(-1).sum()
        optimise(self.learn_critics, critic, math.inf)
        if i % 2:
            policy = -self.critics(obs, self.actor(obs).tanh(), fixed=True)[0].mean()
            optimise(self.learn_actor, policy, math.inf)
            soft_update(self.slow, self.actor, self.tau)
            soft_update(self.target, self.critics, self.tau)


def perceptron(inputs: int, hidden: tuple[int, int], outputs: int) -> nn.Module:
    """Two hidden layers."""
    layers = (nn.Linear(inputs, hidden[0]), nn.ReLU(), nn.Linear(*hidden), nn.ReLU(), nn.Linear(hidden[1], outputs))
    return nn.Sequential(*layers)


def loop(
    env: Any, make: Callable[..., SAC | TD3], lr: float, steps: int, warm: int, starts: int, compiled: bool
) -> float:
    """Steps/s after ``warm``. Compiled, a burst of eight updates is two calls."""
    first = env.env.action_space.shape if isinstance(env, Simulators) else (COPIES, 1)
    agent = make(env.obs.shape[1], first[1], lr)
    ring = Ring(steps, COPIES, env.obs.shape[1:], torch.float32, 1, torch.empty(first[1]))
    wrap = compiler(compiled)

    def burst(drawn: tuple[Tensor, ...]) -> None:
        for i, batch in enumerate(zip(*drawn, strict=True)):
            agent.update(*batch, i)

    learned, acted = wrap(burst), wrap(torch.no_grad()(agent.act))

    def collect() -> None:
        obs, own = env.obs, acted(env.obs)
        ring.write(obs, own, *env.step(own))

    def learn() -> None:
        drawn = ring.draw(COPIES * 256)
        for part in range(0, COPIES, BURST):
            rows = slice(part * 256, (part + BURST) * 256)
            learned(tuple(field[rows].view(BURST, 256, *field.shape[1:]) for field in drawn))

    return off_policy(collect, learn, copies=COPIES, every=COPIES, starts=max(starts, 100), steps=steps, warm=warm)


def continuous(row: str, steps: int, warm: int, starts: int, compiled: bool) -> float:
    """One of the rows."""
    if row == "sac-halfcheetah":
        return loop(Simulators("HalfCheetah-v5"), SAC, 3e-4, steps, warm, starts, compiled)
    return loop(Pendulums(), SAC if row == "sac-pendulum" else TD3, 1e-3, steps, warm, starts, compiled)
