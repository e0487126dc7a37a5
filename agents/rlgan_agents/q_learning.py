"""Q-learning (Watkins 1989) with a table: learns the values of the best actions while it explores with others.

Differs from the textbook in the many copies of the env: entries that several copies visit in one update move towards
the mean of their targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from gymnasium.spaces import Space
from torch import Tensor

from rlgan.core.protocols import Batch, Phase, Rollouts, Spaces
from rlgan.hookspecs import hookimpl
from rlgan.nn.qtable import QTable, unnumbered
from rlgan.nn.schedule import linear
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class QLearningConfig:
    """Settings of Q-learning."""

    lr: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.1
    """How far a value moves towards its target."""
    lr_end: Fraction = 1.0
    """Fraction of lr that is left at the end of the run, reached linearly; 1 keeps it constant."""
    gamma: Fraction = 0.99
    """Discount per step."""
    epsilon_start: Fraction = 1.0
    """Share of random actions at the first step."""
    epsilon_end: Fraction = 0.05
    """Share of random actions from epsilon_steps on."""
    epsilon_steps: Annotated[int, Gt(0)] = 20_000
    """Steps over which epsilon falls linearly."""
    horizon: Annotated[int, Gt(0)] = 1
    """Rows of each copy per update."""
    initial: float = 0.0
    """Value of what was never tried; a high one makes the agent try everything."""


class QLearning(Saved):
    """Satisfies Agent. Observations and actions (n,) int64 of Discrete spaces."""

    kept = ("q",)

    def __init__(self, spaces: Spaces, config: QLearningConfig, device: torch.device) -> None:
        self.config, self.steps = config, spaces.steps
        self.q = QTable(spaces.observation, spaces.action, config.initial, device)

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """Epsilon-greedy; in evaluation greedy."""
        c = self.config
        if not explore:
            return {"action": self.q.best(obs)}, None
        return {"action": self.q.explore(obs, linear(step, c.epsilon_start, c.epsilon_end, c.epsilon_steps))}, None

    def phases(self) -> list[Phase]:
        """One phase: one update of each rollout."""
        return [Phase("train", Rollouts(self.config.horizon), self.update, prepare=self.prepare)]

    def prepare(self, rollout: Batch) -> Batch:
        """Keep the true next observations (T, N) as ``following``."""
        return {**rollout, "following": rollout["next_obs"]}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One rollout of rows (B,)."""
        c = self.config
        target = q_target(self.q, batch, c.gamma)
        lr = linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps)
        return self.q.move(batch["obs"], batch["action"], target, batch["valid"], lr)


def q_target(q: QTable, batch: Batch, gamma: float) -> Tensor:
    """``r + gamma max_a Q(s', a)``, (B,); a terminated row has no future, a truncated one has."""
    return batch["reward"] + gamma * q(batch["following"]).amax(-1).masked_fill(batch["terminated"], 0.0)


def refuses(observation: Space, action: Space) -> str | None:
    """Numbered observations and actions only."""
    return unnumbered("q-learning", observation, action)


FROZENLAKE = {"steps": 400_000, "copies": 16, "agent.lr_end": 0.05, "agent.epsilon_end": 0.2, "eval.episodes": 1_000}
CLIFF = {
    "steps": 64_000,
    "copies": 32,
    "agent.lr": 0.5,
    "agent.lr_end": 0.02,
    "agent.gamma": 1.0,
    "agent.epsilon_start": 0.1,
    "agent.epsilon_end": 0.1,
}
TAXI = {"steps": 400_000, "copies": 16, "agent.lr": 0.5, "agent.epsilon_steps": 200_000, "eval.episodes": 100}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """Q-learning and its tuned settings."""
    yield AgentSpec(
        "q-learning",
        QLearning,
        QLearningConfig,
        "off-policy learning with a table, numbered observations and actions",
        refuses,
        presets=(
            Preset("frozenlake", "frozenlake", FROZENLAKE, True, "random play scores 0.014, planning 0.74"),
            Preset("cliffwalking", "cliffwalking", CLIFF, True, "learns the short path on the edge, which scores -13"),
            Preset("taxi", "taxi", TAXI, True, "random play scores -771, the best possible 7.93"),
        ),
        tags=("value-based", "off-policy", "discrete", "tabular"),
    )
