"""The keys that every run has, a resolved run, and the file that holds one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Predicate

from rlgan.errors import UsageError
from rlgan.specs import Preset

ROLES = {"agent": "agents", "generator": "generators", "env": "envs", "data": "data", "reward": "rewards"}
"""The keys of a run that name a plugin, with the plugin's kind. An agent learns in an env, a generator from data."""

FAMILIES = ("agent", "env", "data")
"""Those whose plugins may be families: ``family:argument``."""

MAX_DEPTH, MAX_VALUES = 16, 100_000
"""Of a config file: an alias inside what it names has no end, and ten aliases of ten aliases are many."""


def _is_device(text: str) -> bool:
    """auto, cpu, cuda or cuda:INDEX"""
    return bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", text))


def _is_path(text: str) -> bool:
    """text without a zero byte"""
    return "\0" not in text


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run is saved."""

    every: Annotated[int, Ge(0)] = 0
    """Steps between checkpoints; 0 = a tenth of the run, at least 10,000."""
    keep: Annotated[int, Ge(1)] = 2
    """How many of the newest checkpoints stay, beside the best one."""


@dataclass(frozen=True)
class BarrierConfig:
    """When simulators whose state cannot be saved are reset."""

    every: Annotated[int, Ge(1)] = 40_000
    """Rows per copy between seeded resets of a simulator whose state cannot be saved; resume replays from the last."""


@dataclass(frozen=True)
class EvalConfig:
    """When and how long the agent is evaluated."""

    every: Annotated[int, Ge(0)] = 0
    """Steps between evaluations; 0 = only at the end."""
    episodes: Annotated[int, Ge(1)] = 20
    """Whole games in one evaluation of an agent."""
    samples: Annotated[int, Ge(1)] = 1_000
    """Samples in one evaluation of a generator."""


@dataclass(frozen=True)
class RecordConfig:
    """When metrics are written."""

    every: Annotated[int, Ge(0)] = 0
    """Steps between rows of metrics.jsonl; 0 = a hundredth of the run, at least 1,000."""


@dataclass(frozen=True)
class NormaliseConfig:
    """What an agent sees at the scale of 1; evaluations and records keep the raw rewards."""

    obs: bool = False
    """Observations that are arrays of floats: minus their running mean, over their running deviation."""
    reward: bool = False
    """Rewards, over the running deviation of discounted returns."""
    clip: Annotated[float, Gt(0)] = 10.0
    """Where both are cut."""
    gamma: Annotated[float, Ge(0), Le(1)] | None = None
    """Discount of those returns; none = the agent's gamma."""


@dataclass(frozen=True)
class RunConfig:
    """The keys that every run has."""

    agent: str = ""
    """What learns to act; see `rlgan list agents`."""
    env: str = ""
    """Where an agent learns: a name, family:argument or a file ending in .py; see `rlgan list envs`."""
    generator: str = ""
    """What learns to make samples; see `rlgan list generators`."""
    data: str = ""
    """What a generator learns from; see `rlgan list data`."""
    reward: str = ""
    """A learned reward for the agent; empty = the env's own; see `rlgan list rewards`."""
    steps: Annotated[int, Ge(1)] = 100_000
    """Decisions of an agent, summed over copies; sweeps of one that plans; updates of a generator."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Fixes every random number of the run."""
    device: Annotated[str, Predicate(_is_device)] = "auto"
    """auto takes CUDA where there is one."""
    dir: Annotated[str, Predicate(_is_path)] = ""
    """Run directory; empty = a new one under runs."""
    copies: Annotated[int, Ge(1)] = 8
    """Copies of the env that step together."""
    threads: Annotated[int, Ge(0)] = 0
    """CPU threads of torch; 0 = by a fixed rule for the workload."""
    capture: Literal["auto", "eager", "compile", "graph"] = "auto"
    """How functions are captured: not at all, by torch.compile (on CUDA replayed as a graph), or as CUDA graphs."""
    groups: Literal[1, 2] = 1
    """Groups of copies of a CPU simulator; with 2, one group steps while the other acts."""
    deterministic: bool = True
    """Exact repetition and resume on CUDA too; on the CPU they always hold."""
    preset: str = "auto"
    """Tuned values: auto (the agent's own for this env, if any), none, or a preset's name."""
    trackers: tuple[str, ...] = ()
    """Where metrics go beside metrics.jsonl, as in [tensorboard]."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    barrier: BarrierConfig = BarrierConfig()
    eval: EvalConfig = EvalConfig()
    record: RecordConfig = RecordConfig()
    normalise: NormaliseConfig = NormaliseConfig()
    timeout: Annotated[float, Gt(0)] = 120.0
    """Seconds that one env step may take before the run is ended."""


@dataclass(frozen=True)
class Part:
    """One plugin of a run."""

    name: str
    """As asked for, with the argument of a family: ``atari:pong``."""
    spec: Any
    """A Spec of the role's kind."""
    config: Any
    """The plugin's own settings."""
    argument: str = ""
    """What follows the colon of ``family:argument``."""


