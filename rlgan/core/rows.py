"""What happens to rows wherever they pass: copies chosen by mask, carries begun anew, the true next observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Dict, Space
from torch import Tensor

from rlgan.core.protocols import Batch, mapped


def where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Take ``new`` where ``mask`` is true; the tensors begin with its dimensions, (n, ...) or (T, N, ...)."""
    return torch.where(mask.view(*mask.shape, *[1] * (old.dim() - mask.dim())), new, old)


def renewed(carry: Any, mask: Tensor, fresh: Callable[[int], Any]) -> Any:
    """The recurrent state of n copies, fresh where ``mask`` (n,) is true; None stays None."""
    if carry is None:
        return None
    return tuple(where(mask, new, old) for new, old in zip(fresh(len(mask)), carry, strict=True))


def following(rows: Batch, shown: Any) -> Any:
    """The true next observations: ``shown``, but the final one where a simulator resets in the same step."""
    if "final_obs" not in rows:
        return shown
    ended = rows["terminated"] | rows["truncated"]
    return mapped(lambda final, seen: where(ended, final, seen), rows["final_obs"], shown)


def blank(space: Space, n: int, device: torch.device) -> Any:
    """n observations (n, ...) of a space, not filled in; a dict of them where the space is a Dict."""
    if isinstance(space, Dict):
        return {key: blank(part, n, device) for key, part in space.items()}
    return torch.from_numpy(np.empty((n, *(space.shape or ())), space.dtype)).to(device)


def about(value: Any) -> str:
    """A value in a sentence: dtype, shape and device of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)} on {value.device.type}"
    return type(value).__name__
