"""PQN (Gallici et al. 2024, *Simplifying Deep Temporal Difference Learning*): Q-learning on rollouts of many copies.

No replay and no target network: layer normalisation keeps the values from running away, and many copies make each
minibatch a mix. Targets are lambda returns of the greedy values. Schedules count agent steps summed over copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from gymnasium.spaces import Discrete, Space
from torch import Tensor, nn

from rlgan.core.protocols import Batch, Phase, Rollouts, Spaces
from rlgan.core.returns import lambda_returns
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import RAdam, optimise
from rlgan.nn.schedule import linear
from rlgan.nn.torsos import Precision, start_he, value_network
from rlgan.nn.value_heads import epsilon_greedy, next_values, unfit
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class PQNConfig:
    """Settings of PQN."""

    lr: Annotated[float, Gt(0)] = 2.5e-4
    """RAdam step size."""
    lr_end: Fraction = 1.0
    """Fraction of lr that is left at the end of the run, reached linearly; 1 keeps it constant."""
    gamma: Fraction = 0.99
    """Discount per step."""
    lam: Fraction = 0.65
    """How far targets look ahead; 0 is one step, 1 the rest of the rollout."""
    horizon: Annotated[int, Gt(0)] = 32
    """Rows of each copy per rollout."""
    minibatch: Annotated[int, Gt(1)] = 256
    """Rows per update; it divides horizon x copies."""
    epochs: Annotated[int, Gt(0)] = 2
    """Passes over each rollout."""
    epsilon_start: Fraction = 1.0
    """Share of random actions at the first step."""
    epsilon_end: Fraction = 0.05
    """Share of random actions from epsilon_steps on."""
    epsilon_steps: Annotated[int, Gt(0)] = 10_000
    """Steps over which epsilon falls linearly."""
    epsilon_eval: Fraction = 0.0
    """Share of random actions in evaluation and video."""
    max_grad_norm: Annotated[float, Gt(0)] = 10.0
    """Global norm to which gradients are clipped."""
    clip_reward: bool = False
    """Learn from the sign of rewards. Recorded and evaluated scores stay raw."""
    reward_scale: Annotated[float, Gt(0)] = 1.0
    """Factor on the rewards that are learned from, so that returns are not far from 1."""
    norm: bool = True
    """Normalise each hidden layer. Without it nothing holds the values."""
    hidden: tuple[Annotated[int, Gt(0)], ...] = (128, 128)
    """Widths of the hidden layers for vectors; images take NatureCNN, boards of few cells PlanesCNN."""
    precision: Precision = "auto"
    """Arithmetic of NatureCNN; auto is bfloat16 where it is faster. Weights and optimiser stay float32."""


class PQN(Saved):
    """Satisfies Agent. Observations (n, ...), actions (n,) int64 of a Discrete space."""

    kept = ("q", "optimiser")

    def __init__(self, spaces: Spaces, config: PQNConfig, device: torch.device) -> None:
        assert isinstance(spaces.action, Discrete)
        c = self.config = config
        self.steps = spaces.steps
        self.actions, self.lowest = int(spaces.action.n), int(spaces.action.start)
        self.q = value_network(spaces.observation, self.actions, c.hidden, c.precision, device, norm=c.norm)
        start_he(self.q)
        self.optimiser = RAdam(self.q.parameters(), c.lr)

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """Epsilon-greedy, independently in each copy; rows keep the greedy ``value`` (n,)."""
        c = self.config
        value, greedy = self.q(obs).max(-1)
        epsilon = linear(step, c.epsilon_start, c.epsilon_end, c.epsilon_steps) if explore else c.epsilon_eval
        chosen = epsilon_greedy(greedy, self.actions, epsilon)
        return {"action": chosen + self.lowest, "value": value}, None

    def phases(self) -> list[Phase]:
        """One phase: train from rollouts for the whole run."""
        c = self.config
        rollouts = Rollouts(c.horizon, c.minibatch, c.epochs, clip_reward=c.clip_reward)
        return [Phase("train", rollouts, self.update, prepare=self.prepare)]

    def prepare(self, rollout: Batch) -> Batch:
        """Add the ``target`` (T, N), under the parameters that collected the rollout."""
        c = self.config
        reward = c.reward_scale * rollout["reward"]
        following = next_values(rollout, lambda obs: self.q(obs).amax(-1))
        target = lambda_returns(reward, following, rollout["terminated"], rollout["truncated"], c.gamma, c.lam)
        return {**rollout, "target": target}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of rows (B, ...)."""
        c = self.config
        if c.lr_end < 1.0:
            self.optimiser.lr.copy_(linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps))
        loss, q = pqn_loss(self.q, {**batch, "action": batch["action"] - self.lowest})
        norm = optimise(self.optimiser, loss, c.max_grad_norm)
        return {"loss": loss.detach(), "q": q.detach().mean(), "grad_norm": norm}


def pqn_loss(q: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Weighted mean of half the squared error () of Q(s, a) against ``target``, and Q(s, a) (B,)."""
    taken = q(batch["obs"]).gather(1, batch["action"].unsqueeze(1)).squeeze(1)
    return (0.5 * (taken - batch["target"]).square() * batch["weight"]).mean(), taken


def refuses(observation: Space, action: Space) -> str | None:
    """Discrete actions and Box observations only."""
    return unfit("pqn", observation, action)


CARTPOLE = {
    "steps": 300_000,
    "copies": 64,
    "agent.lr": 2e-3,
    "agent.lr_end": 0.0,
    "agent.lam": 0.95,
    "agent.minibatch": 128,
    "agent.epochs": 4,
    "agent.epsilon_end": 0.1,
    "agent.epsilon_steps": 40_000,
    "agent.reward_scale": 0.1,
}
BREAKOUT = {
    "steps": 10_000_000,
    "copies": 128,
    "agent.horizon": 32,
    "agent.minibatch": 128,
    "agent.epochs": 2,
    "agent.epsilon_end": 0.001,
    "agent.epsilon_steps": 1_000_000,
    "agent.epsilon_eval": 0.001,
    "agent.clip_reward": True,
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """PQN and its tuned settings."""
    yield AgentSpec(
        "pqn",
        PQN,
        PQNConfig,
        "Q-learning on rollouts with normalised layers, no replay, no target network, discrete actions",
        refuses,
        presets=(
            Preset("cartpole", "cartpole", CARTPOLE, True, "eight seeds of ten end at 475 or more, in 20 seconds"),
            Preset(
                "breakout", "breakout", BREAKOUT, True, "the settings of the paper; CleanRL's PQN reaches 385 at 10M"
            ),
        ),
        tags=("value-based", "on-policy", "discrete"),
    )
