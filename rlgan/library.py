"""rlgan in a Python program: make an env, run as the command line does, load what was trained."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from rlgan import assembly, config, rundir, schema, session, trained
from rlgan.contract import check_rows
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.policy import Policy
from rlgan.registry import Registry
from rlgan.report import record
from rlgan.runconfig import flat
from rlgan.simulators.host import HostVecEnv
from rlgan.specs import EnvSpec
from rlgan.store.checkpoint import newest

NEVER = 1e9
"""Seconds: a program that makes its own envs is not ended when one hangs."""


@dataclass(frozen=True)
class Finished(os.PathLike[str]):
    """A run that reached its end. Stands for its directory wherever a path is taken, as in ``rlgan.load(finished)``."""

    dir: Path
    evaluation: dict[str, Any]
    """The last evaluation, with the keys of ``rlgan eval --json``."""

    def __fspath__(self) -> str:
        return str(self.dir)


def run(*words: str, **settings: Any) -> Finished:
    """Train to the end, as ``rlgan run`` does: ``rlgan.run(agent="dqn", env="cartpole", **{"agent.lr": 1e-4})``.

    Args:
        words: As on the command line, such as ``"@runs/x/config.yaml"``.
        settings: Keys of the command line with Python values, dotted or nested: ``eval={"episodes": 5}``.

    Raises:
        RlganError: What the command line would print as a sentence; its subclass says the kind.
        KeyboardInterrupt: Ctrl-C, after the run was saved.
        SystemExit: SIGTERM, after the run was saved.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("rlgan.run works in the main thread only, because it listens for Ctrl-C: call it there")
    asked = config.resolve_one([*words, *_words(settings)], Registry())
    asked = rundir.placed(asked, Path(asked.config.dir or rundir.new_name(asked)))
    with _process_kept(assembly.pick_device(asked.config.device)):
        code = session.train(asked)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code)
    folder = Path(asked.config.dir)
    row = next(row for row in reversed(record.read(folder / "metrics.jsonl")) if row["kind"] == "eval")
    result = {key: value for key, value in row.items() if key not in ("kind", "time")}
    if "data" in asked.parts:
        result |= {"protocol": f"{asked.world.name} {assembly.build_data(asked).protocol}"}
    else:
        scale = session.normalised(asked, row["return_mean"])
        played = newest(folder / "checkpoints", segments=False).tree["stream"]["env"]
        result |= {"normalised": scale, "protocol": session.protocol(asked, played.get("protocol", ""))}
    return Finished(folder, result)


def load(
    run_dir: str | os.PathLike[str], *, device: str | None = None, seed: int = 0, checkpoint: str | int = "newest"
) -> Policy:
    """Return the trained agent of a run directory as a function of NumPy observations.

    Args:
        run_dir: The directory. Where its env came from a file, the copy in it is executed.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``auto``; by default the run's.
        seed: Of the policy's own random numbers, where it plays at random.
        checkpoint: ``newest``, ``best`` (by its evaluation in the run), or the step of one that is kept.

    Raises:
        UsageError: It is no run directory, or has no such sound checkpoint.
        PluginError: The run's agent or env is not installed any more; the sentence says what to install.
    """
    found = trained.load(Path(run_dir), device, which=str(checkpoint))
    run, env = found.run, found.env
    if env is None:
        raise UsageError(
            f"{run_dir} holds the generator {run.learner.name}, which does not act: `rlgan sample` shows it"
        )
    if run.learner.spec.sees_state and isinstance(env, VecEnv):
        raise UsageError(
            f"{run_dir} holds the policy {run.learner.name}, which sees the env's true state and no observations: "
            f"`rlgan eval` and `rlgan watch` play it"
        )
    spaces = env.single_observation_space, env.single_action_space
    return Policy(found.learner, *spaces, found.device, seed, found.normaliser)


def make(name: str, /, n: int = 1, *, device: str = "auto", seed: int | None = None, **settings: Any) -> Any:
    """Make ``n`` copies of an env, as tensors: ``rlgan.make("cartpole", n=64, max_steps=200)``.

    Args:
        name: As in ``env=``: a name, ``family:argument``, or a file ending in ``.py``.
        n: Copies that step together.
        device: ``auto`` takes CUDA where there is one.
        seed: Fixes the env's random numbers; None draws them from torch's default generator.
        settings: Of the env, with or without the prefix ``env.``.

    Returns:
        A `VecEnv`, which is a Gymnasium VectorEnv of tensors; for simulators on the CPU a `HostVecEnv`.

    Raises:
        UsageError: Unknown name, key or value.
        PluginError: The plugin is broken or lacks its extra.
        EnvError: The env breaks its contract.
    """
    spec, argument, chosen = find_env(name, n, device, settings)
    where = assembly.pick_device(device)
    if not spec.host:
        pure = device_env(name, spec, chosen, n, where)
        with seeding.fork(0, where):
            env = VecEnv(pure, n, where, name=name)
        if seed is not None:
            env.reset(seed=seed)
        return env
    seed = int(torch.randint(2**31, ())) if seed is None else seed

    def simulator(copies: int) -> Any:
        return spec.factory(chosen, argument, copies, False)

    return HostVecEnv(simulator, n, where, seed=seed, barrier=0, timeout=NEVER, name=name)


def find_env(name: str, n: int, device: str, settings: dict[str, Any]) -> tuple[EnvSpec, str, Any]:
    """Judge what was asked for, and return the env's spec, what follows the colon of its name, and its config."""
    if not isinstance(n, int):
        raise UsageError(f"n={n!r} is no whole number: write how many copies step together, such as n=8")
    own = {key if key.startswith("env.") else f"env.{key}": value for key, value in settings.items()}
    found = config.draft(_words({"env": name, "copies": n, "device": device, **own}), Registry())
    spec = cast(EnvSpec, found.specs["env"])
    return spec, found.arguments["env"], schema.build(spec.config, found.values, "env.")


def device_env(name: str, spec: EnvSpec, chosen: Any, n: int, device: torch.device) -> Any:
    """Return the pure env after one checked step of ``n`` copies; takes no random number of the program's."""
    env = spec.factory(chosen, device, torch.float32)
    with seeding.fork(0, device):
        check_rows(env, n, device, name)
    return env


def _words(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={schema.show(value)}" for key, value in flat(settings).items()]


@contextmanager
def _process_kept(device: torch.device) -> Iterator[None]:
    """Put back what a run sets for the whole process: random generators, threads, and how the processor computes.

    That the allocator keeps freed memory stays; no result depends on it.
    """
    threads, flushes = torch.get_num_threads(), sys.float_info.min / 2 == 0.0
    exact, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with seeding.fork(0, device):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
        torch.use_deterministic_algorithms(exact, warn_only=warn)
