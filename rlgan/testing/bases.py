"""Test classes that a plugin subclasses: pytest finds one test for each check. Importing them needs no pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gymnasium.spaces import Space

from rlgan.core.protocols import DataSet
from rlgan.testing.agent import agent_checks
from rlgan.testing.env import env_checks
from rlgan.testing.generator import data_checks, generator_checks
from rlgan.testing.kit import Check
from rlgan.testing.reward import reward_checks
from rlgan.testing.vec import vec_checks


class Conformance:
    """A test for each of `checks`. A subclass for a kind of plugin names the attribute that holds the plugin."""

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

    def _under(self, kind: Callable[..., list[Check]], name: str, **more: Any) -> list[Check]:
        # a function that is a class attribute must not become a method
        value = next((vars(cls)[name] for cls in type(self).__mro__ if name in vars(cls)), None)
        if value is None:
            raise TypeError(f"{type(self).__name__} must have {name} = NAME, a Spec or a factory")
        return kind(value, self.config, self.device, **more)


class EnvConformance(Conformance):
    """Those of `check_env`. Subclass it with ``env``: a name, an EnvSpec or ``factory(config, device, dtype)``."""

    env: Any = None

    def checks(self) -> list[Check]:  # noqa: D102
        return self._under(env_checks, "env")


class VecEnvConformance(Conformance):
    """Those of `check_vec_env`. Subclass it with a method ``make(self)`` that returns a new vector env."""

    def make(self) -> Any:
        """A new vector env, equal to the last one."""
        raise NotImplementedError

    def checks(self) -> list[Check]:  # noqa: D102
        return vec_checks(self.make, f"env {type(self).__name__}", torch.device(self.device))


class AgentConformance(Conformance):
    """Those of `check_agent`. Subclass it with ``agent``: a name, an AgentSpec or a factory."""

    agent: Any = None

    def checks(self) -> list[Check]:  # noqa: D102
        return self._under(agent_checks, "agent")


class GeneratorConformance(Conformance):
    """Those of `check_generator`. Subclass it with ``generator``: a name, a GeneratorSpec or a factory."""

    generator: Any = None
    data: DataSet | None = None
    """What it learns from; None tries made-up images and points."""

    def checks(self) -> list[Check]:  # noqa: D102
        return self._under(generator_checks, "generator", data=self.data)


class DataConformance(Conformance):
    """Those of `check_data`. Subclass it with ``data``: a name, a DataSpec or ``factory(config)``."""

    data: Any = None

    def checks(self) -> list[Check]:  # noqa: D102
        return self._under(data_checks, "data")


class RewardConformance(Conformance):
    """Those of `check_reward`. Subclass it with ``reward``: a name, a RewardSpec or a factory."""

    reward: Any = None
    spaces: tuple[Space, Space] | None = None
    """Of observations and actions; None tries several."""

    def checks(self) -> list[Check]:  # noqa: D102
        return self._under(reward_checks, "reward", spaces=self.spaces)
