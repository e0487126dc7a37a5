"""Checks of whatever learns: agents, generators and reward models update, draw random numbers and are saved alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlgan.core import seeding
from rlgan.core.protocols import Own
from rlgan.core.source import make_source
from rlgan.core.stream import DataStream, Stream
from rlgan.errors import ConformanceError, UsageError
from rlgan.store import tree
from rlgan.testing.kit import (
    Call,
    Subject,
    about,
    check_draws,
    check_reads,
    check_untouched,
    leaves,
)
from rlgan.testing.live import first_difference, snapshot, values

UPDATES = 2
ROWS = 500_000
"""Rows within which a phase must give its first batches."""
SEED = 3


class Learner(Subject):
    """A learner under test."""

    keeps: ClassVar[str]
    """What is wrong where it gives different things for the same random numbers."""

    def make(self) -> Any:
        """A new one; its random initial values differ from those of the one before."""
        raise NotImplementedError

    def uses(self, thing: Any) -> list[Call]:
        """What it is for, as ``act``."""
        raise NotImplementedError

    def updates(self, thing: Any, count: int) -> Iterator[Call]:
        """The first updates of each kind, each made before the next is asked for."""
        raise NotImplementedError


def in_place(s: Learner) -> None:
    """Observations, rows and batches are left as they are."""
    thing = s.make()
    check_untouched(s.who, thing, s.uses(thing))
    check_untouched(s.who, thing, s.updates(thing, 1))


def randomness(s: Learner) -> None:
    """Random numbers are those of torch's default generator; the same ones give the same, and leave no trace."""
    thing = s.make()
    elsewhere = "use torch's default generator alone"
    check_draws(s.who, thing, s.uses(thing), elsewhere)
    for call in s.uses(thing):
        before = snapshot(values(thing))
        one, two = (outcome(call, thing) for _ in range(2))
        if changed := first_difference(one, two):
            raise ConformanceError(f"{s.who} gives another value of {changed} for the same random numbers: {s.keeps}")
        if changed := first_difference(before, values(thing)):
            raise ConformanceError(f"{s.who} changes its {changed} in {call.what}: {s.keeps}")
    check_draws(s.who, thing, s.updates(thing, 1), elsewhere)


def host_reads(s: Learner) -> None:
    """No number is read back to Python in what a run may capture."""
    thing = s.make()
    check_reads(s.who, thing, s.uses(thing))
    update_reads(s)


def update_reads(s: Learner) -> None:
    """No number is read back to Python in updates."""
    thing = s.make()
    check_reads(s.who, thing, s.updates(thing, 1))


def updates(s: Learner) -> None:
    """An update returns 0-d metrics, changes parameters, and keeps every number finite."""
    thing = s.make()
    for call in s.updates(thing, UPDATES):
        before = snapshot(_trained(thing))
        metrics = call.run(thing)
        if not isinstance(metrics, dict):
            wanted = "it must be a dict of 0-d tensors"
            raise ConformanceError(f"{s.who} returned {about(metrics)} from {call.what}; {wanted}")
        for name, value in metrics.items():
            if not isinstance(value, Tensor) or (name != "priority" and value.shape != ()):
                wanted = "it must be a 0-d tensor"
                raise ConformanceError(f"{s.who} returned the metric {name!r} as {about(value)}; {wanted}")
            if value.requires_grad:
                raise ConformanceError(f"{s.who} returned the metric {name!r} with its graph: detach it")
        everything = {**{f"metric {name!r}": value for name, value in metrics.items()}, **values(thing)}
        for name, number in everything.items():
            if isinstance(number, Tensor) and number.is_floating_point() and not bool(number.isfinite().all()):
                raise ConformanceError(f"{s.who} has a {name} that is not finite after {call.what}")
        if first_difference(before, _trained(thing)) is None:
            raise ConformanceError(f"{s.who} learns nothing: {call.what} changes no parameter")


def saving(s: Learner) -> None:
    """A fresh instance that loads the saved state is the same in all tensors, does the same, and learns on alike."""
    thing, fresh, learnt = s.make(), s.make(), []
    for call in s.updates(thing, UPDATES):
        call.run(thing)
        learnt.append(call)
    tensors: dict[str, Tensor] = {}
    try:
        saved = tree.encode(thing.state_dict(), tensors)
    except TypeError as error:
        raise ConformanceError(f"{s.who} has a state_dict that cannot be saved: {error}") from error
    before = values(fresh)
    fresh.load_state_dict(tree.decode(saved, snapshot(tensors)))
    after, kind = values(fresh), s.who.rpartition(" ")[0]
    for path, value in before.items():
        if isinstance(value, torch.nn.Parameter) and after.get(path) is not value:
            mend = "copy into the live tensor, which the optimiser holds"
            raise ConformanceError(f"{s.who} replaces {path} in load_state_dict: {mend}")
    if forgotten := first_difference(values(thing), after):
        raise ConformanceError(
            f"{s.who} forgets {forgotten} in state_dict or load_state_dict: after {len(learnt)} updates it is not the "
            f"same in a fresh {kind} that loaded the saved state"
        )
    for call in [*s.uses(thing), *learnt]:
        one, two = (outcome(call, each) for each in (thing, fresh))
        if changed := first_difference(one, two) or first_difference(values(thing), values(fresh)):
            raise ConformanceError(
                f"{s.who} goes on differently after its saved state was loaded into a fresh {kind}: {changed} is not "
                "the same, so what decides it is not in state_dict"
            )


def batches(s: Learner, thing: Any, stream: Stream | DataStream, count: int) -> Iterator[Call]:
    """The first updates of each phase, on what the trainer's own sources give; rare work follows the first one."""
    for phase in thing.phases():
        if isinstance(phase.source, Own):
            continue  # its rounds need an env that has a name
        try:
            source = make_source(phase, stream)
        except UsageError as error:
            raise ConformanceError(f"{s.who} cannot be trained: {error}") from error
        began, given = stream.rows, 0
        while given < count:
            if stream.rows - began > ROWS:
                raise ConformanceError(f"{s.who} gets no batch in phase {phase.name!r} within {ROWS:,} rows")
            if (batch := source.next()) is None or ("weight" in batch and not bool(batch["weight"].any())):
                continue  # no update is owed, or no row of it counts
            yield _update(phase.name, {name: value.clone() for name, value in batch.items()})
            given += 1
            for _, call in phase.periodic if given == 1 else ():
                call()


def outcome(call: Call, thing: Any) -> dict[str, Tensor]:
    """What a call gives, by name, always on the same random numbers."""
    seeding.seed_all(SEED)
    return snapshot(leaves(call.run(thing), call.gives))


def _update(phase: str, batch: dict[str, Tensor]) -> Call:
    def run(thing: Any) -> Any:
        of = next(each for each in thing.phases() if each.name == phase)
        metrics = of.update(dict(batch))
        for _, call in of.delayed:
            call(dict(batch))
        return metrics

    return Call(f"the update of phase {phase!r}", run, leaves(batch, "the batch"), "the update")


def _trained(thing: Any) -> dict[str, Tensor | float]:
    """The parameters that are to be trained; where there are none, all tensors of floats; else whatever it holds."""
    found = values(thing)
    floats = {path: v for path, v in found.items() if isinstance(v, Tensor) and v.is_floating_point()}
    parameters = {path: v for path, v in floats.items() if isinstance(v, torch.nn.Parameter) and v.requires_grad}
    return {**(parameters or floats or found)}
