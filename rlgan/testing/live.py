"""Everything that an object holds: the tensors and numbers of its modules, optimisers and other attributes, by path."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_OPAQUE = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, torch.dtype)
_PLUMBING = {"_modules", "_parameters", "_buffers"}
"""Where torch keeps a module's parts; left out of paths, as in ``q.layers.0.weight``."""


def values(thing: Any) -> dict[str, Tensor | float]:
    """Map the path of each tensor and number to it; what is reached twice has its first path."""
    found: dict[str, Tensor | float] = {}
    _walk(thing, "", found, set())
    return found


def snapshot(found: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of tensors and numbers by name, which nothing changes any more."""
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in found.items()}


def first_difference(one: Mapping[str, Any], two: Mapping[str, Any]) -> str | None:
    """The first name whose value is missing in the second or not equal there, or None."""
    for name, value in one.items():
        if not _equal(value, two.get(name)):
            return name
    return None


def _equal(one: Any, two: Any) -> bool:
    """Whether two values are the same; NaN is NaN, which is a fault of another kind."""
    if not (isinstance(one, Tensor) and isinstance(two, Tensor)):
        return one is two or one == two
    alike = (one.dtype, one.shape) == (two.dtype, two.shape)
    return alike and bool(((one == two) | (one.isnan() & two.isnan())).all())


def _walk(thing: Any, path: str, found: dict[str, Tensor | float], seen: set[int]) -> None:
    if isinstance(thing, bool | int | float):
        found[path] = thing
        return
    if isinstance(thing, _OPAQUE) or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        found[path] = thing
    elif isinstance(thing, np.ndarray) and thing.dtype.kind in "biuf":
        found[path] = torch.from_numpy(thing)
    elif isinstance(thing, dict):
        for i, (key, item) in enumerate(thing.items()):
            # torch's optimisers have parameters as keys, which differ from one instance to the next
            _walk(item, _join(path, key if isinstance(key, str | int) else i), found, seen)
    elif isinstance(thing, list | tuple):
        for i, item in enumerate(thing):
            _walk(item, _join(path, i), found, seen)
    elif hasattr(thing, "__dict__"):
        _walk(vars(thing), path, found, seen)


def _join(path: str, key: Any) -> str:
    if key in _PLUMBING:
        return path
    return f"{path}.{key}" if path else str(key)
