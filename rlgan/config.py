"""What was asked: words, files and presets become one checked, immutable `Run` per cell of the matrix."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, cast

from rlgan import envfile, overrides, schema
from rlgan.errors import PluginError, UsageError
from rlgan.registry import Registry, nearest, suggestion
from rlgan.runconfig import FAMILIES, ROLES, Part, Run, RunConfig, read_file
from rlgan.schema import Key
from rlgan.specs import LEARNS_NOTHING, AgentSpec, EnvSpec, LearnerSpec, Preset, Spec


@dataclass
class Draft:
    """A run while it is being resolved; lacks what was not asked for or cannot be known."""

    cell: overrides.Cell
    keys: dict[str, Key]
    values: dict[str, Any]
    origins: dict[str, str]
    problems: list[str]
    specs: dict[str, Spec] = field(default_factory=dict)
    """By role; of the plugins that are named and can be used."""
    arguments: dict[str, str] = field(default_factory=dict)
    """By role; what follows the colon of a family."""
    preset: Preset | None = None
    tuned: dict[str, Any] = field(default_factory=dict)
    """All values as the preset has them."""


SCORED = ("agent.", "generator.", "env.", "data.", "reward", "normalise.", "steps", "copies")
"""How keys begin that scores depend on."""
OF_ENVS = ("copies", "groups", "barrier.every", "timeout", "eval.episodes", "normalise.obs", "normalise.reward")
"""Keys that mean nothing to a generator."""

Layer = tuple[str, Mapping[str, Any], bool]
"""Origin, dotted key to value, and whether the values are typed (a file's, a preset's) or text."""


def resolve(words: Sequence[str], registry: Registry) -> list[Run]:
    """One run for each cell of the matrix that the words ask for.

    Raises:
        UsageError: one line for each thing that is wrong.
        PluginError: a plugin that is named cannot be used.
    """
    cells, files = _read(words)
    problems: list[str] = []
    runs = [_finish(_draft(cell, files, registry), problems) for cell in cells]
    _refuse(problems)
    return _apart([cast(Run, run) for run in runs], cells)


def resolve_one(words: Sequence[str], registry: Registry) -> Run:
    """As `resolve`, for words that ask for exactly one run."""
    runs = resolve(words, registry)
    if len(runs) != 1:
        raise UsageError(f"this needs one run and the words ask for {len(runs)}: give one value for each key.")
    return runs[0]


def load_file(path: Path, registry: Registry) -> Run:
    """The run of a run directory's ``config.yaml``; its ``dir`` is that directory."""
    run = resolve_one([f"@{path}"], registry)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, dir=str(Path(path).parent)))


def draft(words: Sequence[str], registry: Registry) -> Draft:
    """The first cell's keys with values and origins, also where agent or env are not named yet (for help)."""
    cells, files = _read(words)
    found = _draft(cells[0], files, registry)
    _refuse(found.problems)
    return found


def read_options(words: Sequence[str], cls: type) -> Any:
    """Read ``key=value`` words into a small dataclass, for commands other than run."""
    keys = schema.keys(cls)
    cells, problems = overrides.expand([_as_text(word, keys) for word in words])
    if not problems and (len(cells) != 1 or cells[0].files):
        problems.append("this command takes one value for each key and no files.")
    _refuse(problems)
    values = {name: key.default for name, key in keys.items()}
    _take(("command line", cells[0].settings, False), keys, values, {}, problems)
    _refuse(problems)
    return schema.build(cls, values)


def _as_text(word: str, keys: Mapping[str, Key]) -> str:
    """A word whose key takes any text, in quotes: its commas and apostrophes are part of it."""
    name, _, text = word.partition("=")
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return f"{name}={schema.show(text)}" if name in keys and keys[name].hint is str and not quoted else word


def agents_that_can(registry: Registry, observation_space: Any, action_space: Any, model: bool = False) -> list[str]:
    """Names of the usable agents that learn in an env with these spaces, and perhaps a model. Imports every agent."""
    found = ((name, cast(AgentSpec, spec)) for name, spec in _usable(registry, "agents"))
    able = ((name, spec) for name, spec in found if LEARNS_NOTHING not in spec.tags and (model or not spec.plans))
    return [name for name, spec in able if spec.refuses(observation_space, action_space) is None]


def envs_with_a_model(registry: Registry) -> list[str]:
    """Names of the usable envs whose factory is a class with ``model()``. Imports every env."""
    return [name for name, spec in _usable(registry, "envs") if hasattr(cast(EnvSpec, spec).factory, "model")]


def _usable(registry: Registry, kind: str) -> Iterator[tuple[str, Spec]]:
    for entry in registry.names(kind):
        with suppress(PluginError, UsageError):  # an unusable plugin is not among those that can
            yield entry.name, registry.get(kind, entry.name)


