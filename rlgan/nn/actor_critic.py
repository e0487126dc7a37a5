"""A policy and a value over what any env shows: vectors, images, numbers, dicts of them, with or without masks.

Shapes: B rows; (L, B) rows of sequences; P parameters of the distribution over actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.protocols import Batch, Observation, mapped
from rlgan.errors import UsageError
from rlgan.nn import value_heads
from rlgan.nn.distributions import DiagonalGaussian, distribution_over, forbid
from rlgan.nn.torsos import MLP, Precision, flat, image_network, side_by_side, tanh, unfit_image

Memory = Literal["none", "gru", "lstm"]


class ActorCritic(nn.Module):
    """Two networks on one encoder: parameters of a distribution (..., P) and a value (...).

    Vectors are read as they are; images by a CNN whose features both share, in which case ``hidden`` is left out.
    Layers start orthogonal with gain sqrt(2), the policy's last with 0.01 and the value's with 1 (Andrychowicz et al.
    2021). With ``memory`` a recurrent layer stands before both; its carry is a tuple of (B, cells).

    With ``rows`` each of the K rows of observations (K, F) is an actor with one of K numbered actions, and all share
    both networks: parameters are (..., K, P) and values (..., K).

    Raises:
        UsageError: ``rows`` does not fit the spaces.
    """

    def __init__(
        self,
        observation: Space,
        action: Space,
        hidden: Sequence[int],
        precision: Precision,
        device: torch.device,
        memory: Memory = "none",
        cells: int = 64,
        rows: bool = False,
    ) -> None:
        super().__init__()
        if rows:
            observation, action = one_row(observation, action, memory)
        self.rows = rows
        self.masked, observation = _unmasked(observation)
        self.distribution = distribution_over(action, device)
        self.encoder = Encoder(observation, precision, device)
        width = self.encoder.width
        self.memory = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}[memory](width, cells) if memory != "none" else None
        self.cells, self.device = cells, device
        width = cells if self.memory else width
        layers = () if self.encoder.shared and not self.memory else hidden
        gaussian = isinstance(self.distribution, DiagonalGaussian)
        outputs = self.distribution.size // 2 if gaussian else self.distribution.size
        policy, value = MLP(width, layers, outputs, tanh), MLP(width, layers, 1, tanh)
        self.log_std = nn.Parameter(torch.zeros(outputs)) if gaussian else None
        for part in (self, policy, value):
            part.to(device)
        for layer in self.encoder.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                weight = nn.init.orthogonal_(torch.empty(layer.weight.shape, device=device), math.sqrt(2))
                layer.weight.data.copy_(weight)  # whose layout may be channels last
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        policy.start(0.01)
        value.start(1.0)
        self.hidden = Twins(policy, value)
        *_, self.policy = policy.layers
        *_, self.value = value.layers

    def carry(self, n: int) -> tuple[Tensor, ...] | None:
        """Fresh recurrent state of n copies, or None."""
        if self.memory is None:
            return None
        count = 2 if isinstance(self.memory, nn.LSTMCell) else 1
        return tuple(torch.zeros(n, self.cells, device=self.device) for _ in range(count))

    def forward(self, obs: Observation, carry: Any = None, first: Tensor | None = None) -> tuple[Tensor, Tensor, Any]:
        """Return parameters, value and the next carry, of rows (B, ...) or, with ``first`` (L, B), of sequences.

        In a sequence the carry is fresh again at each ``first``.
        """
        outer, mask = None if first is None else first.shape, None
        if self.rows:
            outer, obs = obs.shape[:2], obs.flatten(0, 1)
        if self.masked:
            obs, mask = obs["obs"], obs["action_mask"]
        if self.memory is None:
            x = self.encoder(obs)
        elif first is None:
            carry = self._remember(self.encoder(obs), carry)
            x = carry[0]
        else:
            x, carry = self._sequence(obs, carry, first)
        before_policy, before_value = self.hidden(x)
        parameters, value = self.policy(before_policy), self.value(before_value).squeeze(-1)
        if self.log_std is not None:
            parameters = torch.cat([parameters, self.log_std.expand_as(parameters)], -1)
        if outer is not None:
            parameters, value = parameters.unflatten(0, outer), value.unflatten(0, outer)
        if mask is not None:
            parameters = forbid(parameters, mask)
        return parameters, value, carry

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Parameters and values of a minibatch: rows (B, ...), or sequences (L, B, ...) that come with a ``carry``."""
        carry = tuple(batch["carry"].values()) if "carry" in batch else None
        parameters, value, _ = self(batch["obs"], carry, batch["first"] if carry else None)
        return parameters, value

    def next_values(self, rollout: Batch) -> Tensor:
        """Values (T, N) of the true next observations of a rollout, whose rows hold a ``value`` each."""
        carry = tuple(part[-1] for part in rollout["carry"].values()) if "carry" in rollout else None
        return value_heads.next_values(rollout, lambda obs: self(obs, carry)[1])

    def _remember(self, x: Tensor, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if isinstance(self.memory, nn.LSTMCell):
            return self.memory(x, carry)
        assert self.memory is not None
        return (self.memory(x, carry[0]),)

    def _sequence(self, obs: Observation, carry: Any, first: Tensor) -> tuple[Tensor, Any]:
        """What is remembered at each row, (L B, cells), and after the last one."""
        length, count = first.shape
        encoded = self.encoder(mapped(lambda x: x.flatten(0, 1), obs)).unflatten(0, (length, count))
        going = (~first).unsqueeze(-1)
        seen = []
        for t in range(length):
            carry = self._remember(encoded[t], tuple(c * going[t] for c in carry))
            seen.append(carry[0])
        return torch.cat(seen), carry


class Twins(nn.Module):
    """The hidden layers of two MLPs with tanh on one input, (B, inputs) to (2, B, width), as they are when given.

    Each layer is one batched product: of products as small as these, two take twice as long as one.
    """

    def __init__(self, *nets: MLP) -> None:
        super().__init__()
        pairs = list(zip(*(net.layers[:-1] for net in nets), strict=True))
        self.weights = nn.ParameterList(side_by_side([layer.weight.T for layer in pair]) for pair in pairs)
        self.biases = nn.ParameterList(side_by_side([layer.bias[None] for layer in pair]) for pair in pairs)
        self.layers = list(zip(self.weights, self.biases, strict=True))
        """The same parameters once more, since going through a ParameterList takes as long as a product: they may be
        written into and moved, and never replaced."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply both."""
        x = x.expand(2, *x.shape)
        for weight, bias in self.layers:
            x = tanh(torch.baddbmm(bias, x, weight))
        return x


class Encoder(nn.Module):
    """Turns observations into one vector (B, width): vectors as they are, numbers one-hot, images through a CNN."""

    def __init__(self, space: Space, precision: Precision, device: torch.device) -> None:
        super().__init__()
        parts = dict(space.items()) if isinstance(space, Dict) else {"": space}
        self.images = nn.ModuleDict()
        """A CNN for each part that needs one, by its number."""
        self.readers: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        """The key of each part and what encodes it."""
        self.width = 0
        for i, (key, part) in enumerate(parts.items()):
            if isinstance(part, Box) and len(part.shape) == 3:
                net = image_network(part, 1, precision, device)
                self.width += net.features
                net.out = nn.Identity()  # heads follow in float32
                self.images[str(i)] = net
                self.readers.append((key, net))
            else:
                width, read = _reader(part)
                self.width += width
                self.readers.append((key, read))
        self.shared = len(self.images) > 0

    def forward(self, obs: Observation) -> Tensor:
        """Encode each part and set them side by side."""
        encoded = [read(obs[key] if isinstance(obs, dict) else obs) for key, read in self.readers]
        return encoded[0] if len(encoded) == 1 else torch.cat(encoded, -1)


def unfit(observation: Space, action: Space) -> str | None:
    """Why no ActorCritic can be made for an env, or None."""
    masked, observation = _unmasked(observation)
    if not _acts(action):
        return f"it draws from a Discrete, a MultiDiscrete or a Box of floats, this env takes {action}"
    if masked and isinstance(action, Box):
        return f"action masks need numbered actions, this env takes {action}"
    parts = observation.values() if isinstance(observation, Dict) else (observation,)
    for part in parts:
        if not isinstance(part, Box | Discrete | MultiDiscrete | MultiBinary):
            return f"it reads arrays, numbers and dicts of them, this env gives {part}"
        if reason := unfit_image(part):
            return reason
    return None


def one_row(observation: Space, action: Space, memory: Memory) -> tuple[Box, Discrete]:
    """What each row of an observation shows, and the action that it has.

    Raises:
        UsageError: there is not one of K numbered actions, all alike, for each row of a (K, F) array.
    """
    shape = observation.shape if isinstance(observation, Box) else ()
    if len(shape) == 2 and memory == "none" and isinstance(action, MultiDiscrete) and action.nvec.shape == shape[:1]:
        (count, *others), (start, *more) = set(action.nvec.tolist()), set(action.start.tolist())
        if not (others or more):
            return Box(-math.inf, math.inf, shape[1:]), Discrete(count, start=start)
    raise UsageError(
        f"agent.rows=true takes observations (K, F), K numbered actions that are alike and agent.memory=none; this env "
        f"shows {observation} and takes {action}: write agent.rows=false"
    )


def _acts(action: Space) -> bool:
    try:
        distribution_over(action, torch.device("cpu"))
    except UsageError:
        return False
    return True


def _unmasked(space: Space) -> tuple[bool, Space]:
    """Whether observations carry an action mask, and the space of what else they have."""
    if isinstance(space, Dict) and set(space.keys()) == {"obs", "action_mask"}:
        return True, space["obs"]
    return False, space


def _reader(space: Space) -> tuple[int, Callable[[Tensor], Tensor]]:
    """The width of a part without a CNN, and the function that encodes it."""
    if isinstance(space, Discrete):
        n, start = int(space.n), int(space.start)
        return n, lambda x: F.one_hot(x.long() - start, n).float()
    if isinstance(space, MultiDiscrete):
        sizes, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()

        def digits(x: Tensor) -> Tensor:
            each = zip(x.flatten(1).unbind(1), sizes, starts, strict=True)
            return torch.cat([F.one_hot(digit.long() - start, n) for digit, n, start in each], -1).float()

        return sum(sizes), digits
    return math.prod(space.shape or ()), flat
