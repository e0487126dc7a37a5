"""Sarsa (Rummery & Niranjan 1994) with a table: learns the values of the policy that it follows, exploration included.

Differs from the textbook in the many copies of the env: entries that several copies visit in one update move towards
the mean of their targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

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
FIELDS = ("action", "reward", "terminated", "valid")
"""Beside ``obs``, what an update needs of a row."""


@dataclass(frozen=True)
class SarsaConfig:
    """Settings of Sarsa."""

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


class Sarsa(Saved):
    """Satisfies Agent. Observations and actions (n,) int64 of Discrete spaces."""

    kept = ("q",)

    def __init__(self, spaces: Spaces, config: SarsaConfig, device: torch.device) -> None:
        self.config, self.steps = config, spaces.steps
        self.q = QTable(spaces.observation, spaces.action, config.initial, device)
        self.last: Batch = {}
        """The newest row (1, N) of each copy, which waits for its next action; nothing before the first rollout."""

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
        """Give the rows (T, N) from the last one of the rollout before to the last but one of this, with what followed.

        Where an episode was truncated no action followed: such a row is not learned from. ``obs`` is (T + 1, N), as it
        was given.
        """
        rows = {name: rollout[name] for name in FIELDS} | {"obs": rollout["obs"][:-1]}
        rows["valid"] = rows["valid"] & ~rollout["truncated"]
        # at first any row that does not count: zeros may be no place of the table
        last = self.last or {**{k: v[:1] for k, v in rows.items()}, "valid": torch.zeros_like(rows["valid"][:1])}
        self.last = {name: value[-1:].clone() for name, value in rows.items()}
        joined = {name: torch.cat([last[name], value]) for name, value in rows.items()}
        batch = {name: joined[name][:-1] for name in FIELDS}
        following = {"following": joined["obs"][1:], "following_action": joined["action"][1:]}
        return {**batch, **following, "obs": joined["obs"]}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One rollout of rows (B,)."""
        c = self.config
        target = sarsa_target(self.q, batch, c.gamma)
        lr = linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps)
        return self.q.move(batch["obs"], batch["action"], target, batch["valid"], lr)

    def state_dict(self) -> dict[str, Any]:
        """The table, and the rows that wait."""
        return {**super().state_dict(), "last": self.last}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in."""
        super().load_state_dict(tree)
        self.last = {name: value.to(self.q.values.device, copy=True) for name, value in tree["last"].items()}


def sarsa_target(q: QTable, batch: Batch, gamma: float) -> Tensor:
    """``r + gamma Q(s', a')``, (B,), with the action a' that was taken next; a terminated row has no future."""
    taken = (batch["following_action"] - q.lowest)[:, None]
    return batch["reward"] + gamma * q(batch["following"]).gather(-1, taken)[:, 0].masked_fill(batch["terminated"], 0.0)


def refuses(observation: Space, action: Space) -> str | None:
    """Numbered observations and actions only."""
    return unnumbered("sarsa", observation, action)


FROZENLAKE = {"steps": 400_000, "copies": 16, "agent.lr_end": 0.05, "eval.episodes": 1_000}
CLIFF = {
    "steps": 64_000,
    "copies": 32,
    "agent.lr": 0.5,
    "agent.lr_end": 0.02,
    "agent.gamma": 1.0,
    "agent.epsilon_start": 0.1,
    "agent.epsilon_end": 0.1,
}
TAXI = {
    "steps": 400_000,
    "copies": 16,
    "agent.lr": 0.5,
    "agent.lr_end": 0.02,
    "agent.epsilon_steps": 200_000,
    "eval.episodes": 100,
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """Sarsa and its tuned settings."""
    yield AgentSpec(
        "sarsa",
        Sarsa,
        SarsaConfig,
        "on-policy learning with a table, numbered observations and actions",
        refuses,
        presets=(
            Preset("frozenlake", "frozenlake", FROZENLAKE, True, "random play scores 0.014, planning 0.74"),
            Preset("cliffwalking", "cliffwalking", CLIFF, True, "learns a safe path, away from the edge: -15 or -17"),
            Preset("taxi", "taxi", TAXI, True, "random play scores -771, the best possible 7.93"),
        ),
        tags=("value-based", "on-policy", "discrete", "tabular"),
    )
