"""A new plugin package, copied from the template that ships with rlgan."""

from __future__ import annotations

import importlib.util
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from rlgan.errors import UsageError
from rlgan.registry import Registry

_TRY = {
    "env": "rlgan run agent=dqn env={name} steps=20k agent.lr=1e-3",
    "agent": "rlgan run agent={name} env=cartpole",
    "generator": "rlgan run generator={name} data=digits",
}


def write(name: str, kind: str, where: Path, registry: Registry) -> Path:
    """Write the package ``rlgan-<name>`` into a folder of that name under ``where``, and return the folder.

    Raises:
        UsageError: the name is no identifier, or is taken by a folder, a plugin or a package.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise UsageError(
            f"'{name}' cannot be the name of a plugin: write lower-case letters, digits and single underscores, a "
            "letter first, as in my_shop."
        )
    dashed = name.replace("_", "-")
    folder = where / f"rlgan-{dashed}"
    if folder.exists():
        raise UsageError(f"{folder} exists already: take another name, or move it away.")
    for entry in registry.all():
        if entry.name in (name, dashed):
            raise UsageError(f"the name '{name}' is taken by the {entry}: take another one.")
    if importlib.util.find_spec(f"rlgan_{name}"):
        raise UsageError(f"the package rlgan_{name} is installed already: take another name.")
    camel = "".join(part.capitalize() for part in name.split("_"))
    words = {"PluginName": camel, "plugin_name": name, "plugin-name": dashed}
    _copy(files("rlgan_template") / kind, folder, words)
    return folder


def next_steps(folder: Path, name: str, kind: str) -> str:
    """The commands from there to a run that learns."""
    lines = [f"cd {folder}", 'pip install -e ".[dev]"', f"rlgan plugins check {kind}s.{name}", "pytest", _TRY[kind]]
    return "\n".join(f"  {line.format(name=name)}" for line in lines)


def _copy(source: Traversable, target: Path, words: dict[str, str]) -> None:
    """Copy a folder of text files, with words replaced in names and contents."""
    target.mkdir(parents=True)
    for item in source.iterdir():
        if item.name == "__pycache__":
            continue
        path = target / _replaced(item.name, words)
        if item.is_dir():
            _copy(item, path, words)
        else:
            path.write_text(_replaced(item.read_text(encoding="utf-8"), words), encoding="utf-8")


def _replaced(text: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda match: words[match[0]], text)
