"""What runs of several seeds came to, as a table: read from run folders and from committed JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from rlgan import envfile, schema
from rlgan.bench import statistics
from rlgan.bench.statistics import Floats, Interval, bootstrap, number
from rlgan.errors import RlganError, UsageError
from rlgan.registry import Registry
from rlgan.report import record
from rlgan.runconfig import read_file
from rlgan.specs import EnvSpec, normalised

MEASURES = ("return_mean", "recognised")
"""What an evaluation is judged by: of an agent's games, of a generator's samples."""
PROBLEM = ("env.", "data.")
"""How the settings begin in which all runs of one problem agree, but for threads, on which no score depends."""
COMPETITOR = ("agent.", "generator.", "reward.", "normalise.", "steps", "copies")
"""How the settings begin by which two runs of one agent are two competitors."""
METHOD = (
    f"{statistics.CONFIDENCE:.0%} percentile intervals of a stratified bootstrap over seeds, "
    f"{statistics.RESAMPLES:,} resamples"
)


@dataclass(frozen=True)
class Result:
    """The last evaluation of one run."""

    agent: str
    """What learned, with its learned reward if it had one; of a generator its name."""
    env: str
    """Where, or from which data."""
    seed: int
    steps: int
    """At that evaluation."""
    score: float
    episodes: int
    """Games, or samples."""
    normalised: float | None = None
    """0 is random play, 1 the reference; None where the env has no scale."""
    problem: dict[str, Any] | None = None
    """Settings of the env or the data, by dotted key; None where they are unknown."""
    settings: dict[str, Any] | None = None
    """Those of what learned, and how long."""
    where: str = ""
    """The run's folder, or the file of results that has it."""


@dataclass(frozen=True)
class Row:
    """One agent in one env, over seeds; differences are None where there is no peer.

    Of a single run, or against one, an interval says nothing, and no table shows it.
    """

    env: str
    agent: str
    seeds: tuple[int, ...]
    steps: tuple[int, int]
    """The fewest and the most among the runs."""
    mean: Interval
    iqm: Interval
    reach: float | None
    reached: int | None
    """Seeds whose score is at least ``reach``."""
    peer: str | None = None
    peer_seeds: int = 0
    difference: Interval | None = None
    """Of the means, ours minus the peer's."""
    better: Interval | None = None
    """Probability that one of our runs beats one of the peer's."""


def read(path: Path) -> list[Result]:
    """The runs of a run folder, of a folder of run folders, or of a JSON file that `as_json` made.

    Raises:
        UsageError: there is none, or one is damaged, has no evaluation, is of text, or is there twice; or they are of
            different problems.
    """
    if not path.exists():
        raise UsageError(f"there is no {path}: give a run folder, a folder of some, or a JSON file of results.")
    if path.is_file():
        found = _from_json(path)
    else:
        folders = [path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))]
        found = [_from_folder(folder) for folder in folders if (folder / "config.yaml").is_file()]
    if not found:
        raise UsageError(f"{path} holds no runs: give a run folder, a folder of some, or a JSON file of results.")
    _same_problem(found)
    seen: set[tuple[str, str, int]] = set()
    for name, run in _named(found):
        if (key := (name, run.env, run.seed)) in seen:
            raise UsageError(
                f"{path} holds two runs of {name} on {run.env} with seed {run.seed}: give folders that hold one "
                "run of each seed, as in `rlgan compare FOLDER FOLDER`."
            )
        seen.add(key)
    return found


def table(paths: Sequence[Path], against: Path | None = None, reach: float | None = None) -> list[Row]:
    """A row for each agent and env of each path, and one more over all envs where every score has a scale.

    Runs of one agent with different settings are rows of their own. ``against`` holds the peer: runs of one agent in
    each env, with which ours are compared.

    Raises:
        UsageError: a path is named twice, holds what `read` refuses, or has runs of another problem than the rest.
    """
    _once([*paths, *([against] if against else [])])
    found = {path: read(path) for path in paths}
    others = read(against) if against else []
    _same_problem([*(run for runs in found.values() for run in runs), *others])
    peers: dict[str, list[Result]] = {}
    named: dict[str, set[str]] = {}
    for name, run in _named(others):
        peers.setdefault(run.env, []).append(run)
        named.setdefault(run.env, set()).add(name)
    for env, names in named.items():
        if len(names) > 1:
            raise UsageError(f"against={against} holds {' and '.join(sorted(names))} on {env}: give the folder of one.")
    groups: dict[tuple[Path, str], dict[str, list[Result]]] = {}
    for path in paths:
        for name, run in _named(found[path]):
            groups.setdefault((path, name), {}).setdefault(run.env, []).append(run)
    agents = [agent for _, agent in groups]
    rows = []
    for (path, agent), envs in groups.items():
        label = agent if agents.count(agent) == 1 else f"{agent} ({_short(path, paths)})"
        rows += [_row(env, label, {env: runs}, peers, reach) for env, runs in envs.items()]
        scaled = all(run.normalised is not None for runs in envs.values() for run in runs)
        if len(envs) > 1 and scaled and len({len(runs) for runs in envs.values()}) == 1:
            rows.append(_row(f"all {len(envs)}, normalised", label, envs, peers, None))
    return sorted(rows, key=lambda row: row.env)


