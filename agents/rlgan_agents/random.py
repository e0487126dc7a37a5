"""Random play: uniform actions, the bottom of every scale. It learns nothing, so a run of it is an evaluation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor

from rlgan.core.protocols import Batch, Observation, Phase, Spaces
from rlgan.hookspecs import hookimpl
from rlgan.specs import LEARNS_NOTHING, AgentSpec, NoConfig
from rlgan.store.state import Saved


class Random(Saved):
    """Satisfies Agent. Any observations; actions of a Discrete, MultiDiscrete, MultiBinary or Box space."""

    def __init__(self, spaces: Spaces, config: NoConfig, device: torch.device) -> None:
        make = Interval if isinstance(spaces.action, Box) else Numbers
        self.actions: Interval | Numbers = make(spaces.action, device)  # type: ignore[arg-type]

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Observation, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """Uniform among all actions, or among those that the env's mask allows."""
        mask = obs["action_mask"] if isinstance(obs, dict) and "action_mask" in obs else None
        while isinstance(obs, dict):
            obs = next(iter(obs.values()))
        return {"action": self.actions.draw(len(obs), mask)}, None

    def phases(self) -> list[Phase]:
        """Nothing to learn."""
        return []


class Numbers:
    """Numbered actions: one choice of a Discrete space, several of a MultiDiscrete or MultiBinary one."""

    def __init__(self, space: Discrete | MultiDiscrete | MultiBinary, device: torch.device) -> None:
        if isinstance(space, Discrete):
            sizes, start = [int(space.n)], np.array(space.start)
        elif isinstance(space, MultiDiscrete):
            sizes, start = space.nvec.flatten().tolist(), space.start
        else:
            sizes, start = [2] * int(np.prod(space.shape)), np.zeros(space.shape)
        self.sizes, self.start = sizes, torch.from_numpy(np.asarray(start, space.dtype)).to(device)

    def draw(self, n: int, mask: Tensor | None) -> Tensor:
        """Draw (n, ...): the largest of uniform numbers, to which allowed actions add 1; ``mask`` (n, sum of sizes)."""
        score = torch.rand(n, sum(self.sizes), device=self.start.device)
        if mask is not None:
            score = score + mask
        chosen = torch.stack([part.argmax(-1) for part in score.split(self.sizes, -1)], -1)
        return chosen.view(n, *self.start.shape).to(self.start.dtype) + self.start


class Interval:
    """Actions of a Box: uniform between two bounds, exponential from a single one, normal without (as Gymnasium's)."""

    def __init__(self, space: Box, device: torch.device) -> None:
        self.shape, self.whole = space.shape, np.issubdtype(space.dtype, np.integer)
        self.dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype
        low, high = (torch.from_numpy(bound.astype(np.float64)).to(device) for bound in (space.low, space.high))
        self.low, self.high, self.below, self.above = low, high, low.isfinite(), high.isfinite()

    def draw(self, n: int, mask: None) -> Tensor:
        """Draw (n, ...); whole numbers where the space has them, both bounds included."""
        share, wide = torch.rand(n, *self.shape, dtype=torch.float64, device=self.low.device), self.high - self.low
        between = self.low + share * (wide + 1 if self.whole else wide)
        tail = -(-share).log1p()  # exponential
        single = torch.where(self.below, self.low + tail, self.high - tail)
        free = torch.where(self.below | self.above, single, torch.randn_like(share))
        drawn = torch.where(self.below & self.above, between, free)
        drawn = torch.minimum(torch.maximum(drawn, self.low), self.high)
        return (drawn.floor() if self.whole else drawn).to(self.dtype)


def refuses(observation: Space, action: Space) -> str | None:
    """Actions that are no tensor."""
    if isinstance(action, Box | Discrete | MultiBinary | MultiDiscrete):
        return None
    return f"it draws numbers, arrays of numbers and reals, this env takes {action}"


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """Random play."""
    yield AgentSpec(
        "random",
        Random,
        NoConfig,
        "uniformly random actions, which learn nothing: the bottom of every scale",
        refuses,
        tags=(LEARNS_NOTHING, "samples-in-evaluation"),
    )
