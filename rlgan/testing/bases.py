"""Test classes that a plugin subclasses: pytest finds one test for each check. Importing them needs no pytest."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.spaces import Space

from rlgan.core.protocols import DataSet
from rlgan.testing.agent import agent_checks
from rlgan.testing.data import data_checks
from rlgan.testing.env import env_checks
from rlgan.testing.generator import generator_checks
from rlgan.testing.kit import Check
from rlgan.testing.reward import reward_checks
from rlgan.testing.vec import vec_checks


class Conformance:
    """A test for each of `checks`."""

    device = "cpu"
    config: Any = None
    """Settings of the plugin under test; None takes the defaults."""

    def checks(self) -> list[Check]:
        """What to run."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Tell pytest of the checks, which are made when tests are collected and run on their own."""
        if "check" in metafunc.fixturenames:
            checks = self.checks()
            metafunc.parametrize("check", checks, ids=[check.name.replace(" ", "-") for check in checks])

    def test_conformance(self, check: Check) -> None:
        """One check."""
        check()


class EnvConformance(Conformance):
    """Subclass it with ``env``: a name, an EnvSpec or ``factory(config, device, dtype)``."""

    env: Any = None

    def checks(self) -> list[Check]:
        """Those of `check_env`."""
        return env_checks(_attribute(self, "env"), self.config, self.device)


class VecEnvConformance(Conformance):
    """Subclass it with a method ``make(self)`` that returns the vector env."""

    def make(self) -> Any:
        """A new vector env, equal to the last one."""
        raise NotImplementedError

    def checks(self) -> list[Check]:
        """Those of `check_vec_env`."""
        return vec_checks(self.make, f"env {type(self).__name__}", torch.device(self.device))


class AgentConformance(Conformance):
    """Subclass it with ``agent``: a name, an AgentSpec or ``factory(spaces, config, device)``."""

    agent: Any = None

    def checks(self) -> list[Check]:
        """Those of `check_agent`."""
        return agent_checks(_attribute(self, "agent"), self.config, self.device)


class GeneratorConformance(Conformance):
    """Subclass it with ``generator``: a name, a GeneratorSpec or ``factory(data, config, device)``."""

    generator: Any = None
    data: DataSet | None = None
    """What it learns from; None tries made-up images and points."""

    def checks(self) -> list[Check]:
        """Those of `check_generator`."""
        return generator_checks(_attribute(self, "generator"), self.config, self.device, data=self.data)


class DataConformance(Conformance):
    """Subclass it with ``data``: a name, a DataSpec or ``factory(config)``."""

    data: Any = None

    def checks(self) -> list[Check]:
        """Those of `check_data`."""
        return data_checks(_attribute(self, "data"), self.config)


class RewardConformance(Conformance):
    """Subclass it with ``reward``: a name, a RewardSpec or ``factory(spaces, config, device)``."""

    reward: Any = None
    spaces: tuple[Space, Space] | None = None
    """Of observations and actions; None tries several."""

    def checks(self) -> list[Check]:
        """Those of `check_reward`."""
        return reward_checks(_attribute(self, "reward"), self.config, self.device, spaces=self.spaces)


def _attribute(test: Any, name: str) -> Any:
    # a function that is a class attribute must not become a method
    value = next((vars(cls)[name] for cls in type(test).__mro__ if name in vars(cls)), None)
    if value is None:
        raise TypeError(f"{type(test).__name__} must have {name} = NAME, a Spec or a factory")
    return value
