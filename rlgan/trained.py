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


@dataclass(frozen=True)
class Trained:
    """What a directory's newest checkpoint holds."""

    run: Run
    learner: Any
    normaliser: Normaliser | None
    """By which an agent sees observations."""
    env: Any
    """A closed one of the run's kind; None of a generator."""
    device: torch.device

    def acting(self, env: Any) -> Callable[..., Any]:
        """The agent's ``act`` in an env."""
        return assembly.acting(self.run, self.learner, env, self.normaliser)


def load(folder: Path, device: str | None = None, temperature: float | None = None) -> Trained:
    """Load the newest checkpoint of a directory. Takes no random number of the program's.

    ``temperature`` divides the logits of a generator of sequences; UsageError where it has none.
    """
    run = rundir.load(folder)
    saved = checkpoint.newest(folder / "checkpoints", segments=False)
    rundir.check_same(saved, run, folder)
    where, env, normaliser = assembly.pick_device(device or run.config.device), None, None
    with seeding.fork(0, where):
        if "generator" in run.parts:
            learner = assembly.build_generator(run, assembly.build_data(run), where)
        else:
            env = assembly.build_env(run, 1, where, 0, barrier=0)
            env.close()
            learner = assembly.build_agent(run, env, where)
            normaliser = assembly.build_normaliser(run, env, where)
    with rundir.fitting(saved, folder):
        learner.load_state_dict(saved.tree["learner"])
        if normaliser is not None:
            normaliser.load_state_dict(saved.tree["stream"]["normaliser"])
    if temperature is not None:
        if not hasattr(learner, "temperature"):
            raise UsageError(f"{run.learner.name} in {folder} has no temperature: leave it out")
        learner.temperature = temperature
    return Trained(run, learner, normaliser, env, where)
