"""What is saved of an object: the attributes that it names, put back in place and only where they fit.

A checkpoint may come from a stranger, so each value is compared with the one that it takes the place of.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

MISFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What loading a state that does not fit may raise."""


class OtherData(ValueError):
    """A saved state is of other data than there is now."""

    def __init__(self, then: str, now: str) -> None:
        super().__init__(f"it is of data {then!r:.200}, and there is now {now!r:.200}")
        self.then, self.now = then, now


class Saved:
    """Gives a class its ``state_dict`` and ``load_state_dict``, from the names in ``kept``.

    Modules, optimisers and other parts give their own state. Tensors are copied into, so that captured code goes on
    seeing them; numbers and text are replaced.
    """

    kept: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes named in ``kept`` as a tree of tensors and numbers."""
        return {name: saved(getattr(self, name)) for name in self.kept}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a tree that state_dict made into the live attributes. ValueError: it does not fit them."""
        if not isinstance(tree, dict):
            raise ValueError(f"the state of its {type(self).__name__} is {type(tree).__name__} and must be a dict")
        for name in self.kept:
            setattr(self, name, restored(getattr(self, name), tree[name], name))


def same_data(then: str, now: str) -> None:
    """Refuse to go on with other data than that of a saved state: OtherData."""
    if then != now:
        raise OtherData(then, now)


def reason(error: Exception) -> str:
    """What a misfit says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def saved(value: Any) -> Any:
    """The state of one value; of a dict its parts'."""
    if isinstance(value, dict):
        return {key: saved(part) for key, part in value.items()}
    return value.state_dict() if hasattr(value, "state_dict") else value


def restored(live: Any, value: Any, name: str) -> Any:
    """Put a saved value in the place of a live one of the same kind, and return what stands there now.

    Raises:
        ValueError: its type, shape or keys are others; the sentence names it.
    """
    if hasattr(live, "load_state_dict"):
        live.load_state_dict(value)
        return live
    if isinstance(live, Tensor):
        with torch.no_grad():
            return live.copy_(tensor(value, live.shape, live.dtype, name))
    if type(live) is int:
        return whole(value, name)
    if type(value) is not type(live):
        raise ValueError(f"its {name} is {value!r:.40} and must be a {type(live).__name__}")
    if isinstance(live, dict):
        return {key: restored(item, value[key], f"{name.removesuffix('s')} {key!r}") for key, item in live.items()}
    if isinstance(live, (list, tuple)):
        return type(live)(restored(old, new, name) for old, new in zip(live, value, strict=True))
    return value


def tensor(value: Any, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> Tensor:
    """A saved tensor of that shape and dtype; ValueError if it is not."""
    if isinstance(value, Tensor) and value.shape == torch.Size(shape) and value.dtype == dtype:
        return value
    got = f"{value.dtype} of {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ValueError(f"its {name} is {got} and must be {dtype} of {tuple(shape)}")


def whole(value: Any, name: str) -> int:
    """A saved count; ValueError if it is not a whole number, or below 0."""
    if type(value) is not int or value < 0:
        raise ValueError(f"its {name} is {value!r:.40} and must be a whole number")
    return value
