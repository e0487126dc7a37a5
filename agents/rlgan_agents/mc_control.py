"""On-policy Monte-Carlo control (Sutton & Barto 2018, section 5.4) with a table: learns from returns of whole episodes.

Differs from the book: values move by a constant step, as the policy changes under them, and towards the mean of all
returns of one rollout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Interval
from gymnasium.spaces import Space
from torch import Tensor

from rlgan.core.protocols import Batch, Phase, Rollouts, Spaces
from rlgan.core.returns import lambda_returns
from rlgan.hookspecs import hookimpl
from rlgan.nn.qtable import QTable, unnumbered
from rlgan.nn.schedule import linear
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class MCControlConfig:
    """Settings of Monte-Carlo control."""

    lr: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.1
    """How far a value moves towards the mean of its returns in one rollout."""
    lr_end: Fraction = 1.0
    """Fraction of lr that is left at the end of the run, reached linearly; 1 keeps it constant."""
    gamma: Fraction = 0.99
    """Discount per step."""
    visits: Literal["first", "every"] = "first"
    """Whether an episode gives one return to each pair of state and action, from its first visit, or one per visit."""
    epsilon_start: Fraction = 1.0
    """Share of random actions at the first step."""
    epsilon_end: Fraction = 0.05
    """Share of random actions from epsilon_steps on."""
    epsilon_steps: Annotated[int, Gt(0)] = 200_000
    """Steps over which epsilon falls linearly."""
    horizon: Annotated[int, Gt(0)] = 256
    """Rows of each copy per update; episodes that do not lie in them whole are not learned from."""
    initial: float = 0.0
    """Value of what was never tried; a high one makes the agent try everything."""


class MCControl(Saved):
    """Satisfies Agent. Observations and actions (n,) int64 of Discrete spaces."""

    kept = ("q",)

    def __init__(self, spaces: Spaces, config: MCControlConfig, device: torch.device) -> None:
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
        """Add the ``target`` of each row (T, N), its return; rows of episodes that are not whole become invalid."""
        cut = rollout["terminated"] | rollout["truncated"]
        episode = rollout["first"].cumsum(0)  # (T, N); 0 is the one that began before this rollout
        ends = cut.flip(0).cumsum(0).flip(0) > 0
        valid = rollout["valid"] & (episode > 0) & ends
        if self.config.visits == "first":
            valid = valid & first_visits(self.q.place(rollout["obs"][:-1], rollout["action"]), episode)
        return {**rollout, "target": returns(rollout, self.config.gamma), "valid": valid}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One rollout of rows (B,)."""
        c = self.config
        lr = linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps)
        metrics = self.q.move(batch["obs"], batch["action"], batch["target"], batch["valid"], lr)
        return {**metrics, "used": batch["valid"].double().mean()}


def returns(rollout: Batch, gamma: float) -> Tensor:
    """Discounted sum of rewards from each row (T, N) to the end of its episode; a time limit is an end like others."""
    nothing = torch.zeros_like(rollout["reward"])
    return lambda_returns(rollout["reward"], nothing, rollout["terminated"], rollout["truncated"], gamma, 1.0)


def first_visits(place: Tensor, episode: Tensor) -> Tensor:
    """Whether each row (T, N) is the first of its episode at its place of the table; both count from 0."""
    rows, copies = place.shape
    copy = torch.arange(copies, device=place.device)
    key = ((place * (rows + 1) + episode) * copies + copy).flatten()  # in order of time
    order = key.argsort(stable=True)
    later = torch.zeros_like(key, dtype=torch.bool)
    later[1:] = key[order][1:] == key[order][:-1]
    return torch.empty_like(later).scatter_(0, order, ~later).view_as(place)


def refuses(observation: Space, action: Space) -> str | None:
    """Numbered observations and actions only."""
    return unnumbered("mc-control", observation, action)


FROZENLAKE = {
    "steps": 1_000_000,
    "copies": 32,
    "agent.lr": 0.3,
    "agent.lr_end": 0.05,
    "agent.horizon": 128,
    "agent.epsilon_steps": 300_000,
    "eval.episodes": 1_000,
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """Monte-Carlo control and its tuned settings."""
    yield AgentSpec(
        "mc-control",
        MCControl,
        MCControlConfig,
        "on-policy learning from whole episodes with a table, numbered observations and actions",
        refuses,
        presets=(Preset("frozenlake", "frozenlake", FROZENLAKE, True, "random play scores 0.014, planning 0.74"),),
        tags=("value-based", "on-policy", "discrete", "tabular"),
    )
