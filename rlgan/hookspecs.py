"""The one hook that a plugin module implements, and what a module's implementation yields."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import pluggy

from rlgan.errors import PluginError
from rlgan.specs import Spec

hookspec = pluggy.HookspecMarker("rlgan")
hookimpl = pluggy.HookimplMarker("rlgan")


@hookspec
def rlgan_specs() -> Iterable[Spec]:  # type: ignore[empty-body]
    """Yield a Spec for each thing that the module offers.

    Example::

        from rlgan import AgentSpec, hookimpl

        @hookimpl
        def rlgan_specs():
            yield AgentSpec("my-dqn", MyDQN, MyConfig, "value-based, discrete actions", refuses)
    """


def collect(plugin: Any, name: str) -> tuple[Spec, ...]:
    """Return what the hook of one module yields; ``name`` is the module's, for messages.

    Raises:
        PluginError: it has no such hook, or yields something else than Specs. Whatever the plugin raises goes through.
    """
    manager = pluggy.PluginManager("rlgan")  # one for each module: one plugin's failure cannot reach another's hooks
    manager.add_hookspecs(sys.modules[__name__])
    manager.register(plugin, name)
    manager.check_pending()
    if not manager.hook.rlgan_specs.get_hookimpls():
        raise PluginError(f"{name} has no function rlgan_specs marked with @hookimpl")
    specs: list[Any] = [spec for result in manager.hook.rlgan_specs() for spec in result]
    for spec in specs:
        if not isinstance(spec, Spec):
            raise PluginError(f"{name} yields {spec!r}, which is not a Spec")
    return tuple(specs)
