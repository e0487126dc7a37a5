"""Bare loops of DQN: cart-pole and Breakout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bare_loop import Ring, off_policy
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from torch import Tensor, nn
from torch.nn import functional as F


def learner(q: nn.Module, target: nn.Module, lr: float, gamma: float) -> Callable[[tuple[Tensor, ...]], None]:
    """One DQN update: Huber, clip, fused Adam."""
    parameters = list(q.parameters())
    adam = torch.optim.Adam(parameters, lr, fused=True)

    def update(batch: tuple[Tensor, ...]) -> None:
        obs, action, reward, following, alive = batch
        with torch.no_grad():
            goal = reward + gamma * alive * target(following).amax(-1)
        taken = q(obs).gather(1, action[:, None]).squeeze(1)
        adam.zero_grad()
        F.smooth_l1_loss(taken, goal).backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        adam.step()

    return update


def cartpole(steps: int, warm: int) -> float:
    """The zoo's settings: 128 updates of 64 for 256 steps, 64 copies. Gives steps/s after ``warm``."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))

    env = CartPoleVectorEnv(num_envs=64)
    q, target = make(), make()
    update = learner(q, target, 2.3e-3, 0.99)
    ring = Ring(100_000, 64, (4,), torch.float32, 1, torch.tensor(0))
    obs = torch.from_numpy(env.reset(seed=0)[0])

    def collect() -> None:
        nonlocal obs
        obs = _step(env, ring, q, obs, obs, 2)

    def learn() -> None:
        target.load_state_dict(q.state_dict())
        drawn = [part.view(128, 64, *part.shape[1:]) for part in ring.draw(128 * 64)]
        for batch in zip(*drawn, strict=True):
            update(batch)

    return off_policy(collect, learn, copies=64, every=256, starts=1_000, steps=steps, warm=warm)


def breakout(steps: int, warm: int, starts: int) -> float:
    """NatureCNN, one update of 32 for 4 steps, 16 copies. Gives steps/s after ``warm``."""
    from ale_py.vector_env import AtariVectorEnv

    from rlgan.nn.torsos import compute_dtype

    dtype = compute_dtype("auto", torch.device("cpu"))
    layout = torch.channels_last if dtype is torch.float32 else torch.contiguous_format

    class Nature(nn.Sequential):
        def __init__(self) -> None:
            convolutions = (nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3))
            heads = (nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 4))
            super().__init__(*convolutions, *heads)
            self.to(memory_format=layout)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                return super().forward(x.to(dtype, memory_format=layout) / 255).float()

    env = AtariVectorEnv("breakout", num_envs=16, episodic_life=True, reward_clipping=True)
    q, target = Nature(), Nature()
    update = learner(q, target, 1e-4, 0.99)
    ring = Ring(100_000, 16, (84, 84), torch.uint8, 4, torch.tensor(0))
    obs = torch.from_numpy(env.reset(seed=0)[0])
    updates = 0

    def collect() -> None:
        nonlocal obs
        obs = _step(env, ring, q, obs, obs[:, -1], 4)

    def learn() -> None:
        nonlocal updates
        for _ in range(4):
            update(ring.draw(32))
        if (updates := updates + 4) % 1_000 == 0:
            target.load_state_dict(q.state_dict())

    return off_policy(collect, learn, copies=16, every=16, starts=starts, steps=steps, warm=warm)


def _step(env: Any, ring: Ring, q: nn.Module, obs: Tensor, kept: Tensor, actions: int) -> Tensor:
    with torch.no_grad():
        action = q(obs).argmax(-1)
    action = torch.where(torch.rand(len(action)) < 0.02, torch.randint(actions, action.shape), action)
    following, reward, terminated, truncated, _ = env.step(action.numpy())
    ring.write(kept, action, torch.from_numpy(reward.astype(np.float32)), torch.from_numpy(terminated | truncated))
    return torch.from_numpy(following)