@dataclass(frozen=True)
class Run:
    """One resolved run: everything that decides it, checked."""

    config: RunConfig
    parts: dict[str, Part]
    """By role, as in ``ROLES``."""
    preset: Preset | None
    origins: dict[str, str]
    """Dotted key to ``default``, ``preset NAME``, ``file PATH`` or ``command line``."""
    overrides: tuple[str, ...]
    """The words that ask for this run alone."""
    as_preset: bool = False
    """Whether all that scores depend on is as the preset has it, whose note then holds."""

    @property
    def learner(self) -> Part:
        """The agent or the generator."""
        return self.parts["agent"] if "agent" in self.parts else self.parts["generator"]

    @property
    def world(self) -> Part:
        """What it learns from: the env or the data set."""
        return self.parts["env"] if "env" in self.parts else self.parts["data"]

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as a config file holds them, but ``dir``: where a run lies is no part of what it is."""
        tree = {role: {"name": part.name, **plain(part.config)} for role, part in self.parts.items()}
        tree |= {key: value for key, value in plain(self.config).items() if key != "dir" and key not in ROLES}
        return tree | {"preset": self.preset.name if self.preset else "none"}


def plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists, paths as text: what YAML can hold."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def read_file(name: str) -> dict[str, Any]:
    """A config file as dotted keys; ``agent: {name: dqn, lr: 0.1}`` gives ``agent`` and ``agent.lr``."""
    try:
        text = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read @{name}: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"@{name} is not YAML: {error}.") from None
    tree = from_yaml(text, f"@{name}")
    if not isinstance(tree, dict):
        raise UsageError(f"@{name} holds no settings: it must map keys to values, as in `agent: dqn`.")
    if _size(tree, MAX_DEPTH) > MAX_VALUES:
        raise UsageError(f"@{name} is nested deeper than {MAX_DEPTH} levels, or holds more than {MAX_VALUES} values.")
    return flat(tree)


def from_yaml(text: str, name: str) -> Any:
    """What YAML says. UsageError: it is none; ``name`` is what the sentence calls it."""
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise UsageError(f"{name} is nested too deeply to be read.") from None
    # PyYAML's constructors let out what int(), date() and their like raise for a value such as 2001-99-99
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{name} is not YAML: {' '.join(str(error).split())}.") from None


def _size(tree: Any, depth: int) -> int:
    """How many values a tree holds, each as often as aliases repeat it; more than MAX_VALUES where it is too deep."""
    if not isinstance(tree, (dict, list, set, tuple)):
        return 1
    count = 1 if depth else MAX_VALUES + 1
    for item in tree.values() if isinstance(tree, dict) else tree:
        if count > MAX_VALUES:
            break
        count += _size(item, depth - 1)
    return count


def flat(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found.update(flat(value, f"{name}."))
        else:
            role, _, key = name.partition(".")
            found[role if role in ROLES and key == "name" else name] = value
    return found
