"""A run's directory: its name, what stands in it from the start, and whether a checkpoint in it fits."""

from __future__ import annotations

import fcntl
import json
import platform
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import count
from pathlib import Path
from typing import get_args

import yaml
from packaging.requirements import Requirement

from rlgan import config, envfile
from rlgan.core.capture import Captured
from rlgan.discovery import KINDS
from rlgan.errors import PluginError, RlganError, UsageError
from rlgan.registry import Registry
from rlgan.report import record
from rlgan.runconfig import ROLES, Run, plain, read_file
from rlgan.store.checkpoint import Checkpoint, stored
from rlgan.store.durable import MAX_BYTES, is_count
from rlgan.store.state import MISFIT, OtherData, reason

MAX_THREADS = 4096
PACKAGES = ("rlgan", "torch", "numpy", "gymnasium", "ale-py")


def new_name(run: Run) -> str:
    """Name a directory under runs by learner, env or data, seed and the time, which is no run's yet."""
    name = run.world.name
    pair = f"{run.learner.name}-{Path(name).stem if envfile.is_file(name) else name}"
    made = f"runs/{re.sub('[:/ ]', '-', pair)}-s{run.config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    return next(each for n in count(1) if not Path(each := made if n == 1 else f"{made}-{n}").exists())


def versions(run: Run) -> dict[str, str]:
    """Return the versions that the numbers of a run depend on; a package that is absent is left out."""
    found = {"python": platform.python_version()}
    extras = {part.spec.extra for part in run.parts.values()} - {None}
    needs = [Requirement(line) for line in requires("rlgan") or ()]
    more = [need.name for need in needs for name in extras if need.marker and need.marker.evaluate({"extra": name})]
    for name in dict.fromkeys((*PACKAGES, *sorted(more))):
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
    registry = Registry()
    _check_plugins(folder, registry)
    env = str(read_file(str(path)).get("env", ""))
    if envfile.is_file(env):
        registry.allow(env, envfile.kept(folder))
    return placed(config.load_file(path, registry), folder)


@contextmanager
def begun(run: Run, folder: Path) -> Iterator[None]:
    """Hold the directory of a run that begins, with its config, versions, and env file if it has one.

    UsageError: another run began there in the meantime.
    """
    record.prepare_directory(folder)
    with locked(folder):
        check_free(folder)
        _describe(run, folder)
        yield


def check_free(folder: Path) -> None:
    """UsageError where a run is in the folder already."""
    if (folder / "config.yaml").exists():
        raise UsageError(f"{folder} already holds a run: write another dir=, or `rlgan resume {quoted(folder)}`")


def lengthened(run: Run, saved: Checkpoint, folder: Path, steps: int) -> Run:
    """The run with other ``steps``. UsageError: it has made them already."""
    if steps <= saved.step:
        raise UsageError(f"the run in {folder} is at step {saved.step:,}: write steps= above that, or leave it out")
    return replace(run, config=replace(run.config, steps=steps), as_preset=False)


def quoted(folder: Path) -> str:
    """A folder as a shell takes it."""
    return shlex.quote(str(folder))


def _describe(run: Run, folder: Path) -> None:
    found = json.dumps({**versions(run), "plugins": _plugins(run)}, indent=1)
    try:
        (folder / "versions.json").write_text(found + "\n", encoding="utf-8")
        if source := getattr(run.world.spec, "source", None):
            envfile.keep(source, folder)
    except OSError as error:
        raise _unwritten(folder, error) from error
    write_config(run, folder)


def write_config(run: Run, folder: Path) -> None:
    """Write what a run is asked to do, whole or not at all."""
    new = folder / "config.yaml.new"
    try:
        new.write_text(yaml.safe_dump(run.to_dict(), sort_keys=False), encoding="utf-8")
        new.replace(folder / "config.yaml")
    except OSError as error:
        raise _unwritten(folder, error) from error


def _unwritten(folder: Path, error: OSError) -> RlganError:
    return RlganError(f"the run directory {folder} could not be written: {error.strerror or error}")


def _plugins(run: Run) -> dict[str, str]:
    """Where each plugin of a run comes from: ``agents.dqn`` to ``rlgan==0.1.0``."""
    names = [("hooks", name) for name in run.config.trackers]
    parts = [part for part in run.parts.values() if not getattr(part.spec, "source", None)]
    names += [(part.spec.kind, part.name.partition(":")[0]) for part in parts]
    registry = Registry()
    entries = [registry.find(kind, name) for kind, name in names]
    return {f"{entry.kind}.{entry.name}": f"{entry.distribution}=={entry.version}" for entry in entries}


