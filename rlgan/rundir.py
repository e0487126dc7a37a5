"""A run's directory: its name, what stands in it from the start, and whether a checkpoint in it fits."""

from __future__ import annotations

import fcntl
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from rlgan import config
from rlgan.errors import RlganError, UsageError
from rlgan.registry import Registry
from rlgan.report import record
from rlgan.runconfig import Run
from rlgan.store.checkpoint import Checkpoint
from rlgan.store.durable import MAX_BYTES, is_count

MAX_THREADS = 4096
PACKAGES = ("rlgan", "torch", "numpy", "gymnasium", "ale-py")


def new_name(run: Run) -> str:
    """Name a directory under runs by agent, env, seed and the time."""
    env = run.config.env.replace(":", "-").replace("/", "-")
    return f"runs/{run.config.agent}-{env}-s{run.config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on; a package that is absent is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load(folder: Path) -> Run:
    """Read back what a run directory was asked to do."""
    path = folder / "config.yaml"
    if not path.exists():
        raise UsageError(f"{folder} is not a run directory: it has no config.yaml")
    return placed(config.load_file(path, Registry()), folder)


def prepare(run: Run, folder: Path) -> None:
    """Make the directory of a run that is about to begin, with its config and versions."""
    record.prepare_directory(folder)
    try:
        (folder / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n", encoding="utf-8")
        (folder / "config.yaml").write_text(yaml.safe_dump(run.to_dict(), sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise RlganError(f"the run directory {folder} could not be written: {error.strerror or error}") from error


def placed(run: Run, folder: Path) -> Run:
    """Return the run with its directory filled in."""
    return replace(run, config=replace(run.config, dir=str(folder)))


_INFO = {
    "device": lambda value: value in ("cpu", "cuda"),
    "capture": lambda value: value in ("eager", "compile", "graph"),
    "threads": lambda value: is_count(value, MAX_THREADS) and value > 0,
    "record_length": lambda value: is_count(value, MAX_BYTES),
    "wall": lambda value: isinstance(value, float),
    "versions": lambda value: (
        isinstance(value, dict) and all(type(text) is str for item in value.items() for text in item)
    ),
}
"""What a run is gone on with, and what each may be."""


def check_same(saved: Checkpoint, run: Run, folder: Path) -> None:
    """Refuse a checkpoint of another agent or env, or one that does not say how it was made."""
    for key, sound in _INFO.items():
        if key not in saved.info or not sound(saved.info[key]):
            value = saved.info.get(key, "missing")
            raise UsageError(f"the checkpoint {saved.path} is refused: its {key} is {value!r:.60}")
    for key, value in (("agent", run.config.agent), ("env", run.config.env)):
        if (of := saved.info.get(key)) != value:
            raise UsageError(f"the checkpoint in {folder} is of {key}={of}, but config.yaml says {key}={value}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run directory alone: two writers would cut each other's record. After kill -9 the kernel frees it."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder} is being written by another rlgan process: wait for its end or stop it"
            ) from None
        yield


@contextmanager
def fitting(saved: Checkpoint, folder: Path) -> Iterator[None]:
    """Say which settings are to blame when a state does not load: they were changed since it was saved."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise UsageError(
            f"the checkpoint {saved.path} does not fit the settings in {folder / 'config.yaml'} ({reason}): "
            "put back those that it was made with"
        ) from error


def resumed(saved: Checkpoint, exact: bool) -> str:
    """Say from where a run goes on, and whether as it would have without a break."""
    old, new = ({k: v for k, v in found.items() if k != "python"} for found in (saved.info["versions"], versions()))
    names = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    doubts = [f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}" for name in names]
    if not exact:
        doubts.append("deterministic=false")
    if doubts:
        return f"resumed from step {saved.step:,}, not exactly: {', '.join(doubts)}"
    return f"resumed exactly from step {saved.step:,}"
