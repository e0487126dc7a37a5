"""The checks that fit a plugin, by its kind: a new kind is one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rlgan.errors import UsageError
from rlgan.registry import Registry
from rlgan.testing.agent import agent_checks
from rlgan.testing.env import env_checks
from rlgan.testing.generator import data_checks, generator_checks
from rlgan.testing.kit import Check, Result, results
from rlgan.testing.reward import reward_checks

_CHECKS: dict[str, Callable[..., list[Check]]] = {
    "agents": agent_checks,
    "envs": env_checks,
    "generators": generator_checks,
    "data": data_checks,
    "rewards": reward_checks,
}


def check(kind: str, name: str, registry: Registry) -> Iterator[Result]:
    """Run the checks of an installed plugin with its default settings.

    Raises:
        UsageError: there are no checks of that kind.
        PluginError: the plugin cannot be loaded.
    """
    if kind not in _CHECKS:
        raise UsageError(f"there are no checks for {kind}: they exist for {', '.join(_CHECKS)}.")
    return results(_CHECKS[kind](name, registry=registry))
