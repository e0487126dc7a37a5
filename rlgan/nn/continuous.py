"""What agents with a critic of state and action share: bounded actions, remembered noise, stacked critics.

Shapes: n copies or B rows, D numbers of an action, E critics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.protocols import Spaces
from rlgan.nn.torsos import MLP, side_by_side

Carry = tuple[Tensor, ...] | None
LOG_STD = (-20.0, 2.0)
"""Bounds of the log of a standard deviation (Haarnoja et al. 2018)."""


class Bounded:
    """Actions of a Box as agents and critics have them: flat, each number in -1 to 1."""

    def __init__(self, space: Box, device: torch.device) -> None:
        self.shape, self.size = space.shape, math.prod(space.shape)
        self.low, self.high = (torch.from_numpy(bound).to(device) for bound in (space.low, space.high))

    def to_env(self, own: Tensor) -> Tensor:
        """From (n, D) to (n, *shape): -1 is exactly the lower bound, 1 the upper one."""
        share = (own.to(self.low.dtype) + 1) / 2
        return torch.lerp(self.low, self.high, share.reshape(len(own), *self.shape))


class Noise:
    """Standard normal noise (n, D) for each step, correlated by ``memory`` with that of the step before.

    0 is independent noise. Otherwise it is an Ornstein-Uhlenbeck process that starts at 0 with each episode and has
    variance 1 after a while; the carry is the last noise.
    """

    def __init__(self, size: int, memory: float, device: torch.device) -> None:
        self.size, self.memory, self.device = size, memory, device

    def carry(self, n: int) -> Carry:
        """What is remembered at the start of an episode."""
        return (torch.zeros(n, self.size, device=self.device),) if self.memory else None

    def draw(self, n: int, carry: Carry) -> tuple[Tensor, Carry]:
        """Noise of the next step."""
        noise = torch.randn(n, self.size, device=self.device)
        if carry is None:
            return noise, None
        noise = self.memory * carry[0] + math.sqrt(1 - self.memory**2) * noise
        return noise, (noise,)


def uniform(noise: Tensor) -> Tensor:
    """The standard normal noise as actions, which are then uniform in -1 to 1, and remembered as the noise is."""
    return torch.erf(noise * math.sqrt(0.5))


def squashed(parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The action ``tanh(mean + std noise)`` (B, D) and its log-density (B,).

    ``parameters`` are means and logs of the standard deviations, (B, 2 D). ``log(1 - tanh(u)^2)`` is written as
    ``2 (log 2 - u - softplus(-2 u))``, which stays exact where the tanh rounds to 1.
    """
    mean, log_std = parameters.chunk(2, -1)
    log_std = log_std.clamp(*LOG_STD)
    u = torch.addcmul(mean, log_std.exp(), noise)
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    return u.tanh(), (normal - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(-1)


class Critics(nn.Module):
    """E networks side by side, (B, inputs) to (E, B, outputs); each layer is one batched product.

    Every network starts as torch's own linear layers do. Products of hidden layers, nearly all of the work, are taken
    in ``dtype``; the first and the last layer in float32, so that inputs and values keep their digits.
    """

    def __init__(
        self, count: int, inputs: int, hidden: Sequence[int], outputs: int, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.dtype = dtype
        stacks = [[nn.Linear(a, b) for _ in range(count)] for a, b in pairwise((inputs, *hidden, outputs))]
        self.weights = nn.ParameterList(side_by_side([layer.weight.T for layer in stack]) for stack in stacks)
        self.biases = nn.ParameterList(side_by_side([layer.bias[None] for layer in stack]) for stack in stacks)

    def forward(self, x: Tensor) -> Tensor:
        """Values by all networks."""
        return self._run(x, list(self.weights), list(self.biases))

    def fixed(self, x: Tensor, count: int | None = None) -> Tensor:
        """Values by the first ``count`` networks, whose parameters get no gradient: for the loss of an actor."""
        weights, biases = ([p[:count].detach() for p in stack] for stack in (self.weights, self.biases))
        return self._run(x, weights, biases)

    def _run(self, x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
        x = x.expand(len(weights[0]), *x.shape)
        last = len(weights) - 1
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            dtype = self.dtype if 0 < i < last else torch.float32
            # in place: one pass over a block that is still in the cache, where baddbmm would copy the bias first
            x = torch.bmm(x.to(dtype), weight.to(dtype)).add_(bias.to(dtype))
            x = x.relu_() if i < last else x
        return x


def networks(
    spaces: Spaces, hidden: Sequence[int], dtype: torch.dtype, device: torch.device, outputs: int, critics: int
) -> tuple[MLP, Critics]:
    """An actor with ``outputs`` numbers, and critics.

    Critics read state and action and give one value; where actions are numbered, the state and a value for each.
    """
    inputs = math.prod(spaces.observation.shape or ())
    if isinstance(spaces.action, Discrete):
        read, values = inputs, outputs
    else:
        read, values = inputs + math.prod(spaces.action.shape or ()), 1
    actor = MLP(inputs, hidden, outputs, dtype=dtype)
    return actor.to(device), Critics(critics, read, hidden, values, dtype).to(device)


def target_of(net: nn.Module) -> Any:
    """A copy that no gradient reaches, to follow the network at a distance."""
    return copy.deepcopy(net).requires_grad_(False)


def unfit(observation: Space, action: Space, numbered: bool = False) -> str | None:
    """Why no such agent fits an env, or None; ``numbered`` ones take a Discrete too."""
    if not isinstance(observation, Box) or len(observation.shape) == 3:
        return f"it reads vectors, this env gives {observation}"
    if numbered and isinstance(action, Discrete):
        return None
    if not isinstance(action, Box) or not np.issubdtype(action.dtype, np.floating):
        kinds = "a Box of floats or a Discrete" if numbered else "a Box of floats"
        return f"it acts in {kinds}, this env takes {action}"
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(action.high - action.low).all():
            return f"it scales its actions to their bounds, and {action} has none: give the Box a finite low and high"
    return None
