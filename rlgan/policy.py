"""A trained agent for other programs: observations in, actions out, as NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, Space
from torch import Tensor

from rlgan.core import seeding
from rlgan.core.protocols import Observation
from rlgan.core.rows import renewed
from rlgan.errors import UsageError

Array = np.ndarray[Any, np.dtype[Any]]


class Policy:
    """Plays as evaluation does, without exploration. ``policy(obs)`` takes what the env gives.

    What a recurrent agent remembers is kept here until `reset`. Random numbers come from a stream of its own.

    Args:
        agent: Trained.
        observation: Space of one observation, with its stacked frames.
        action: Space of one action.
        device: Where the agent is.
        seed: Of the policy's random numbers.
        see: What the agent sees in place of observations; None is themselves.
    """

    def __init__(
        self,
        agent: Any,
        observation: Space,
        action: Space,
        device: torch.device,
        seed: int = 0,
        see: Callable[[Any], Any] | None = None,
    ) -> None:
        self.observation_space, self.action_space, self.device = observation, action, device
        self._agent, self._see = agent, see
        self._carry: tuple[Tensor, ...] | None = None
        self._n = 0
        """Observations in the last call."""
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        with seeding.fork(seed, device):
            self._random = seeding.state_dict(device)

    def __call__(self, obs: Any) -> Any:
        """Choose an action for one observation, or one for each of a batch.

        Args:
            obs: ``observation_space.shape``, or ``(n, *shape)`` for n of them; a dict of such where the space is one.

        Returns:
            An int for one observation with numbered actions; else an array, ``(n, ...)`` for a batch.

        Raises:
            UsageError: the observation is none of the env's, or n changed while the agent remembers the past.
        """
        batch, n, single = self._batch(obs, self.observation_space)
        batch = self._see(batch) if self._see else batch
        if self._carry is None:
            self._carry = self._agent.carry(n)
        elif n != self._n:
            raise UsageError(
                f"the policy remembers {self._n} games and is given observations of {n}: call policy.reset() first"
            )
        self._n = n
        outside = seeding.state_dict(self.device)
        seeding.load_state_dict(self._random, self.device)
        try:
            with torch.no_grad():
                out, self._carry = self._agent.act(batch, self._carry, self._step, False)
        finally:
            self._random = seeding.state_dict(self.device)
            seeding.load_state_dict(outside, self.device)
        action = out["action"].cpu().numpy()
        if isinstance(self.action_space, Box):
            action = np.clip(action, self.action_space.low, self.action_space.high)
        if not single:
            return action
        return int(action[0]) if isinstance(self.action_space, Discrete) else action[0]

    def reset(self, mask: Any = None) -> None:
        """Forget the past at the start of new games: of all, or of those where ``mask`` (n,) is true."""
        if self._carry is None:
            return
        if mask is None:
            self._carry = None
            return
        chosen = np.asarray(mask)
        if chosen.shape != (self._n,) or chosen.dtype != np.bool_:
            raise UsageError(f"mask is {chosen.dtype} of {chosen.shape}; it must be bool of ({self._n},)")
        self._carry = renewed(self._carry, torch.from_numpy(chosen).to(self.device), self._agent.carry)

    def _batch(self, obs: Any, space: Space, what: str = "the observation") -> tuple[Observation, int, bool]:
        """The observations as tensors ``(n, ...)``, n, and whether it was a single one without that dimension."""
        if not isinstance(space, Dict):
            tensor, single = self._tensor(obs, space, what)
            return tensor, len(tensor), single
        if not isinstance(obs, Mapping) or obs.keys() != space.keys():
            given = sorted(obs) if isinstance(obs, Mapping) else type(obs).__name__
            raise UsageError(f"{what} is {given}; it must be a dict of {sorted(space)}")
        parts = {key: self._batch(obs[key], part, f"{what}'s {key!r}") for key, part in space.items()}
        if len({(n, single) for _, n, single in parts.values()}) > 1:
            raise UsageError("the parts of the observation are not equally many")
        _, n, single = next(iter(parts.values()))
        return {key: batch for key, (batch, _, _) in parts.items()}, n, single

    def _tensor(self, value: Any, space: Space, what: str) -> tuple[Tensor, bool]:
        array, shape, dtype = np.asarray(value), space.shape or (), np.dtype(space.dtype)
        single = array.ndim == len(shape)
        if array.shape[array.ndim - len(shape) :] != shape or array.ndim > len(shape) + 1 or array.size == 0:
            raise UsageError(f"{what} has shape {array.shape}; it must be {shape}, or {('n', *shape)} for n at once")
        floats = np.issubdtype(array.dtype, np.floating) and np.issubdtype(dtype, np.floating)
        if array.dtype != dtype and not floats:
            raise UsageError(f"{what} is {array.dtype}; it must be {dtype}, as the env gives it")
        if floats and not np.isfinite(array).all():
            raise UsageError(f"{what} holds NaN or infinity; give finite numbers, as the env does")
        array = np.array(array, dtype)  # a copy: a tensor may not look into an array that its owner writes to
        return torch.from_numpy(array[None] if single else array).to(self.device), single
