"""State trees as strict JSON plus named tensors, exactly invertible.

In the JSON a tensor is ``{"$tensor": "a/b/c"}``, a float that JSON lacks ``{"$float": "nan"}``, a tuple
``{"$tuple": [...]}`` and an integer key ``k`` of a dict ``"$k"``; so no other key may begin with ``$``.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

MAX_DEPTH = 64
_MARKS = ("$tensor", "$float", "$tuple")


def encode(value: Any, tensors: dict[str, Tensor] | None, path: tuple[str, ...] = ()) -> Any:
    """The JSON of a tree; its tensors go into ``tensors`` under their paths. TypeError names what cannot be saved."""
    name = "/".join(path)
    if len(path) > MAX_DEPTH:
        raise TypeError(f"the state is nested deeper than {MAX_DEPTH} levels at {name:.200}")
    if isinstance(value, Tensor) and tensors is not None:
        if name in tensors:
            raise TypeError(f"two tensors of the state are named {name!r}")
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple):
        return {"$tuple": encode(list(value), tensors, path)}
    if isinstance(value, list):
        return [encode(item, tensors, (*path, str(i))) for i, item in enumerate(value)]
    if isinstance(value, dict):
        keys = {_key(key, name): item for key, item in value.items()}
        return {key: encode(item, tensors, (*path, key.removeprefix("$"))) for key, item in keys.items()}
    raise TypeError(
        f"{name!r} is a {type(value).__name__}; a state holds tensors, numbers, strings, None, dicts and lists"
    )


def decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree back. ValueError or KeyError if the JSON and the tensors do not belong together."""
    used: set[str] = set()
    tree = _decode(value, tensors, used, 0)
    if used != set(tensors):
        raise ValueError(f"tensors that the state does not name: {sorted(set(tensors) - used)[:3]}")
    return tree


def is_name(key: Any) -> bool:
    """Whether a dict of a state may have this key."""
    # "__metadata__" has a meaning of its own in a safetensors header.
    return isinstance(key, str) and key not in ("", "__metadata__") and "/" not in key and not key.startswith("$")


def _key(key: Any, name: str) -> str:
    if type(key) is int:
        return f"${key}"
    if is_name(key):
        return str(key)
    raise TypeError(
        f"{name!r} has the key {key!r}; keys are integers, or strings without '/' that do not begin with '$'"
    )


def _decode(value: Any, tensors: dict[str, Tensor], used: set[str], depth: int) -> Any:
    if depth > 2 * MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [_decode(item, tensors, used, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (mark := next(iter(value))) in _MARKS:
        content = value[mark]
        if mark == "$tensor":
            used.add(content)
            return tensors[content]
        if mark == "$float":
            return float(content)
        return tuple(_decode(content, tensors, used, depth + 1))
    return {
        int(key[1:]) if key.startswith("$") else key: _decode(item, tensors, used, depth + 1)
        for key, item in value.items()
    }
