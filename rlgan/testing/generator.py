"""Checks of a generator: samples have the form of real ones, it learns and is saved as an agent is; and of its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlgan.contract import check_generator as check_made
from rlgan.contract import check_samples
from rlgan.core import seeding
from rlgan.core.protocols import DataSet
from rlgan.core.stream import DataStream
from rlgan.errors import ConformanceError
from rlgan.registry import Registry
from rlgan.testing.detect import SeparateDraws
from rlgan.testing.kit import Call, Check, Subject, accepted, bind, check_draws, run_all, subject
from rlgan.testing.learner import Learner, batches, in_place, randomness, saving, update_reads, updates
from rlgan.testing.live import first_difference
from rlgan.tokens import Tokens

N, FEW, MANY = 8, 64, 128
"""Samples asked for."""
REAL = 4_096
"""Samples of a made-up data set."""
FORMS = ((1, 28, 28), (3, 32, 32), (2,))
"""Grey and coloured images, uint8, and points of the plane, float32: what generators are tried with."""


@dataclass(frozen=True)
class GeneratorSubject(Learner):
    """A generator under test."""

    sets: tuple[DataSet, ...]
    """Data that it does not refuse; it learns from the first."""
    keeps = "it draws from a generator of its own, or keeps something from one call to the next"

    def make(self, data: int = 0) -> Any:
        """A new generator; its random initial values differ from those of the one before."""
        return self.factory(self.sets[data], self.config, self.device)

    def uses(self, thing: Any) -> list[Call]:
        """``sample``."""
        return [Call("sample", lambda generator: generator.sample(N), gives="the samples")]

    def updates(self, thing: Any, count: int) -> Iterator[Call]:
        """The first updates of each phase."""
        return batches(self, thing, DataStream(self.sets[0], self.device), count)


def check_generator(what: Any, config: Any = None, device: str = "cpu", data: DataSet | None = None) -> None:
    """Check a generator: a name (``dcgan``), a GeneratorSpec, or ``factory(data, config, device)``.

    It is tried with random images and points, those of them that its factory does not refuse by a UsageError, with
    sequences of tokens where it refuses both, or with ``data`` alone. Without ``config`` the defaults of its settings
    are taken.

    Raises:
        ConformanceError: the first fault.
        UsageError: it refuses all data.
    """
    run_all(generator_checks(what, config, device, data=data))


def generator_checks(
    what: Any, config: Any = None, device: str = "cpu", registry: Registry | None = None, data: DataSet | None = None
) -> list[Check]:
    """The checks of `check_generator`, to be run one by one."""
    found = subject("generators", what, config, device, registry)
    with seeding.fork(0, found.device):
        tried = [*(made_up(form) for form in FORMS), sequences()] if data is None else [data]
    sets = accepted(found, tried, lambda data: found.factory(data, found.config, found.device), "give data=DATASET")
    if len(sets) > 1 and sets[-1].tokens:  # what takes vectors of any kind is for numbers
        sets = sets[:-1]
    return bind(CHECKS, GeneratorSubject(**vars(found), sets=sets))


def made_up(form: tuple[int, ...]) -> DataSet:
    """Random samples with labels of ten classes."""
    images = len(form) == 3
    real = torch.randint(0, 256, (REAL, *form), dtype=torch.uint8) if images else torch.rand(REAL, *form)
    return DataSet(real, torch.arange(REAL) % 10, "made up")


def sequences() -> DataSet:
    """Random sequences of tokens."""
    return DataSet(torch.randint(0, 50, (REAL, 12)), protocol="made up", tokens=Tokens(tuple(map(str, range(50)))))


def samples(s: GeneratorSubject) -> None:
    """Samples have the shape, dtype and scale of the real ones, whatever number is asked for."""
    for i, data in enumerate(s.sets):
        generator = s.make(i)
        for n in (1, N):
            made = check_made(generator, data, n, s.device, s.who)
            if not bool(made.isfinite().all()):
                raise ConformanceError(f"{s.who} gives samples that are not finite")
            _check_scale(s, made.double(), data.real.double())


def variety(s: GeneratorSubject) -> None:
    """Other random numbers give other samples."""
    generator, made = s.make(), []
    for seed in (1, 2):
        seeding.seed_all(seed)
        made.append(generator.sample(N))
    if torch.equal(*made):
        raise ConformanceError(
            f"{s.who} gives the same samples whatever torch's default generator is seeded with: draw the noise from it"
        )


def independence(s: GeneratorSubject) -> None:
    """A sample does not depend on how many are asked for. Known on the CPU alone, where draws have a fixed order."""
    if s.device.type != "cpu":
        return
    generator, made = s.make(), []
    for n in (FEW, MANY):
        with SeparateDraws(torch.default_generator) as draws:
            made.append(generator.sample(n)[: FEW // 2].double())
    # sums over a larger batch may be taken in another order, which is worth a level of 255 at most
    scale = float(s.sets[0].real.double().abs().max())
    differing = ((made[0] - made[1]).abs() > scale / 100).flatten(1).any(1)
    if bool(differing.any()) and not draws.varying:
        raise ConformanceError(
            f"{s.who} makes other samples when more are asked for: number {int(differing.nonzero()[0])} of {FEW} is "
            f"not that of {MANY} on the same random numbers, so it depends on the others, as by batch statistics"
        )


CHECKS = (samples, in_place, randomness, variety, independence, update_reads, updates, saving)


def check_data(what: Any, config: Any = None) -> None:
    """Check a data set: a name (``digits``, ``lines:PATH``), a DataSpec, or ``factory(config)``.

    Raises:
        ConformanceError: the first fault.
    """
    run_all(data_checks(what, config))


def data_checks(what: Any, config: Any = None, device: str = "cpu", registry: Registry | None = None) -> list[Check]:
    """The checks of `check_data`, to be run one by one."""
    spec, argument = (registry or Registry()).get_named("data", what) if isinstance(what, str) else (what, "")
    found = subject("data", spec, config, device, registry)
    if found.spec and found.spec.family:
        found = replace(found, factory=lambda config: found.spec.factory(config, argument))
    return bind(DATA_CHECKS, found)


def real_samples(s: Subject) -> None:
    """Shapes, dtypes and numbers of samples and labels."""
    check_samples(s.factory(s.config), s.who)


def loading_draws(s: Subject) -> None:
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


DATA_CHECKS = (real_samples, loading_draws, repetition)


def _check_scale(s: GeneratorSubject, made: Tensor, real: Tensor) -> None:
    """Real samples of 0 to 255 and made ones of 0 to 1, or the other way round, are of different scales."""
    (low, high), (least, most) = ((float(x.min()), float(x.max())) for x in (real, made))
    span = high - low
    small, large = most < low + span / 100, max(low - least, most - high) > 10 * span
    if span and (small or large):
        raise ConformanceError(
            f"{s.who} gives samples from {least:g} to {most:g}, where real ones lie between {low:g} and {high:g}: "
            "bring them to the scale of DataSet.real"
        )
