"""The limit beside `vs_sb3.py`: the same algorithm as a loop without any framework around it.

Plain torch and the vector simulators themselves; nothing is recorded, evaluated, saved or checked, and nothing could be
resumed. What a toolkit loses against it is the price of being one. Prints one line of JSON, as `sb3_side.py` does.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from torch import Tensor, nn
from torch.nn import functional as F


class Ring:
    """Rows of observation, action, reward and end; stacks of Atari frames are put together when drawn."""

    def __init__(self, capacity: int, copies: int, shape: tuple[int, ...], dtype: torch.dtype, stack: int) -> None:
        self.length, self.copies, self.stack, self.rows = capacity // copies, copies, stack, 0
        self.obs = torch.empty(self.length, copies, *shape, dtype=dtype)
        self.action = torch.empty(self.length, copies, dtype=torch.int64)
        self.reward = torch.empty(self.length, copies)
        self.ended = torch.empty(self.length, copies)

    def write(self, obs: Tensor, action: Tensor, reward: Tensor, ended: Tensor) -> None:
        at = self.rows % self.length
        self.obs[at], self.action[at], self.reward[at], self.ended[at] = obs, action, reward, ended
        self.rows += 1

    def draw(self, count: int) -> tuple[Tensor, ...]:
        filled = min(self.rows, self.length)
        t = torch.randint(self.stack - 1, filled - 1, (count,))
        n = torch.randint(self.copies, (count,))
        if self.stack == 1:
            obs, following = self.obs[t, n], self.obs[t + 1, n]
        else:
            frames = torch.arange(1 - self.stack, 2)
            window = self.obs[t[:, None] + frames, n[:, None]]
            obs, following = window[:, :-1], window[:, 1:]
        return obs, self.action[t, n], self.reward[t, n], following, 1 - self.ended[t, n]


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
    ring = Ring(100_000, 64, (4,), torch.float32, 1)
    obs = torch.from_numpy(env.reset(seed=0)[0])

    def collect() -> None:
        nonlocal obs
        obs = _step(env, ring, q, obs, obs, 2)

    def learn() -> None:
        target.load_state_dict(q.state_dict())
        drawn = [part.view(128, 64, *part.shape[1:]) for part in ring.draw(128 * 64)]
        for batch in zip(*drawn, strict=True):
            update(batch)

    return _time(collect, learn, copies=64, every=256, starts=1_000, steps=steps, warm=warm)


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
    ring = Ring(100_000, 16, (84, 84), torch.uint8, 4)
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

    return _time(collect, learn, copies=16, every=16, starts=starts, steps=steps, warm=warm)


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


def pendulum(kind: str, steps: int, warm: int, starts: int) -> float:
    """The zoo's SAC or TD3: one update of 256 per step, 8 copies of the pendulum that is made of tensors."""
    from rlgan_envs.pendulum import Pendulum, PendulumConfig

    env = Pendulum(PendulumConfig(), "cpu")
    state, obs, t = (first := env.reset(8, None)), env.observe(first), 0
    hidden, gamma, outputs = ((256, 256), 0.99, 2) if kind == "sac" else ((400, 300), 0.98, 1)

    def make() -> nn.Module:
        layers = [nn.Linear(3, hidden[0]), nn.ReLU(), nn.Linear(*hidden), nn.ReLU(), nn.Linear(hidden[1], outputs)]
        return nn.Sequential(*layers)

    actor, critics, target = make(), Stack((4, *hidden, 1)), Stack((4, *hidden, 1))
    target.load_state_dict(critics.state_dict())
    slow = make()
    slow.load_state_dict(actor.state_dict())
    log_alpha = torch.zeros((), requires_grad=True)
    learn_critics = torch.optim.Adam(critics.parameters(), 1e-3, fused=True)
    learn_actor = torch.optim.Adam([*actor.parameters(), log_alpha], 1e-3, fused=True)
    ring = Ring(steps, 8, (3,), torch.float32, 1)
    ring.action = torch.empty(ring.length, 8, 1)
    updates = 0

    def draw(obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = actor(obs).chunk(2, -1)
        log_std, noise = log_std.clamp(-20, 2), torch.randn_like(mean)
        u = mean + log_std.exp() * noise
        jacobian = 2 * (np.log(2) - u - F.softplus(-2 * u))
        return u.tanh(), (-0.5 * noise.square() - log_std - 0.919 - jacobian).sum(-1)

    def move(pairs: list[tuple[nn.Module, nn.Module]]) -> None:
        with torch.no_grad():
            for follower, leader in pairs:
                torch._foreach_lerp_(list(follower.parameters()), list(leader.parameters()), 0.005)

    def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def collect() -> None:
        nonlocal state, obs, t
        with torch.no_grad():
            own = draw(obs)[0] if kind == "sac" else (actor(obs).tanh() + 0.1 * torch.randn(8, 1)).clamp(-1, 1)
            state, reward, _ = env.step(state, 2 * own, None)
            ring.write(obs, own, reward, torch.zeros(8))
            if (t := t + 1) % env.max_steps == 0:  # that row leads into the next episode, which changes no speed
                state = env.reset(8, None)
            obs = env.observe(state)

    def sac() -> None:
        obs, action, reward, following, _ = ring.draw(256)
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            after, log_prob = draw(following)
            goal = reward + gamma * (target(following, after).amin(0) - alpha * log_prob)
        step(learn_critics, 0.5 * (critics(obs, action) - goal).square().mean(-1).sum())
        own, log_prob = draw(obs)
        policy = (alpha * log_prob - critics(obs, own, fixed=True).amin(0)).mean()
        step(learn_actor, policy - log_alpha * (log_prob.detach().mean() - 1))
        move([(target, critics)])

    def td3() -> None:
        nonlocal updates
        obs, action, reward, following, _ = ring.draw(256)
        with torch.no_grad():
            after = (slow(following).tanh() + (0.2 * torch.randn(256, 1)).clamp(-0.5, 0.5)).clamp(-1, 1)
            goal = reward + gamma * target(following, after).amin(0)
        step(learn_critics, 0.5 * (critics(obs, action) - goal).square().mean(-1).sum())
        if (updates := updates + 1) % 2 == 0:
            step(learn_actor, -critics(obs, actor(obs).tanh(), fixed=True)[0].mean())
            move([(slow, actor), (target, critics)])

    def learn() -> None:
        for _ in range(8):
            sac() if kind == "sac" else td3()

    return _time(collect, learn, copies=8, every=8, starts=max(starts, 100), steps=steps, warm=warm)


def _step(env: Any, ring: Ring, q: nn.Module, obs: Tensor, kept: Tensor, actions: int) -> Tensor:
    with torch.no_grad():
        action = q(obs).argmax(-1)
    action = torch.where(torch.rand(len(action)) < 0.02, torch.randint(actions, action.shape), action)
    following, reward, terminated, truncated, _ = env.step(action.numpy())
    ring.write(kept, action, torch.from_numpy(reward.astype(np.float32)), torch.from_numpy(terminated | truncated))
    return torch.from_numpy(following)


def _time(
    collect: Callable[[], None],
    learn: Callable[[], None],
    *,
    copies: int,
    every: int,
    starts: int,
    steps: int,
    warm: int,
) -> float:
    marks = []
    for step in range(copies, steps + 1, copies):
        collect()
        if step % every == 0:
            if step >= starts:
                learn()
            if step >= warm:
                marks.append((step, time.perf_counter()))
    (first, began), (last, ended) = marks[0], marks[-1]
    return (last - first) / (ended - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=["dqn-cartpole", "dqn-breakout", "sac-pendulum", "td3-pendulum"])
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True, help="steps before the slope is taken")
    parser.add_argument("--learning-starts", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    libc = ctypes.CDLL(None)
    # keep freed memory, as a run of rlgan does
    libc.mallopt(-3, 32 << 20)
    libc.mallopt(-1, 2**31 - 1)
    if args.row == "dqn-cartpole":
        rate = cartpole(args.steps, args.warm)
    elif args.row.endswith("pendulum"):
        rate = pendulum(args.row.partition("-")[0], args.steps, args.warm, args.learning_starts)
    else:
        rate = breakout(args.steps, args.warm, args.learning_starts)
    print(json.dumps({"steps_per_s": rate}))


if __name__ == "__main__":
    main()
