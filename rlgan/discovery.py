"""What is installed: the names that distributions declare, read from their metadata alone."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

KINDS = {
    "agents": "agent",
    "envs": "env",
    "generators": "generator",
    "data": "data set",
    "rewards": "reward model",
    "hooks": "tracker",
}
"""Each kind of plugin, which is also the name of its entry-point group ``rlgan.<kind>``, with its noun."""


@dataclass(frozen=True)
class Entry:
    """One name that an installed distribution offers."""

    name: str
    kind: str
    distribution: str
    version: str
    module: str
    status: str = "installed"
    """``installed``, ``blocked``, ``duplicate``; after an import also ``ok``, ``broken``, ``extra missing``."""
    reason: str = ""
    """Why the status is a bad one."""

    def __str__(self) -> str:
        return f"{KINDS.get(self.kind, self.kind)} '{self.name}' from {self.distribution} {self.version}"


def discover() -> list[Entry]:
    """Read the entry points of every installed distribution, without importing any."""
    entries: list[Entry] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        text = distribution.read_text("entry_points.txt") or ""
        if "[rlgan." not in text:  # parsing the metadata of every package would cost most of the start-up time
            continue
        name, version = distribution.name or "unnamed", distribution.version or "?"
        if _normal(name) in seen:  # the first on sys.path is the one that would be imported
            continue
        seen.add(_normal(name))
        try:
            points = [point for point in distribution.entry_points if point.group.startswith("rlgan.")]
        except (TypeError, ValueError) as error:
            reason = f"its entry_points.txt cannot be read: {error}"
            entries.append(Entry("*", "unreadable", name, version, "", "broken", reason))
            continue
        entries += [
            Entry(point.name, point.group.removeprefix("rlgan."), name, version, point.value) for point in points
        ]
    return entries


def extra_with(distribution: str, module: str) -> str | None:
    """The extra of a distribution that holds a requirement of the module's name, or None."""
    wanted = _normal(module)
    for line in _requires(distribution):
        name, extra = re.match(r"[\w.-]+", line), re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", line)
        if name and extra and _normal(name[0]) == wanted:
            return extra[1]
    return None


def _requires(distribution: str) -> list[str]:
    try:
        return importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:  # an entry made by hand belongs to nothing that is installed
        return []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unmet(distribution: str, extra: str) -> list[str] | None:
    """Requirements of ``distribution[extra]`` that are not installed; None when the distribution has no such extra."""
    from packaging.requirements import Requirement

    wanted = [r for r in map(Requirement, _requires(distribution)) if r.marker and not r.marker.evaluate({"extra": ""})]
    wanted = [r for r in wanted if r.marker and r.marker.evaluate({"extra": extra})]
    if not wanted:
        return None
    missing = []
    for requirement in wanted:
        try:
            fits = requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            fits = False
        if not fits:
            missing.append(f"{requirement.name}{requirement.specifier}")
    return missing
