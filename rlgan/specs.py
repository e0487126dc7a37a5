"""What a plugin says about itself: typed records, read without importing torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

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


def tuned(steps: int, copies: int, **agent: Any) -> dict[str, Any]:
    """The values of an agent's preset, whose own keys are given without their ``agent.``."""
    return {"steps": steps, "copies": copies} | {f"agent.{key}": value for key, value in agent.items()}


@dataclass(frozen=True)
class Score:
    """A known result that a report sets beside ours."""

    who: str
    value: float
    source: str
    """Paper or page, and the protocol where it differs."""


def normalised(scores: Iterable[Score], value: float) -> float | None:
    """Scale a score: 0 is random play, 1 is human play or else the best known score; None without such scores."""
    known = {score.who: score.value for score in scores}
    low = known.pop("random", None)
    if low is None or not known:
        return None
    high = known.get("human", max(known.values()))
    return (value - low) / (high - low)


@dataclass(frozen=True)
class Spec:
    """What every plugin says about itself."""

    kind: ClassVar[str] = ""
    name: str
    factory: Callable[..., Any]
    config: type
    """Frozen dataclass; the docstring under each field is its help."""
    summary: str
    _: KW_ONLY
    extra: str | None = None
    """The optional dependency group that must be installed, as in ``pip install "rlgan[extra]"``."""
    tags: tuple[str, ...] = ()
    plans: bool = False
    """Whether it needs the env's model."""
    family: bool = False
    """Of agents, envs and data: True when the name is a prefix, as of ``env=atari:<rom>``."""
    members: Callable[[], Iterable[str]] | None = None
    """What may follow the colon of a family, for completion."""
    api: int = API


@dataclass(frozen=True)
class AgentSpec(Spec):
    """Something that acts and learns: ``factory(spaces, config, device) -> Agent``.

    ``spaces.argument`` is what follows the colon of ``agent=family:argument``.
    """

    kind = "agents"
    refuses: Callable[[Any, Any], str | None]
    """``refuses(observation_space, action_space)``: why the agent cannot act there, or None."""
    presets: tuple[Preset, ...] = ()
    sees_state: bool = False
    """Whether ``act`` is given the true state of a device env in place of its observations; for reference policies."""


@dataclass(frozen=True)
class EnvSpec(Spec):
    """Somewhere to act: ``factory(config, device, dtype) -> Env``.

    Of a host env: ``factory(config, argument, copies, render) -> gymnasium.vector.VectorEnv``, where ``argument`` is
    what follows the colon of ``env=family:argument``.
    """

    kind = "envs"
    host: bool = False
    """True for simulators that live on the CPU."""
    scores: tuple[Score, ...] = ()
    scored: Callable[[Any], bool] | None = None
    """``scored(config)``: whether the scores are of an env with these settings; None is always."""
    source: bytes = field(default=b"", repr=False)
    """Set by rlgan: the content of the file that ``env=./file.py`` named, of which the run keeps a copy."""

    def known(self, config: Any) -> tuple[Score, ...]:
        """The scores, where they are of an env with these settings."""
        return self.scores if self.scored is None or self.scored(config) else ()


def unchanged(config: Any) -> bool:
    """Whether all settings are the defaults, for ``EnvSpec.scored``."""
    return bool(config == type(config)())


@dataclass(frozen=True)
class GeneratorSpec(Spec):
    """Something that samples and learns: ``factory(data, config, device) -> Generator``; the DataSpec made ``data``."""

    kind = "generators"
    presets: tuple[Preset, ...] = ()


@dataclass(frozen=True)
class DataSpec(Spec):
    """Real samples that a generator learns from: ``factory(config) -> DataSet``, on the CPU.

    Of a family: ``factory(config, argument)`` with what follows the colon of ``data=family:argument``.
    """

    kind = "data"


@dataclass(frozen=True)
class RewardSpec(Spec):
    """A learned reward before, or in place of, the env's own: ``factory(spaces, config, device) -> RewardModel``."""

    kind = "rewards"


@dataclass(frozen=True)
class TrackerSpec(Spec):
    """Somewhere for a run's metrics to go: ``factory(config, run_dir)``.

    It gives an object with any of the methods ``run_start``, ``metrics``, ``checkpoint``, ``run_end``.
    """

    kind = "hooks"


LEARNS_NOTHING = "learns-nothing"
"""Tag of an agent that is there to compare with, and is recommended to nobody who wants to learn."""
LearnerSpec = AgentSpec | GeneratorSpec


def fault(spec: Spec) -> str:
    """What makes a spec unusable, or an empty string."""
    if spec.api != API:
        return f"it is made for version {spec.api} of the plugin contract and this rlgan speaks version {API}"
    if not (isinstance(spec.config, type) and is_dataclass(spec.config)):
        return f"its config {spec.config!r} is not a dataclass"
    if any(entry.name == "name" for entry in fields(spec.config)):
        return "its config has a field 'name', which a config file needs for the plugin's own name"
    scores = spec.scores if isinstance(spec, EnvSpec) else ()
    if not isinstance(scores, tuple):
        return f"its scores {scores!r} are not a tuple"
    for score in scores:
        if not (isinstance(score, Score) and isinstance(score.value, float | int)):
            return f"its score {score!r} is not a Score whose value is a number"
    return ""
