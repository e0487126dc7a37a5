"""Running means and deviations, by which an agent sees observations and rewards at the scale of 1.

As VecNormalize of stable-baselines3: observations minus their mean over their deviation, rewards over the deviation of
discounted returns, both cut. Unlike there the statistics take in the rows of an iteration after it, all at once, so
that a policy is updated on what it saw when it acted. Shapes: T rows, N copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Space
from torch import Tensor

from rlgan.core.protocols import Batch, Observation, mapped
from rlgan.store.state import Saved

PRIOR, EPSILON = 1e-4, 1e-8
"""Weight of a first value with mean 0 and variance 1; what is added to a variance. Both are VecNormalize's."""


class Moments(Saved):
    """Mean and variance (...) of all values so far; sets of them are merged (Chan, Golub & LeVeque 1979)."""

    kept = ("mean", "variance", "count")

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        # (1,) for numbers: what the compiled merge writes into 0-d tensors of float64 on a CPU is lost (torch 2.13)
        self.mean = torch.zeros(shape or (1,), dtype=torch.float64, device=device)
        self.variance = torch.ones_like(self.mean)
        self.count = torch.full((1,), PRIOR, dtype=torch.float64, device=device)

    def merge(self, values: Tensor, valid: Tensor) -> None:
        """Take in ``values`` (..., *shape) where ``valid`` (...) is true."""
        counts = valid.reshape(-1, *[1] * self.mean.dim()).double()
        values = values.reshape(-1, *self.mean.shape).double()
        new = counts.sum()
        share = counts / new.clamp_min(1)
        mean = (values * share).sum(0)
        variance = ((values - mean).square() * share).sum(0)
        total, delta = self.count + new, mean - self.mean
        spread = self.variance * self.count + variance * new + delta.square() * self.count * new / total
        self.mean.add_(delta * new / total)
        self.variance.copy_(spread / total)
        self.count.copy_(total)

    def deviation(self) -> Tensor:
        """The root of the variance, never 0."""
        return (self.variance + EPSILON).sqrt()

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in. ValueError: it is not that of any values."""
        super().load_state_dict(tree)
        finite = all(bool(each.isfinite().all()) for each in (self.mean, self.variance, self.count))
        if not finite or bool((self.variance < 0).any()) or float(self.count) <= 0:
            raise ValueError("its running mean and variance are not those of any values")


class Normaliser(Saved):
    """What an agent sees in place of observations and rewards. It learns in sources alone, so never in evaluations.

    Args:
        space: Of observations, whose parts that are arrays of floats are scaled; None leaves all as they are.
        copies: N.
        device: Where the rows are.
        gamma: Discount of the returns that scale rewards; None leaves rewards as they are.
        clip: What is scaled is cut at this.
    """

    kept = ("parts", "returns", "running")

    def __init__(
        self, space: Space | None, copies: int, device: torch.device, gamma: float | None, clip: float
    ) -> None:
        self.parts = _parts(space, device)
        self.returns, self.gamma, self.clip = Moments((), device), gamma, clip
        self.running = torch.zeros(copies, dtype=torch.float64, device=device)
        """Discounted return (N,) of each copy's episode so far."""

    def __call__(self, obs: Observation) -> Observation:
        """Observations (..., *shape) as the agent sees them."""
        return _each(self.parts, self._scaled, obs)

    def rollout(self, rollout: Batch) -> Batch:
        """The rows (T, N, ...) of a rollout, whose ``obs`` has one row more, as the agent sees them; then learn them.

        Its observations are scaled as they were when it acted; its rewards count in their own scale.
        """
        self._learn_returns(rollout, slice(None))
        seen: Batch = {name: self(rollout[name]) for name in ("obs", "next_obs", "final_obs") if name in rollout}
        self._learn_obs(mapped(lambda x: x[:-1], rollout["obs"]), rollout["valid"])
        return {**rollout, **seen, "reward": self._reward(rollout["reward"])}

    def learn(self, row: Batch, columns: slice) -> None:
        """Take in one row (n, ...) of the copies in ``columns``, on its way into a replay."""
        self._learn_returns({k: row[k][None] for k in ("reward", "terminated", "truncated", "valid")}, columns)
        self._learn_obs(row["obs"], row["valid"])

    def batch(self, batch: Batch) -> Batch:
        """Batches of a replay, which holds raw rows, by the statistics of now; a sum of n rewards is cut as one."""
        seen = {name: self(batch[name]) for name in ("obs", "next_obs")}
        return {**batch, **seen, "reward": self._reward(batch["reward"])}

    def _scaled(self, part: Moments, values: Tensor) -> Tensor:
        return ((values - part.mean) / part.deviation()).clamp(-self.clip, self.clip).to(values.dtype)

    def _reward(self, reward: Tensor) -> Tensor:
        if self.gamma is None:
            return reward
        return (reward / self.returns.deviation()).clamp(-self.clip, self.clip).to(reward.dtype)

    def _learn_obs(self, obs: Observation, valid: Tensor) -> None:
        def merge(part: Moments, values: Tensor) -> Tensor:
            part.merge(values, valid)
            return values

        _each(self.parts, merge, obs)

    def _learn_returns(self, rows: Batch, columns: slice) -> None:
        """Take in the discounted return of each step, ``R = gamma R + r``, which begins anew with each episode."""
        if self.gamma is None:
            return
        running, returns = self.running[columns], []
        for reward, ended in zip(rows["reward"], rows["terminated"] | rows["truncated"], strict=True):
            running = running * self.gamma + reward
            returns.append(running)
            running = running.masked_fill(ended, 0.0)
        self.running[columns] = running
        self.returns.merge(torch.stack(returns), rows["valid"])


def _parts(space: Space | None, device: torch.device) -> Any:
    """Moments for each part of a space that is an array of floats, None for every other one; as the space is nested."""
    if isinstance(space, Dict):
        return {key: _parts(part, device) for key, part in space.items()}
    return Moments(space.shape or (), device) if space is not None and scales(space) else None


def _each(parts: Any, fn: Callable[[Moments, Tensor], Tensor], obs: Observation) -> Observation:
    """``fn`` of each part that has moments; the others as they are."""
    if isinstance(parts, dict):
        return {key: _each(part, fn, obs[key]) for key, part in parts.items()}
    return obs if parts is None else fn(parts, obs)


def scaled(space: Space) -> Space:
    """The space of scaled observations: floats have no bounds any more."""
    if isinstance(space, Dict):
        return Dict({key: scaled(part) for key, part in space.items()})
    return Box(-np.inf, np.inf, space.shape, space.dtype.type) if scales(space) else space  # type: ignore[union-attr]


def scales(space: Space) -> bool:
    """Whether observations have parts to scale."""
    if isinstance(space, Dict):
        return any(scales(part) for part in space.values())
    return isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
