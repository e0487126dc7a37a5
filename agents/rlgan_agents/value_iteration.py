"""Value iteration (Bellman 1957) on an env's model: each sweep makes all states' values those of their best actions.

With the average criterion it is relative value iteration (White 1963): values are relative to that of state 0.
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
class ValueIterationConfig:
    """Settings of value iteration."""

    gamma: Annotated[float, Interval(ge=0.0, le=1.0)] | None = None
    """Discount per step; none = the criterion of the env's model."""
    tolerance: Annotated[float, Gt(0)] = 1e-10
    """Residual of a sweep at which the run ends, if its steps are not over before."""
    damping: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0
    """Share of each change that is made, with the average criterion; below 1 periodic envs settle too."""


class ValueIteration(Saved):
    """Satisfies Agent. Any observation whose number the env's model knows; actions (n,) int64 of a Discrete space."""

    kept = ("value", "policy", "residual")

    def __init__(self, spaces: Spaces, config: ValueIterationConfig, device: torch.device) -> None:
        assert spaces.model is not None and isinstance(spaces.action, Discrete)
        model = spaces.model()
        self.config, self.index, self.lowest = config, model.index, int(spaces.action.start)
        self.bellman = Bellman(model, model.gamma if config.gamma is None else config.gamma)
        states = len(model.next)
        self.value = torch.zeros(states, dtype=torch.float64, device=device)
        self.policy = torch.zeros(states, dtype=torch.int64, device=device)
        self.residual = torch.full((), torch.inf, dtype=torch.float64, device=device)

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Observation, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """The best action of each state."""
        return {"action": self.policy[self.index(obs)] + self.lowest}, None

    def phases(self) -> list[Phase]:
        """One phase: sweep until nothing changes."""
        return [Phase("plan", Sweeps(), self.update, done=self.done)]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One sweep: ``V(s) = max_a sum_k p_k (r_k + gamma V(s_k))``."""
        best = self.bellman.q(self.value).max(-1)
        value, metrics = self.bellman.settle(self.value, best.values, self.config.damping)
        self.value.copy_(value)
        self.policy.copy_(best.indices)
        self.residual.copy_(metrics["residual"])
        return {**metrics, "value": value.mean()}

    def done(self) -> bool:
        """Whether the last sweep changed next to nothing."""
        return float(self.residual) <= self.config.tolerance


def refuses(observation: Space, action: Space) -> str | None:
    """Numbered actions only."""
    return None if isinstance(action, Discrete) else f"it chooses among numbered actions, this env takes {action}"


SMALL = {"steps": 10_000, "copies": 1, "record.every": 100, "eval.episodes": 1_000}
STORE = {**SMALL, "record.every": 1, "eval.episodes": 100}
NOTE = "a step is one sweep; it ends when nothing changes"


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """Value iteration and its presets."""
    yield AgentSpec(
        "value-iteration",
        ValueIteration,
        ValueIterationConfig,
        "dynamic programming with the env's model: the best values, sweep by sweep",
        refuses,
        presets=(
            *(Preset(env, env, SMALL, True, NOTE) for env in ("frozenlake", "cliffwalking", "taxi")),
            *(Preset(env, env, STORE, True, NOTE) for env in ("inventory", "inventory-ss")),
        ),
        tags=("planning", "discrete"),
        plans=True,
    )
