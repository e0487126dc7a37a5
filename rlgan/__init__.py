"""Reinforcement learning and generative adversarial networks as plugins on one core.

Importing it imports neither torch nor gymnasium.
"""

from rlgan.hookspecs import hookimpl
from rlgan.specs import API, AgentSpec, EnvSpec, GeneratorSpec, NoConfig, Preset, Score, TrackerSpec

__version__ = "0.1.0"
__all__ = [
    "API",
    "AgentSpec",
    "EnvSpec",
    "GeneratorSpec",
    "NoConfig",
    "Preset",
    "Score",
    "TrackerSpec",
    "hookimpl",
]
