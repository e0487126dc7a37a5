"""Reinforcement learning and generative adversarial networks as plugins on one core.

Importing it imports neither torch nor gymnasium: `make`, `run` and `load` do, when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

from rlgan.hookspecs import hookimpl
from rlgan.specs import (
    API,
    AgentSpec,
    DataSpec,
    EnvSpec,
    GeneratorSpec,
    NoConfig,
    Preset,
    RewardSpec,
    Score,
    TrackerSpec,
)

if TYPE_CHECKING:
    from rlgan.library import Finished, load, make, run

__version__ = "0.1.0"
__all__ = [
    "API",
    "AgentSpec",
    "DataSpec",
    "EnvSpec",
    "Finished",
    "GeneratorSpec",
    "NoConfig",
    "Preset",
    "RewardSpec",
    "Score",
    "TrackerSpec",
    "hookimpl",
    "load",
    "make",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in ("Finished", "load", "make", "run"):
        from rlgan import library

        return getattr(library, name)
    raise AttributeError(f"module 'rlgan' has no attribute {name!r}")
