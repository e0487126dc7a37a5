"""What was learned, back from a run's directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlgan import assembly, rundir
from rlgan.core import seeding
from rlgan.errors import UsageError
from rlgan.nn.normalise import Normaliser
from rlgan.runconfig import Run, plain
from rlgan.store import checkpoint


@dataclass(frozen=True)
class Trained:
    """What a checkpoint of a directory holds."""

    run: Run
    learner: Any
    normaliser: Normaliser | None
    """By which an agent sees observations."""
    env: Any
    """A closed one of the run's kind; None of a generator."""
    data: Any
    """What a generator learned from; None of an agent."""
    device: torch.device
    step: int
    """Of the checkpoint."""

    def acting(self, env: Any) -> Callable[..., Any]:
        """The agent's ``act`` in an env."""
        return assembly.acting(self.run, self.learner, env, self.normaliser)


def load(
    folder: Path, device: str | None = None, temperature: float | None = None, which: str = checkpoint.NEWEST
) -> Trained:
    """Load a checkpoint of a directory, as `checkpoint.chosen` names it. Takes no random number of the program's.

    ``temperature`` divides the logits of a generator of sequences; UsageError where it has none, and where the data of
    the run is not what it was.
    """
    run = rundir.load(folder)
    saved = checkpoint.chosen(folder / "checkpoints", which)
    rundir.check_same(saved, run, folder)
    where, env, data, normaliser = assembly.pick_device(device or run.config.device), None, None, None
    with seeding.fork(0, where):
        if "generator" in run.parts:
            data = assembly.build_data(run)
            learner = assembly.build_generator(run, data, where)
        else:
            env = assembly.build_env(run, 1, where, 0, barrier=0)
            env.close()
            learner = assembly.build_agent(run, env, where)
            normaliser = assembly.build_normaliser(run, env, where)
    with rundir.fitting(saved, folder):
        if env is not None:
            _check_data(saved.tree["stream"]["env"], run, env, folder)
        learner.load_state_dict(saved.tree["learner"])
        if normaliser is not None:
            normaliser.load_state_dict(saved.tree["stream"]["normaliser"])
    if temperature is not None:
        if not hasattr(learner, "temperature"):
            raise UsageError(f"{run.learner.name} in {folder} has no temperature: leave it out")
        learner.temperature = temperature
    return Trained(run, learner, normaliser, env, data, where, saved.step)


def _check_data(played: dict[str, Any], run: Run, env: Any, folder: Path) -> None:
    """Refuse to go on where an env plays other data than its saved state says; simulators' say nothing of data."""
    now = getattr(env, "protocol", "")
    then = played.get("protocol", now)
    if then == now:
        return
    settings = plain(run.world.config).items()
    files = [
        f"env.{key}={value}" for key, value in settings if isinstance(value, str) and Path(value).expanduser().is_file()
    ]
    named = f" ({', '.join(files)})" if files else ""
    raise UsageError(
        f"the run in {folder} was trained on data of {then!r:.200}, and env={run.world.name} now plays data of '{now}'"
        f"{named}: put back what was there, and write other data to a file of its own, or train a new run"
    )
