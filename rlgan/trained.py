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
from rlgan.runconfig import Run
from rlgan.store import checkpoint
from rlgan.store.state import same_data


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
    with rundir.fitting(saved, run, folder):
        if env is not None:  # a simulator's state says nothing of data
            now = getattr(env, "protocol", "")
            same_data(saved.tree["stream"]["env"].get("protocol", now), now)
        learner.load_state_dict(saved.tree["learner"])
        if normaliser is not None:
            normaliser.load_state_dict(saved.tree["stream"]["normaliser"])
    if temperature is not None:
        if not hasattr(learner, "temperature"):
            raise UsageError(f"{run.learner.name} in {folder} has no temperature: leave it out")
        learner.temperature = temperature
    return Trained(run, learner, normaliser, env, data, where, saved.step)
