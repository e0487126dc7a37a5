"""Policy iteration (Howard 1960) on an env's model: evaluate a policy by Bellman's equation, then improve it.

Evaluation is iterative, ``sweeps`` sweeps between two improvements (modified policy iteration, Puterman & Shin 1978).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from gymnasium.spaces import Discrete, Space
from torch import Tensor

from rlgan.core.protocols import Batch, Observation, Phase, Spaces, Sweeps
from rlgan.hookspecs import hookimpl
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved
from rlgan.tables import Bellman


@dataclass(frozen=True)
class PolicyIterationConfig:
    """Settings of policy iteration."""

    gamma: Annotated[float, Interval(ge=0.0, le=1.0)] | None = None
    """Discount per step; none = the criterion of the env's model."""
    sweeps: Annotated[int, Gt(0)] = 20
    """Sweeps of evaluation between two improvements of the policy."""
    tolerance: Annotated[float, Gt(0)] = 1e-10
    """Residual at which a policy counts as evaluated; the run ends when it cannot be improved then."""
    tie: Annotated[float, Gt(0)] = 1e-8
    """How much better another action must be to be taken instead, so that equal ones do not take turns for ever."""
    damping: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0
    """Share of each change that is made, with the average criterion; below 1 periodic envs settle too."""


class PolicyIteration(Saved):
    """Satisfies Agent. Any observation whose number the env's model knows; actions (n,) int64 of a Discrete space."""

    kept = ("value", "policy", "residual", "stable")

    def __init__(self, spaces: Spaces, config: PolicyIterationConfig, device: torch.device) -> None:
        assert spaces.model is not None and isinstance(spaces.action, Discrete)
        model = spaces.model()
        self.config, self.index, self.lowest = config, model.index, int(spaces.action.start)
        self.bellman = Bellman(model, model.gamma if config.gamma is None else config.gamma)
        states = len(model.next)
        self.value = torch.zeros(states, dtype=torch.float64, device=device)
        self.policy = torch.zeros(states, dtype=torch.int64, device=device)
        self.residual = torch.full((), torch.inf, dtype=torch.float64, device=device)
        self.stable = torch.zeros((), dtype=torch.bool, device=device)
        """Whether the policy was evaluated and could not be improved."""

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Observation, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """The policy's action."""
        return {"action": self.policy[self.index(obs)] + self.lowest}, None

    def phases(self) -> list[Phase]:
        """One phase: sweeps of evaluation, with improvements between, until the policy is stable."""
        periodic = ((self.config.sweeps, self.improve),)
        return [Phase("plan", Sweeps(), self.update, done=self.done, periodic=periodic)]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One sweep of evaluation: ``V(s) = sum_k p_k (r_k + gamma V(s_k))`` of the policy's action."""
        swept = self.bellman.under(self.value, self.policy)
        value, metrics = self.bellman.settle(self.value, swept, self.config.damping)
        self.value.copy_(value)
        self.residual.copy_(metrics["residual"])
        return {**metrics, "value": value.mean()}

    def improve(self) -> None:
        """Take the best action of each state where it is better than the policy's."""
        q = self.bellman.q(self.value)
        best = q.max(-1)
        better = best.values > q.gather(-1, self.policy[:, None])[:, 0] + self.config.tie
        self.policy.copy_(torch.where(better, best.indices, self.policy))
        self.stable.copy_(~better.any() & (self.residual <= self.config.tolerance))

    def done(self) -> bool:
        """Whether the policy is stable."""
        return bool(self.stable)


def refuses(observation: Space, action: Space) -> str | None:
    """Numbered actions only."""
    return None if isinstance(action, Discrete) else f"it chooses among numbered actions, this env takes {action}"


SMALL = {"steps": 10_000, "copies": 1, "record.every": 100, "eval.episodes": 1_000}
STORE = {**SMALL, "record.every": 1, "eval.episodes": 100}
NOTE = "a step is one sweep; it ends when the policy is stable"


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """Policy iteration and its presets."""
    yield AgentSpec(
        "policy-iteration",
        PolicyIteration,
        PolicyIterationConfig,
        "dynamic programming with the env's model: evaluate a policy, improve it, repeat",
        refuses,
        presets=(
            *(Preset(env, env, SMALL, True, NOTE) for env in ("frozenlake", "cliffwalking", "taxi")),
            *(Preset(env, env, STORE, True, NOTE) for env in ("inventory", "inventory-ss")),
        ),
        tags=("planning", "discrete"),
        plans=True,
    )