def _once(paths: Sequence[Path]) -> None:
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{path} is named twice: name each folder once, so that no run counts twice.")


def _same_problem(runs: Iterable[Result]) -> None:
    """Refuse runs in envs, or from data, of one name with different settings."""
    first: dict[tuple[str, str], tuple[Any, str]] = {}
    for run in runs:
        for key, value in (run.problem or {}).items():
            known, where = first.setdefault((run.env, key), (value, run.where))
            if known != value:
                raise UsageError(
                    f"{where} has {key}={schema.show(known)} and {run.where} has {key}={schema.show(value)}: "
                    "compare runs of the same problem."
                )


def _named(runs: Sequence[Result]) -> list[tuple[str, Result]]:
    """Each run with the name of its competitor: the agent, and the settings by which its runs in that env differ."""
    values: dict[tuple[str, str, str], list[Any]] = {}
    for run in runs:
        for key, value in (run.settings or {}).items():
            if value not in (known := values.setdefault((run.agent, run.env, key), [])):
                known.append(value)
    named = []
    for run in runs:
        own = (run.settings or {}).items()
        differing = [f"{key}={schema.show(value)}" for key, value in own if len(values[run.agent, run.env, key]) > 1]
        named.append((" ".join([run.agent, *differing]), run))
    return named


def _short(path: Path, paths: Sequence[Path]) -> str:
    """The last part of a path, or all of it where another one ends alike."""
    names = [each.stem if each.is_file() else each.name for each in paths]
    name = names[paths.index(path)]
    return name if name and names.count(name) == 1 else str(path)


def _row(
    env: str, label: str, envs: dict[str, list[Result]], peers: dict[str, list[Result]], reach: float | None
) -> Row:
    scaled = len(envs) > 1
    runs = [run for group in envs.values() for run in group]
    ours = _matrix(envs.values(), scaled)
    steps = [run.steps for run in runs]
    row: dict[str, Any] = {
        "env": env,
        "agent": label,
        "seeds": tuple(sorted({run.seed for run in runs})),
        "steps": (min(steps), max(steps)),
        "mean": bootstrap(statistics.mean, ours),
        "iqm": bootstrap(statistics.iqm, ours),
        "reach": reach,
        "reached": None if reach is None else sum(run.score >= reach for run in runs),
    }
    others = [peers.get(name, []) for name in envs]
    sound = not scaled or (all(run.normalised is not None for group in others for run in group))
    if all(others) and len({len(group) for group in others}) == 1 and sound:
        theirs = _matrix(others, scaled)
        row |= {"peer": others[0][0].agent, "peer_seeds": len(theirs)}
        row["difference"] = bootstrap(statistics.difference(statistics.mean), ours, theirs)
        row["better"] = bootstrap(statistics.probability_of_improvement, ours, theirs)
    return Row(**row)


def _matrix(groups: Iterable[list[Result]], scaled: bool) -> Floats:
    """Scores (R, E) of equally many runs in each env."""
    return np.array([[run.normalised if scaled else run.score for run in group] for group in groups], np.float64).T


def markdown(rows: Sequence[Row]) -> str:
    """The table as it stands in a page of results."""
    peers = sorted({row.peer for row in rows if row.peer})
    reach = next((row.reach for row in rows if row.reach is not None), None)
    head = ["env", "agent", "steps", "seeds", "mean", "interquartile mean"]
    head += [f"at least {reach:g}"] if reach is not None else []
    head += [f"minus {' or '.join(peers)}", "better with probability"] if peers else []
    lines = [head, ["---"] * len(head)]
    for row in rows:
        low, high = row.steps
        single = len(row.seeds) == 1
        cells = [row.env, row.agent, f"{low:,}" if low == high else f"{low:,} to {high:,}", str(len(row.seeds))]
        cells += [_shown(each, single) for each in (row.mean, row.iqm)]
        if reach is not None:
            cells.append("" if row.reached is None else f"{row.reached} of {len(row.seeds)}")
        if peers:
            cells += [_shown(each, single or row.peer_seeds == 1) for each in (row.difference, row.better)]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\nIn brackets {METHOD}."


