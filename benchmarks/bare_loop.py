"""What bare loops share: rows kept in tensors, a clock, and how they are compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COPIES = 8
"""Of the env, in the loops of SAC, TD3, PPO and A2C."""


class Ring:
    """Rows of observation, action, reward and end; stacks of Atari frames are put together when drawn."""

    def __init__(
        self, capacity: int, copies: int, shape: tuple[int, ...], dtype: torch.dtype, stack: int, action: Tensor
    ) -> None:
        self.length, self.copies, self.stack, self.rows = capacity // copies, copies, stack, 0
        self.obs = torch.empty(self.length, copies, *shape, dtype=dtype)
        self.action = action.new_empty(self.length, copies, *action.shape)
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


class Clock:
    """Gives the rate between the first and the last mark from ``warm`` steps on."""

    def __init__(self, warm: int) -> None:
        self.warm = warm
        self.marks: list[tuple[int, float]] = []

    def mark(self, step: int) -> None:
        if step >= self.warm:
            self.marks.append((step, time.perf_counter()))

    def rate(self) -> float:
        (first, began), (last, ended) = self.marks[0], self.marks[-1]
        return (last - first) / (ended - began)


def off_policy(
    collect: Callable[[], None],
    learn: Callable[[], None],
    *,
    copies: int,
    every: int,
    starts: int,
    steps: int,
    warm: int,
) -> float:
    """Steps/s of a loop that collects a row of each copy, and learns ``every`` steps from ``starts`` on."""
    clock = Clock(warm)
    for step in range(copies, steps + 1, copies):
        collect()
        if step % every == 0:
            if step >= starts:
                learn()
            clock.mark(step)
    return clock.rate()


def compiler(wanted: bool) -> Callable[[Any], Any]:
    """What turns whole functions into compiled ones, or leaves them as they are."""
    if not wanted:
        return lambda fn: fn
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    inductor.size_asserts = False
    dynamo.trace_autograd_ops = True  # one graph from the loss to the step
    return lambda fn: torch.compile(fn, dynamic=False)