def _check_plugins(folder: Path, registry: Registry) -> None:
    """Say what to install where a plugin of the run is not there any more."""
    try:
        plugins = json.loads((folder / "versions.json").read_text(encoding="utf-8")).get("plugins", {}).items()
    except (OSError, ValueError, AttributeError):  # damaged: the config names the plugins too, but no packages
        return
    for word, package in plugins:
        kind, _, name = word.partition(".")
        # a kind that is none is damage as well
        if kind in KINDS and name not in [entry.name for entry in registry.names(kind)]:
            raise PluginError(
                f"the run in {folder} needs the {KINDS[kind]} '{name}' of {package}, which is not installed: "
                f'pip install "{package}"'
            )


def placed(run: Run, folder: Path) -> Run:
    """Return the run with its directory filled in, where a ``~`` that no shell has read is the home folder."""
    return replace(run, config=replace(run.config, dir=str(folder.expanduser())))


def last_saved(folder: Path, again: bool = False) -> str:
    """What there is to go on from, in a sentence; with the command where going on may help, ``again``."""
    try:
        found = stored(folder / "checkpoints")
    except OSError as error:  # a folder that is gone hides no other error
        return f"its checkpoints cannot be listed: {error.strerror or error}"
    hint = f", go on with: rlgan resume {quoted(folder)}" if again else ""
    return f"the last checkpoint is {found[0]}{hint}" if found else "there is no checkpoint yet"


_INFO = {
    "device": lambda value: value in ("cpu", "cuda"),
    "capture": lambda value: value in get_args(Captured),
    "steps": lambda value: is_count(value, 2**63 - 1),
    "threads": lambda value: is_count(value, MAX_THREADS) and value > 0,
    "record_length": lambda value: is_count(value, MAX_BYTES),
    "wall": lambda value: isinstance(value, float),
    "versions": lambda value: (
        isinstance(value, dict) and all(type(text) is str for item in value.items() for text in item)
    ),
}
"""What a run is gone on with, and what each may be."""


def check_same(saved: Checkpoint, run: Run, folder: Path) -> None:
    """Refuse a checkpoint of other plugins, or one that does not say how it was made."""
    saved.info.setdefault("steps", run.config.steps)  # of checkpoints from before a run could be made longer
    for key, sound in _INFO.items():
        if key not in saved.info or not sound(saved.info[key]):
            value = saved.info.get(key, "missing")
            raise UsageError(f"the checkpoint {saved.path} is refused: its {key} is {value!r:.60}")
    for role in ROLES:
        of, value = saved.info.get(role, ""), getattr(run.config, role)
        if of != value:
            raise UsageError(f"the checkpoint in {folder} is of {role}={of}, but config.yaml says {role}={value}")


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
def fitting(saved: Checkpoint, run: Run, folder: Path) -> Iterator[None]:
    """Say which data or settings are to blame when a state does not load: they were changed since it was saved."""
    try:
        yield
    except OtherData as error:
        kind = "data" if "generator" in run.parts else "env"
        settings = plain(run.world.config).items()
        files = [f"{kind}.{key}={value}" for key, value in settings if isinstance(value, str) and _is_file(value)]
        named = f" ({', '.join(files)})" if files else ""
        raise UsageError(
            f"the run in {folder} was trained on data of {error.then!r:.200}, and {kind}={run.world.name} now has data "
            f"of {error.now!r:.200}{named}: put back what was there, and write other data to a file of its own, or "
            "train a new run"
        ) from error
    except MISFIT as error:
        raise UsageError(
            f"the checkpoint {saved.path} does not fit the settings in {folder / 'config.yaml'} ({reason(error)}): "
            "put back those that it was made with"
        ) from error


def _is_file(text: str) -> bool:
    return Path(text).expanduser().is_file()


def resumed(saved: Checkpoint, now: dict[str, str], exact: bool, steps: int) -> str:
    """Say from where a run of ``steps`` goes on, and whether as it would have without a break."""
    old, new = ({k: v for k, v in found.items() if k != "python"} for found in (saved.info["versions"], now))
    names = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    doubts = [f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}" for name in names]
    if saved.info["steps"] != steps:
        doubts.append(f"steps was {saved.info['steps']:,} and is {steps:,}")
    if not exact:
        doubts.append("deterministic=false")
    if doubts:
        return f"resumed from step {saved.step:,}, not exactly: {', '.join(doubts)}"
    return f"resumed exactly from step {saved.step:,}"