def _draft(cell: overrides.Cell, files: Mapping[str, Mapping[str, Any]], registry: Registry) -> Draft:
    """Names first, without imports; then, where they are right, every key of the run and of each of its plugins."""
    layers: list[Layer] = [(f"file {name}", files[name], True) for name in cell.files]
    layers.append(("command line", cell.settings, False))
    keys = schema.keys(RunConfig)
    found = Draft(cell, keys, {n: k.default for n, k in keys.items()}, dict.fromkeys(keys, "default"), [])
    if envfile.is_file(own := cell.settings.get("env", "")):
        registry.allow(own, Path(own))
    named: dict[str, str] = {}
    for _, settings, typed in layers:
        given = [key for key in (*ROLES, "preset") if key in settings]
        named |= {key: str(schema.convert(settings[key], str, typed)) for key in given}
    named = {key: name for key, name in named.items() if name}
    roles = [role for role in ROLES if role in named]
    for role in roles:
        name = named[role].partition(":")[0] if role in FAMILIES else named[role]
        _collect(found, registry.find, ROLES[role], name)
    if not found.problems:
        _collect(found, _load, found, named, registry)
    if found.preset:
        layers.insert(0, (f"preset {found.preset.name}", found.preset.values, True))
    unjudged = tuple(f"{role}." for role in {*_pair(roles), *roles} - found.specs.keys())
    for origin, settings, typed in layers:
        judged = {name: value for name, value in settings.items() if not name.startswith(unjudged)}
        _take((origin, judged, typed), found.keys, found.values, found.origins, found.problems)
        if found.preset and settings is found.preset.values:
            found.tuned = dict(found.values)
    for name in found.values["trackers"]:
        _collect(found, registry.find, "hooks", name)
    return found


def _collect(found: Draft, call: Callable[..., Any], *args: Any) -> None:
    """Call, and add a user's error to the draft's problems."""
    try:
        call(*args)
    except UsageError as error:
        found.problems.append(str(error))


def _load(found: Draft, named: Mapping[str, str], registry: Registry) -> None:
    """Import the plugins that are named, add their keys, and choose the preset."""
    for role in (role for role in ROLES if role in named):
        if role in FAMILIES:
            found.specs[role], found.arguments[role] = registry.get_named(ROLES[role], named[role])
        else:
            found.specs[role] = registry.get(ROLES[role], named[role])
        _add_keys(found, role, found.specs[role])
    learner, world = _pair(role for role in ROLES if role in named)
    if learner in named and world in named:
        names = {found.specs[world].name, named[world]}
        spec = cast(LearnerSpec, found.specs[learner])
        found.preset = _preset(named.get("preset", "auto"), spec, names, found.problems)


def _add_keys(found: Draft, role: str, spec: Spec) -> None:
    try:
        keys = schema.keys(spec.config, f"{role}.")
    except (NameError, TypeError) as error:
        raise PluginError(f"{role} '{spec.name}' is broken: the types of its config cannot be read: {error}") from error
    found.keys.update(keys)
    found.values.update({name: key.default for name, key in keys.items()})
    found.origins.update(dict.fromkeys(keys, "default"))


def _preset(name: str, learner: LearnerSpec, worlds: set[str], problems: list[str]) -> Preset | None:
    if name == "none":
        return None
    if name == "auto":
        return next((preset for preset in learner.presets if preset.default and preset.env in worlds), None)
    # one name may stand for settings of several envs: the first is for all others
    fitting = sorted(reversed(learner.presets), key=lambda preset: preset.env in worlds)
    by_name = {preset.name: preset for preset in fitting}
    if name not in by_name:
        known = ", ".join(f"{preset.name} ({preset.env})" for preset in learner.presets)
        problems.append(
            f"unknown preset '{name}' of {learner.kind[:-1]} '{learner.name}'{suggestion(name, by_name)} "
            f"There are auto, none, {known}."
        )
    return by_name.get(name)


def _take(
    layer: Layer, keys: Mapping[str, Key], values: dict[str, Any], origins: dict[str, str], problems: list[str]
) -> None:
    """Read a layer's values over those that are there."""
    origin, settings, typed = layer
    for name, value in settings.items():
        if name not in keys:
            problems.append(_unknown(name, keys, "" if origin == "command line" else f" ({origin})"))
            continue
        try:
            values[name] = schema.read(keys[name], value, typed, "" if origin == "command line" else origin)
        except UsageError as error:
            problems.append(str(error))
        origins[name] = origin


