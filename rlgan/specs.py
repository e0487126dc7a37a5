"""What a plugin says about itself: typed records, read without importing torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

API = 1
"""Version of the plugin contract. A spec made for another one is reported as broken, never half-used."""


@dataclass(frozen=True)
class NoConfig:
    """Settings of a plugin that has none."""


@dataclass(frozen=True)
class Preset:
    """Tuned values for one learner in one env, ranked above defaults and below files and the command line."""

    name: str
    env: str
    """Name of the env, or of a generator's data set, that the values were tuned for."""
    values: Mapping[str, Any]
    """Dotted keys as on the command line: ``{"steps": 50_000, "agent.lr": 1e-3, "env.sticky": 0.25}``."""
    default: bool = False
    """Taken by ``preset=auto`` when the env matches."""
    note: str = ""
    """One sentence that the run prints at its start: what to expect, and when."""


@dataclass(frozen=True)
class Score:
    """A known result that a report sets beside ours."""

    who: str
    value: float
    source: str
    """Paper or page, and the protocol where it differs."""


@dataclass(frozen=True)
class AgentSpec:
    """Something that acts and learns."""

    name: str
    factory: Callable[..., Any]
    """``factory(spaces, config, device) -> Agent``."""
    config: type
    """Frozen dataclass; the docstring under each field is its help."""
    summary: str
    refuses: Callable[[Any, Any], str | None]
    """``refuses(observation_space, action_space)``: why the agent cannot act there, or None."""
    presets: tuple[Preset, ...] = ()
    extra: str | None = None
    """The optional dependency group that must be installed, as in ``pip install "rlgan[extra]"``."""
    tags: tuple[str, ...] = ()
    api: int = API
    kind: Literal["agents"] = field(default="agents", init=False)


@dataclass(frozen=True)
class EnvSpec:
    """Somewhere to act."""

    name: str
    factory: Callable[..., Any]
    """Device env: ``factory(config, device, dtype) -> Env``. Host env: ``factory(config, argument, copies, render) ->
    gymnasium.vector.VectorEnv``, where ``argument`` is what follows the colon of ``env=family:argument``."""
    config: type
    summary: str
    host: bool = False
    """True for simulators that live on the CPU."""
    family: bool = False
    """True when the name is a prefix: ``env=atari:<rom>``."""
    members: Callable[[], Iterable[str]] | None = None
    """What may follow the colon of a family, for completion."""
    scores: tuple[Score, ...] = ()
    extra: str | None = None
    tags: tuple[str, ...] = ()
    source: bytes = field(default=b"", repr=False)
    """Set by rlgan: the content of the file that ``env=./file.py`` named, of which the run keeps a copy."""
    api: int = API
    kind: Literal["envs"] = field(default="envs", init=False)


@dataclass(frozen=True)
class GeneratorSpec:
    """Something that samples and learns."""

    name: str
    factory: Callable[..., Any]
    """``factory(data, config, device) -> Generator``; ``data`` is what the run's DataSpec made."""
    config: type
    summary: str
    presets: tuple[Preset, ...] = ()
    extra: str | None = None
    tags: tuple[str, ...] = ()
    api: int = API
    kind: Literal["generators"] = field(default="generators", init=False)


@dataclass(frozen=True)
class DataSpec:
    """Real samples that a generator learns from."""

    name: str
    factory: Callable[..., Any]
    """``factory(config) -> DataSet``, on the CPU."""
    config: type
    summary: str
    extra: str | None = None
    tags: tuple[str, ...] = ()
    api: int = API
    kind: Literal["data"] = field(default="data", init=False)


@dataclass(frozen=True)
class RewardSpec:
    """A learned reward that stands before, or in place of, the env's own."""

    name: str
    factory: Callable[..., Any]
    """``factory(spaces, config, device) -> RewardModel``."""
    config: type
    summary: str
    extra: str | None = None
    tags: tuple[str, ...] = ()
    api: int = API
    kind: Literal["rewards"] = field(default="rewards", init=False)


@dataclass(frozen=True)
class TrackerSpec:
    """Somewhere for a run's metrics to go."""

    name: str
    factory: Callable[..., Any]
    """``factory(config, run_dir)`` gives any of the methods ``run_start``, ``metrics``, ``checkpoint``, ``run_end``."""
    config: type
    summary: str
    extra: str | None = None
    tags: tuple[str, ...] = ()
    api: int = API
    kind: Literal["hooks"] = field(default="hooks", init=False)


LearnerSpec = AgentSpec | GeneratorSpec
Spec = LearnerSpec | EnvSpec | DataSpec | RewardSpec | TrackerSpec


def fault(spec: Spec) -> str:
    """What makes a spec unusable, or an empty string."""
    if spec.api != API:
        return f"it is made for version {spec.api} of the plugin contract and this rlgan speaks version {API}"
    if not (isinstance(spec.config, type) and is_dataclass(spec.config)):
        return f"its config {spec.config!r} is not a dataclass"
    if any(entry.name == "name" for entry in fields(spec.config)):
        return "its config has a field 'name', which a config file needs for the plugin's own name"
    return ""
