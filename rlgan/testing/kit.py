"""What all kinds of checks share: a check is a name and a function that raises. A kind of plugin is a list of them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlgan.core import seeding
from rlgan.errors import ConformanceError, RlganError, UsageError
from rlgan.specs import AgentSpec, EnvSpec


@dataclass(frozen=True)
class Check:
    """One check of one plugin. Calling it raises ConformanceError if the plugin fails; random numbers are put back."""

    name: str
    who: str
    """The plugin, as in ``env shop``: how its sentences begin."""
    function: Callable[[], None]
    device: torch.device

    def __call__(self) -> None:
        """Run it.

        Raises:
            ConformanceError: the fault, or whatever the plugin raised.
        """
        try:
            with seeding.fork(0, self.device):
                self.function()
        except ConformanceError:
            raise
        except RlganError as error:
            raise ConformanceError(str(error)) from error
        except Exception as error:
            kind = type(error).__name__
            raise ConformanceError(f"{self.who} raised {kind} in the check '{self.name}': {error}") from error


@dataclass(frozen=True)
class Result:
    """How one check went: ``ok``, ``failed``, or ``not run`` after a failure that the others build on."""

    check: str
    status: str
    reason: str = ""


def bind(functions: Sequence[Callable[[Any], None]], subject: Any) -> list[Check]:
    """Make checks of functions of one subject, which has ``who`` and ``device``. Functions name their checks."""
    names = [function.__name__.replace("_", " ") for function in functions]
    made = zip(names, functions, strict=True)
    return [Check(name, subject.who, partial(function, subject), subject.device) for name, function in made]


def run_all(checks: Sequence[Check]) -> None:
    """Run the checks in order; the first fault is raised."""
    for check in checks:
        check()


def results(checks: Sequence[Check]) -> Iterator[Result]:
    """Run the checks and say how each went. The first one is of shapes and types: where it fails, no other is run."""
    broken = False
    for i, check in enumerate(checks):
        if broken:
            yield Result(check.name, "not run")
            continue
        try:
            check()
        except ConformanceError as error:
            broken = i == 0
            yield Result(check.name, "failed", str(error))
        else:
            yield Result(check.name, "ok")


def config_for(factory: Callable[..., Any] | AgentSpec | EnvSpec, config: Any) -> Any:
    """The given settings; else the defaults of a spec's, or of the class that annotates a factory's ``config``."""
    if config is not None:
        return config
    if isinstance(factory, AgentSpec | EnvSpec):
        return _defaults(factory.config)
    target = factory.__init__ if inspect.isclass(factory) else factory
    cls = typing.get_type_hints(target).get("config")
    if cls is None:
        name = getattr(factory, "__name__", repr(factory))
        raise UsageError(f"{name} does not say what its settings are: annotate its config, or give config=SETTINGS.")
    return _defaults(cls)


def _defaults(cls: type) -> Any:
    try:
        return cls()
    except TypeError as error:
        raise UsageError(f"the settings have no defaults to check with ({error}): give config=SETTINGS.") from error


def leaves(value: Any, name: str) -> dict[str, Tensor]:
    """The tensors of a state, an observation or a carry, each with a name for sentences."""
    if isinstance(value, dict):
        return {f"{name}'s {key!r}": item for key, item in value.items()}
    if isinstance(value, tuple | list):
        return {f"{name}'s part {i}": item for i, item in enumerate(value)}
    return {} if value is None else {name: value}


def snapshot(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies that nothing can change any more."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def first_difference(one: dict[str, Tensor], two: dict[str, Tensor], *, rows: slice | None = None) -> str | None:
    """The name of the first tensor that is not the same in both, in some rows, or None."""
    for name, tensor in one.items():
        other = two[name]
        if rows is not None:
            tensor, other = tensor[rows], other[rows]
        if not torch.equal(tensor, other):
            return name
    return None


def tensor_of(value: Any) -> Any:
    """NumPy arrays as tensors; anything else as it is."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def about(value: Any) -> str:
    """A value in a sentence: dtype and shape of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)}"
    return type(value).__name__