def _shown(interval: Interval | None, alone: bool) -> str:
    """An estimate with its interval; without one where it is of a single run."""
    if interval is None:
        return ""
    return number(interval.value) if alone else str(interval)


def as_json(rows: Sequence[Row], paths: Sequence[Path]) -> str:
    """The table, and the runs of all paths, which `read` takes back."""
    runs = [asdict(run) for path in paths for run in read(path)]
    tree = {"method": METHOD, "rows": [asdict(row) for row in rows], "runs": runs}
    return json.dumps(tree, indent=1)


def _from_folder(folder: Path) -> Result:
    settings = read_file(str(folder / "config.yaml"))
    try:
        agent = str(settings.get("agent") or settings["generator"])
        env = str(settings.get("env") or settings["data"])
        seed = int(settings["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder / 'config.yaml'} is not that of a run: {error} is missing or no number.") from error
    measure = MEASURES[0] if "agent" in settings else MEASURES[1]
    row = _last_evaluation(folder, measure)
    score = float(row[measure])
    agent += f" with {settings['reward']}" if settings.get("reward") else ""
    games = int(row.get("episodes", row.get("samples", 0)))
    problem = {key: value for key, value in settings.items() if key.startswith(PROBLEM) and key != "env.threads"}
    if (kept := folder / envfile.HASH).is_file():
        problem[envfile.KEPT] = f"sha256:{kept.read_text(encoding='utf-8')[:12]}"
    competitor = {key: value for key, value in settings.items() if key.startswith(COMPETITOR)}
    scaled = scale(env, score, settings)
    return Result(agent, env, seed, int(row["step"]), score, games, scaled, problem, competitor, str(folder))


def _last_evaluation(folder: Path, measure: str) -> dict[str, Any]:
    path = folder / "metrics.jsonl"
    if measure == MEASURES[1]:
        evaluations = [row for row in record.read(path) if row.get("kind") == "eval"]
        if evaluations and not any(measure in row for row in evaluations):
            raise UsageError(
                f"{folder} is a run of text, which no single score judges: compare it by "
                f"`rlgan eval {folder} temperatures=[0.5,0.7,1] against=OTHER`."
            )
    return record.last_evaluation(path, measure)


def scale(env: str, score: float, settings: Mapping[str, Any] | None = None) -> float | None:
    """The score between random play and the reference of an env that is installed and has both.

    ``settings`` are a run's, by dotted key, of which the scores may not be; None where they are unknown.
    """
    try:
        spec = cast(EnvSpec, Registry().get_named("envs", env)[0])
        scores = spec.scores if settings is None else spec.known(_config(spec, settings))
    except (RlganError, ValueError):  # a file's env, a data set, a plugin that is not here or changed: without a scale
        return None
    return normalised(scores, score)


def _config(spec: EnvSpec, settings: Mapping[str, Any]) -> Any:
    """The env's config, of which an older run may lack settings."""
    keys = schema.keys(spec.config, "env.")
    values = {
        name: schema.read(key, settings[name], typed=True) if name in settings else key.default
        for name, key in keys.items()
    }
    return schema.build(spec.config, values, "env.")


def _from_json(path: Path) -> list[Result]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        runs = tree["runs"] if isinstance(tree, dict) else tree
        found = [Result(**run) if "score" in run else _gathered(run) for run in runs]
        return [run if run.where else replace(run, where=str(path)) for run in found]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} holds no results of runs ({type(error).__name__}: {error}).") from error


def _gathered(run: dict[str, Any]) -> Result:
    """A run as `benchmarks/seeds.py` gathers it, with its evaluations, or as one evaluation with names beside it."""
    last = run["evaluations"][-1] if "evaluations" in run else run
    games = last["episodes"] if "episodes" in last else len(last["returns"])
    agent, env, score = str(run["agent"]), str(run["env"]), float(last["return_mean"])
    known = run.get("normalised", last.get("normalised"))
    problem = run.get("problem")
    scaled = scale(env, score, problem) if known is None else float(known)
    seed, steps = int(run["seed"]), int(last["step"])
    return Result(agent, env, seed, steps, score, games, scaled, problem, run.get("settings"))
