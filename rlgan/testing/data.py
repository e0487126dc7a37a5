"""Checks of a data set: sound samples, the same ones whenever it is loaded."""

from __future__ import annotations

from typing import Any

from rlgan.core import seeding
from rlgan.core.stream import check_samples
from rlgan.errors import ConformanceError
from rlgan.registry import Registry
from rlgan.testing.kit import Call, Check, Subject, bind, check_draws, first_difference, run_all, subject


def check_data(what: Any, config: Any = None) -> None:
    """Check a data set: a name (``digits``), a DataSpec, or ``factory(config)``.

    Raises:
        ConformanceError: the first fault.
    """
    run_all(data_checks(what, config))


def data_checks(what: Any, config: Any = None, device: str = "cpu", registry: Registry | None = None) -> list[Check]:
    """The checks of `check_data`, to be run one by one."""
    return bind(CHECKS, subject("data", what, config, device, registry))


def samples(s: Subject) -> None:
    """Shapes, dtypes and numbers of samples and labels."""
    check_samples(s.factory(s.config), s.who)


def randomness(s: Subject) -> None:
    """Loading draws no random numbers, which would shift those of the run."""
    instead = "seed a generator of its own, so that each load gives the same samples"
    check_draws(s.who, None, [Call("its factory", lambda _: s.factory(s.config))], instead, torch_too=True)


def repetition(s: Subject) -> None:
    """Each load gives the same."""
    loads = []
    for seed in (1, 2):
        seeding.seed_all(seed)
        data = s.factory(s.config)
        labels = {} if data.labels is None else {"labels": data.labels}
        loads.append({"real": data.real, **labels})
    if changed := first_difference(*loads):
        raise ConformanceError(
            f"{s.who} gives another value of {changed} in another load: a resumed run would learn from other data"
        )


CHECKS = (samples, randomness, repetition)
