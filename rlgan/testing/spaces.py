"""Spaces and batches of tensors: drawing actions, and finding values that lie outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector.utils import batch_space
from torch import Generator, Tensor

from rlgan.testing.kit import about


def sample(space: Space, n: int, seed: int, device: torch.device) -> Tensor:
    """Draw n values, (n, ...), the same for the same seed; no global generator is touched."""
    many = batch_space(space, n)
    many.seed(seed)
    return torch.from_numpy(np.asarray(many.sample())).to(device)


def draw(space: Space, n: int, rng: Generator | None, device: torch.device) -> Tensor:
    """Draw n values on the device, (n, ...): normal ones cut at the bounds for floats, uniform ones for integers."""
    if isinstance(space, Discrete):
        return torch.randint(int(space.n), (n,), generator=rng, device=device) + int(space.start)
    assert isinstance(space, Box)
    shape, dtype = (n, *space.shape), torch.from_numpy(np.empty(0, space.dtype)).dtype
    if not dtype.is_floating_point:
        bounds = int(space.low.min()), int(space.high.max()) + 1
        return torch.randint(*bounds, shape, generator=rng, device=device).to(dtype)
    low, high = (torch.from_numpy(bound).to(device) for bound in (space.low, space.high))
    return torch.randn(shape, generator=rng, device=device, dtype=dtype).clamp(low, high)


def outside(space: Space, value: Any) -> str | None:
    """What is wrong with a batch (n, ...) of values of a space: its first copy that is not inside, or None."""
    if isinstance(space, Dict):
        found = ((key, outside(inner, value[key])) for key, inner in space.items())
        return next((f"{key!r}: {fault}" for key, fault in found if fault), None)
    dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype
    wanted = f"{str(dtype).removeprefix('torch.')} of (n, {', '.join(map(str, space.shape or ()))})"
    if not isinstance(value, Tensor) or value.dtype != dtype or value.shape[1:] != (space.shape or ()):
        return f"is {about(value)}, and {space} asks for {wanted}"
    value = value.detach()
    if value.is_floating_point() and not bool(value.isfinite().all()):
        return f"is not finite in copy {_first(~value.isfinite())}"
    low, high = (torch.as_tensor(bound, device=value.device) for bound in _bounds(space))
    wrong = (value < low) | (value > high)
    if bool(wrong.any()):
        copy = _first(wrong)
        return f"lies outside of {space} in copy {copy}: {value[copy].tolist()!s:.80}"
    return None


def _bounds(space: Space) -> tuple[Any, Any]:
    """The smallest and the largest value, both included."""
    if isinstance(space, Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, MultiBinary):
        return 0, 1
    assert isinstance(space, Box), f"the kit knows no space {space}"
    return space.low, space.high


def _first(wrong: Tensor) -> int:
    return int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.dim() > 1 else int(wrong.nonzero()[0])
