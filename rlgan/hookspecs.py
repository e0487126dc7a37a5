"""The one hook that a plugin module implements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
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
