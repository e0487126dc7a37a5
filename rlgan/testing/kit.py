"""What all kinds of checks share: a check is a name and a function that raises. A kind of plugin is a list of them.

What plugins are asked to do is a list of `Call`; three rules hold for the calls of every kind.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlgan.core import seeding
from rlgan.discovery import KINDS
from rlgan.errors import ConformanceError, RlganError, UsageError
from rlgan.registry import Registry
from rlgan.testing.detect import global_draws, host_reads
from rlgan.testing.live import first_difference, snapshot

T = TypeVar("T")


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


def bind(functions: Sequence[Callable[[Any], None]], subject: Subject) -> list[Check]:
    """Make checks of functions of one subject. Functions name their checks."""
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


@dataclass(frozen=True)
class Subject:
    """A plugin under test."""

    who: str
    """How sentences begin: ``env shop``."""
    factory: Callable[..., Any]
    config: Any
    spec: Any
    """None where a factory alone was given."""
    device: torch.device


def subject(kind: str, what: Any, config: Any, device: str, registry: Registry | None = None) -> Subject:
    """Find a plugin by its name, Spec or factory, and its settings: those given, or their defaults.

    Raises:
        UsageError: the name is unknown, or the settings have no defaults.
    """
    if isinstance(what, str):
        what = (registry or Registry()).get(kind, what)
    spec = what if hasattr(what, "factory") else None
    title = spec.name if spec else getattr(what, "__name__", type(what).__name__)
    who, factory = f"{KINDS[kind]} {title}", spec.factory if spec else what
    if config is None:
        cls = spec.config if spec else _annotated(factory)
        if cls is None:
            raise UsageError(f"{who} does not say what its settings are: annotate its config, or give config=SETTINGS.")
        try:
            config = cls()
        except TypeError as error:
            mend = "check it in a test, with config=SETTINGS"
            raise UsageError(f"the settings of {who} have no defaults to check with ({error}): {mend}.") from error
    return Subject(who, factory, config, spec, torch.device(device))


def _annotated(factory: Callable[..., Any]) -> Any:
    return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory).get("config")


def accepted(found: Subject, tried: Sequence[T], make: Callable[[T], Any], mend: str) -> tuple[T, ...]:
    """What a plugin's factory does not refuse by a UsageError; anything else that it raises is for its checks to tell.

    Raises:
        UsageError: it refuses everything.
    """
    refusals: dict[int, UsageError] = {}
    for i, each in enumerate(tried):
        try:
            with seeding.fork(0, found.device):
                make(each)
        except UsageError as error:
            refusals[i] = error
        except Exception:
            continue
    if len(refusals) == len(tried):
        raise UsageError(f"{found.who} refuses all that it is tried with ({refusals[0]}): {mend}.")
    return tuple(each for i, each in enumerate(tried) if i not in refusals)


@dataclass(frozen=True)
class Call:
    """Something that a plugin is asked to do, as often as a check wants to."""

    what: str
    """Its name in sentences, as ``act`` or ``the update of phase 'train'``."""
    run: Callable[[Any], Any]
    """Make the call on the plugin, or on another instance of it."""
    given: dict[str, Tensor] = field(default_factory=dict)
    """The tensors that it is given, by name."""
    gives: str = ""
    """How what comes out is named."""


def check_untouched(who: str, thing: Any, calls: Iterable[Call]) -> None:
    """What is given is left as it is."""
    for call in calls:
        before = snapshot(call.given)
        call.run(thing)
        if changed := first_difference(before, call.given):
            raise ConformanceError(f"{who} changes {changed} in place in {call.what}: return new tensors instead")


def check_draws(who: str, thing: Any, calls: Iterable[Call], instead: str, *, torch_too: bool = False) -> None:
    """Random numbers come from nowhere else than they should."""
    for call in calls:
        with global_draws(torch_too=torch_too) as used:
            call.run(thing)
        if used:
            raise ConformanceError(f"{who} draws from {used[0]} in {call.what}: {instead}")


def check_reads(who: str, thing: Any, calls: Iterable[Call]) -> None:
    """No number is read back to Python, so that the calls can be captured."""
    for call in calls:
        with host_reads() as reads:
            call.run(thing)
        if reads:
            raise ConformanceError(
                f"{who} reads tensors back in {call.what}, which waits for the device and cannot be captured: "
                f"{reads[0]}; use torch.where and other functions of fixed shape"
            )


def leaves(value: Any, name: str) -> dict[str, Tensor]:
    """The tensors of a state, an observation or a carry, each with a name for sentences."""
    if isinstance(value, dict):
        return {f"{name}'s {key!r}": item for key, item in value.items()}
    if isinstance(value, tuple | list):
        return {f"{name}'s part {i}": item for i, item in enumerate(value)}
    return {} if value is None else {name: value}


def tensor_of(value: Any) -> Any:
    """NumPy arrays as tensors; anything else as it is."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def about(value: Any) -> str:
    """A value in a sentence: dtype and shape of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)}"
    return type(value).__name__
