"""Distributions over actions as pure functions of what a network gives. Shapes: ... leading dimensions, P parameters.

A *draw* is what a distribution is over: category numbers from 0, or unbounded reals. `action` turns it into what the
env takes; learners keep the draw, since its log-probability is that of the policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Tensor
from torch.nn import functional as F

from rlgan.errors import UsageError

FORBIDDEN = -1e9
"""Logit of an action that a mask forbids: its probability is exactly 0 and its gradient too."""


class Distribution(Protocol):
    """What all of them can do; ``parameters`` are (..., P)."""

    size: int
    """P."""

    def draw(self, parameters: Tensor) -> Tensor:
        """Draw from torch's default generator."""
        ...

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the most probable draw."""
        ...

    def log_prob(self, parameters: Tensor, draw: Tensor) -> Tensor:
        """Return the log-probability, or log-density, (...)."""
        ...

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return the entropy in nats, (...)."""
        ...

    def action(self, draw: Tensor) -> Tensor:
        """Return what the env takes."""
        ...


class Categorical:
    """One of n numbered actions; parameters are logits (..., n), draws (...) int64."""

    def __init__(self, n: int, start: int = 0) -> None:
        self.size, self.start = n, start

    def draw(self, parameters: Tensor) -> Tensor:
        """The maximum of logits and Gumbel noise is a draw from their softmax."""
        noise = torch.empty_like(parameters).exponential_().clamp_min_(1e-30)
        return (parameters - noise.log_()).argmax(-1)

    def mode(self, parameters: Tensor) -> Tensor:
        """The largest logit."""
        return parameters.argmax(-1)

    def log_prob(self, parameters: Tensor, draw: Tensor) -> Tensor:
        """Log of the softmax at the draw."""
        return parameters.log_softmax(-1).gather(-1, draw.unsqueeze(-1)).squeeze(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Minus the mean log-probability."""
        log = parameters.log_softmax(-1)
        return -(log.exp() * log).sum(-1)

    def action(self, draw: Tensor) -> Tensor:
        """Numbers from ``start`` on."""
        return draw + self.start if self.start else draw


class MultiCategorical:
    """Several independent categories; parameters are all logits side by side, draws (..., K) int64."""

    def __init__(self, sizes: Sequence[int], start: Sequence[int]) -> None:
        self.sizes, self.start, self.size = list(sizes), torch.tensor(list(start)), sum(sizes)
        self.each = Categorical(max(self.sizes))

    def _rows(self, parameters: Tensor) -> Tensor:
        """The logits of each category, (..., K, most); what a smaller one does not have is forbidden."""
        most = self.each.size
        if min(self.sizes) == most:
            return parameters.unflatten(-1, (-1, most))
        parts = parameters.split(self.sizes, -1)
        return torch.stack([F.pad(part, (0, most - part.shape[-1]), value=FORBIDDEN) for part in parts], -2)

    def draw(self, parameters: Tensor) -> Tensor:
        """Each category by itself."""
        return self.each.draw(self._rows(parameters))

    def mode(self, parameters: Tensor) -> Tensor:
        """The largest logit of each category."""
        return self.each.mode(self._rows(parameters))

    def log_prob(self, parameters: Tensor, draw: Tensor) -> Tensor:
        """The sum over categories."""
        return self.each.log_prob(self._rows(parameters), draw).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """The sum over categories."""
        return self.each.entropy(self._rows(parameters)).sum(-1)

    def action(self, draw: Tensor) -> Tensor:
        """Numbers from each category's start on."""
        return draw + self.start.to(draw.device)


class DiagonalGaussian:
    """Independent normal numbers for a Box; parameters are means and logs of the standard deviations, (..., 2 D)."""

    def __init__(self, space: Box, device: torch.device) -> None:
        self.shape, self.size = space.shape, 2 * math.prod(space.shape)
        self.low, self.high = (torch.from_numpy(bound).to(device) for bound in (space.low, space.high))

    def draw(self, parameters: Tensor) -> Tensor:
        """Mean and scaled normal noise, (..., D)."""
        mean, log_std = parameters.chunk(2, -1)
        return torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))

    def mode(self, parameters: Tensor) -> Tensor:
        """The mean."""
        return parameters.chunk(2, -1)[0]

    def log_prob(self, parameters: Tensor, draw: Tensor) -> Tensor:
        """The sum over dimensions of the log-density of the draw, which bounds do not touch."""
        mean, log_std = parameters.chunk(2, -1)
        return -(0.5 * ((draw - mean) * (-log_std).exp()).square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """The sum over dimensions."""
        return (parameters.chunk(2, -1)[1] + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)

    def action(self, draw: Tensor) -> Tensor:
        """The draw in the shape of the space, clipped to its bounds."""
        return draw.reshape(*draw.shape[:-1], *self.shape).to(self.low.dtype).clamp(self.low, self.high)


def distribution_over(space: Space, device: torch.device) -> Distribution:
    """Choose by the action space.

    Raises:
        UsageError: no distribution fits.
    """
    if isinstance(space, Discrete):
        return Categorical(int(space.n), int(space.start))
    if isinstance(space, MultiDiscrete) and len(space.nvec.shape) == 1:
        return MultiCategorical(space.nvec.tolist(), space.start.tolist())
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return DiagonalGaussian(space, device)
    raise UsageError(f"no distribution over {space}; write actions as Discrete, MultiDiscrete or a Box of floats")


def forbid(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits (..., P) in which what ``mask`` (..., P) forbids, with False or 0, has probability 0."""
    return logits.masked_fill(mask == 0, FORBIDDEN)
