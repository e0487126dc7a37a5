"""The policies that an env brings with it, as agents: ``agent=reference:linear-feedback``. They learn nothing, so a
run of one is an evaluation, and its record stands beside those of agents that learned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from gymnasium.spaces import Space
from torch import Tensor

from rlgan.core.protocols import Batch, Phase, Spaces
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import LEARNS_NOTHING, AgentSpec, NoConfig
from rlgan.store.state import Saved


class Reference(Saved):
    """Satisfies Agent, with the true state of a device env, or what a simulator on the CPU shows, in place of ``obs``.

    Raises:
        UsageError: the env has no policy of that name; the sentence names those that it has.
    """

    def __init__(self, spaces: Spaces, config: NoConfig, device: torch.device) -> None:
        offered = spaces.references() if spaces.references else {}
        policies = {name: policy for name, policy in offered.items() if callable(policy)}
        name, env = spaces.argument, spaces.env
        if not policies:
            raise UsageError(f"env={env} brings no reference policies: write agent=random, or an agent that learns")
        if name not in policies:
            kind = "is a bound, which nobody can play" if name in offered else "is none of them"
            known = ", ".join(f"agent=reference:{each}" for each in policies)
            raise UsageError(f"env={env} has the reference policies {known}; '{name}' {kind}")
        self.policy = policies[name]

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Any, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """What the policy does."""
        return {"action": self.policy(obs, None)}, None

    def phases(self) -> list[Phase]:
        """Nothing to learn."""
        return []


def refuses(observation: Space, action: Space) -> str | None:
    """Nothing: whether the env brings policies is found when the agent is made."""
    return None


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """The family."""
    yield AgentSpec(
        "reference",
        Reference,
        NoConfig,
        "a policy that the env brings with it, which learns nothing: agent=reference:<policy>",
        refuses,
        family=True,
        sees_state=True,
        tags=(LEARNS_NOTHING, "samples-in-evaluation"),
    )
