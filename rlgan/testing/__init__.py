"""Conformance kit: does an env or an agent keep the contract of `rlgan.core.protocols`? Its one error names the fault.

A plugin's tests need five lines::

    from rlgan.testing import EnvConformance

    class TestShop(EnvConformance):
        env = "shop"

pytest is needed by ``rlgan.testing.fixtures`` alone.
"""

from rlgan.errors import ConformanceError
from rlgan.testing.agent import check_agent
from rlgan.testing.bases import AgentConformance, EnvConformance, VecEnvConformance
from rlgan.testing.env import check_env
from rlgan.testing.vec import check_vec_env

__all__ = [
    "AgentConformance",
    "ConformanceError",
    "EnvConformance",
    "VecEnvConformance",
    "check_agent",
    "check_env",
    "check_vec_env",
]