def _unknown(name: str, keys: Mapping[str, Key], where: str) -> str:
    role, dot, _ = name.partition(".")
    if dot and role in keys and role in ROLES and not any(key.startswith(f"{role}.") for key in keys):
        return f"{name}{where} is a key of a plugin that is not named: write {role}=NAME beside it."
    inside = [key for key in keys if key.startswith(f"{name}.")]
    if inside:
        return f"{name}{where} is a group of keys: write one of {', '.join(inside)}."
    group, _, short = name.rpartition(".")
    shorts = {key.rpartition(".")[2]: key for key in keys}
    beside = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == group}
    if group and beside:
        guess = shorts.get(short) or beside.get(nearest(short, beside) or "")
    else:  # the group is misspelt or forgotten
        exact = None if group else shorts.get(short)
        guess = exact or nearest(name, keys) or shorts.get(nearest(short, shorts) or "")
    if not guess:
        those = [key for key in keys if key.startswith(f"{group}.")] if group else []
        return f"unknown key '{name}'{where}. Keys are {', '.join(those or keys)}."
    doc = f" {keys[guess].doc}" if keys[guess].doc else ""
    return f"unknown key '{name}'{where}: did you mean '{guess}' ({keys[guess].brief})?{doc}"


def _finish(found: Draft, problems: list[str]) -> Run | None:
    """The draft as a run; None, with the reasons added to problems, where it is not complete."""
    if not found.problems:
        missing = [key for key in found.keys.values() if found.values[key.name] is MISSING]
        found.problems += [f"{key.name} is missing: write {key.name}=VALUE ({key.type}). {key.doc}" for key in missing]
        found.problems += _roles(found)
    if found.problems:
        problems += found.problems
        return None
    built: dict[str, Any] = {}
    for role, cls in {"run": RunConfig, **{role: spec.config for role, spec in found.specs.items()}}.items():
        try:
            built[role] = schema.build(cls, found.values, "" if role == "run" else f"{role}.")
        except ValueError as error:  # a dataclass judges its fields together in __post_init__
            problems.append(f"{role if role == 'run' else role + '=' + found.values[role]}: {error}")
    if problems:
        return None
    parts = {
        role: Part(found.values[role], spec, built[role], found.arguments.get(role, ""))
        for role, spec in found.specs.items()
    }
    scored = [key for key in found.values if key.startswith(SCORED)]
    as_preset = found.preset is not None and all(found.values[key] == found.tuned[key] for key in scored)
    return Run(built["run"], parts, found.preset, found.origins, found.cell.words, as_preset)


def _pair(named: Iterable[str]) -> tuple[str, str]:
    """The two roles that the run must have: an agent learns in an env, a generator from data."""
    named = set(named)
    return ("generator", "data") if "generator" in named or named == {"data"} else ("agent", "env")


def _roles(found: Draft) -> list[str]:
    """What is wrong with the combination of plugins."""
    learner, world = pair = _pair(found.specs)
    missing = [role for role in pair if role not in found.specs]
    odd = [role for role in found.specs if role not in (*pair, "reward" if learner == "agent" else learner)]
    problems = [f"{role} is missing: write {role}=NAME. {found.keys[role].doc}" for role in missing]
    problems += [f"{role} does not go with {learner}: write {learner}=NAME {world}=NAME." for role in odd]
    if learner == "generator":
        given = [key for key in OF_ENVS if found.origins[key] == "command line"]
        problems += [f"{key} is for runs in an env: leave it out." for key in given]
    return problems


def _apart(runs: list[Run], cells: Sequence[overrides.Cell]) -> list[Run]:
    """Give runs of a matrix that share one ``dir`` a directory each inside it."""
    shared = Counter(run.config.dir for run in runs if run.config.dir)
    moved = []
    for run, cell in zip(runs, cells, strict=True):
        if shared[run.config.dir] > 1:
            varied = [word for word in cell.varied if not word.startswith("dir=")]
            path = Path(run.config.dir) / re.sub(r"[^\w.=,-]+", "-", "_".join(varied))
            words = (*(word for word in run.overrides if not word.startswith("dir=")), f"dir={schema.show(path)}")
            run = dataclasses.replace(run, config=dataclasses.replace(run.config, dir=str(path)), overrides=words)
        moved.append(run)
    return moved


def _read(words: Sequence[str]) -> tuple[list[overrides.Cell], dict[str, dict[str, Any]]]:
    """The cells that the words ask for, and the files that they name."""
    cells, problems = overrides.expand(words)
    files: dict[str, dict[str, Any]] = {}
    for name in (word[1:] for word in words if word.startswith("@")):
        try:
            files[name] = read_file(name)
        except UsageError as error:
            problems.append(str(error))
    _refuse(problems)
    return cells, files


def _refuse(problems: Iterable[str]) -> None:
    """UsageError if there are any, one line each."""
    if lines := list(dict.fromkeys(problems)):
        raise UsageError("\n".join(lines))
