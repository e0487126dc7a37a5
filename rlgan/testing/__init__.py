"""Conformance kit: does a plugin keep the contract of `rlgan.core.protocols`? Its one error names the fault.

A plugin's tests need five lines::

    from rlgan.testing import EnvConformance

    class TestShop(EnvConformance):
        env = "shop"

pytest is needed by ``rlgan.testing.fixtures`` alone.
"""

from rlgan.errors import ConformanceError
from rlgan.testing.agent import check_agent
from rlgan.testing.bases import (
    AgentConformance,
    DataConformance,
    EnvConformance,
    GeneratorConformance,
    RewardConformance,
    VecEnvConformance,
)
from rlgan.testing.env import check_env
from rlgan.testing.generator import check_data, check_generator
from rlgan.testing.reward import check_reward
from rlgan.testing.vec import check_vec_env

__all__ = [
    "AgentConformance",
    "ConformanceError",
    "DataConformance",
    "EnvConformance",
    "GeneratorConformance",
    "RewardConformance",
    "VecEnvConformance",
    "check_agent",
    "check_data",
    "check_env",
    "check_generator",
    "check_reward",
    "check_vec_env",
]
