"""DQN (Mnih et al. 2015): Q-learning with a target network and replay; double targets (van Hasselt et al. 2016).

Differs from the paper: Adam instead of RMSProp, many copies of the env, n-step targets as an option. All schedules
count agent steps summed over copies; moves of the target network are counted in updates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.protocols import Batch, Phase, Replay, Spaces
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import Adam, optimise, soft_update
from rlgan.nn.schedule import linear
from rlgan.nn.torsos import Precision, value_network
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class DQNConfig:
    """Settings of DQN."""

    lr: Annotated[float, Gt(0)] = 2.5e-4
    """Adam step size."""
    lr_end: Fraction = 1.0
    """Fraction of lr that is left at the end of the run, reached linearly; 1 keeps it constant."""
    adam_eps: Annotated[float, Gt(0)] = 1e-8
    """Added to the root of Adam's second moment."""
    gamma: Fraction = 0.99
    """Discount per step."""
    batch_size: Annotated[int, Gt(0)] = 64
    """Windows per update."""
    capacity: Annotated[int, Gt(0)] = 50_000
    """Rows that the replay holds, summed over copies."""
    learning_starts: Annotated[int, Ge(0)] = 1_000
    """Rows collected before the first update."""
    train_every: Annotated[int, Gt(0)] = 4
    """Rows between bursts of updates, rounded up to whole vector steps; the ratio of updates to rows is exact."""
    updates: Annotated[int, Gt(0)] = 1
    """Updates per train_every rows."""
    sync_every: Annotated[int, Gt(0)] = 250
    """Updates between moves of the target network."""
    tau: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0
    """How far the target network moves towards the online one; 1 copies it."""
    epsilon_start: Fraction = 1.0
    """Share of random actions at the first step."""
    epsilon_end: Fraction = 0.05
    """Share of random actions from epsilon_steps on."""
    epsilon_steps: Annotated[int, Gt(0)] = 10_000
    """Steps over which epsilon falls linearly."""
    epsilon_eval: Fraction = 0.0
    """Share of random actions in evaluation and video."""
    n_step: Annotated[int, Gt(0)] = 1
    """Rewards summed before the bootstrap."""
    double: bool = False
    """Choose the bootstrap action by the online network."""
    loss: Literal["huber", "mse"] = "huber"
    """Huber has slope 1 beyond an error of 1; mse is half the squared error."""
    max_grad_norm: Annotated[float, Gt(0)] = 10.0
    """Global norm to which gradients are clipped."""
    clip_reward: bool = False
    """Learn from the sign of rewards. Recorded and evaluated scores stay raw."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers for vectors; images take NatureCNN, boards of few cells PlanesCNN."""
    precision: Precision = "auto"
    """Arithmetic of NatureCNN; auto is bfloat16 where it is faster. Weights and optimiser stay float32."""


class DQN(Saved):
    """Satisfies Agent. Observations (n, ...), actions (n,) int64 of a Discrete space."""

    kept = ("q", "target", "optimiser")

    def __init__(self, spaces: Spaces, config: DQNConfig, device: torch.device) -> None:
        assert isinstance(spaces.action, Discrete)
        self.config, self.device, self.steps = config, device, spaces.steps
        self.actions, self.lowest = int(spaces.action.n), int(spaces.action.start)
        make = (spaces.observation, self.actions, config.hidden, config.precision, device)
        self.q, self.target = value_network(*make), value_network(*make).requires_grad_(False)
        soft_update(self.target, self.q, 1.0)
        self.optimiser = Adam(self.q.parameters(), config.lr, eps=config.adam_eps)

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """Epsilon-greedy, independently in each copy."""
        c = self.config
        greedy = self.q(obs).argmax(-1)
        epsilon = linear(step, c.epsilon_start, c.epsilon_end, c.epsilon_steps) if explore else c.epsilon_eval
        random = torch.randint(self.actions, greedy.shape, device=self.device)
        chosen = torch.where(torch.rand(greedy.shape, device=self.device) < epsilon, random, greedy)
        return {"action": chosen + self.lowest}, None

    def phases(self) -> list[Phase]:
        """One phase: train from replay for the whole run."""
        c = self.config
        replay = Replay(
            c.capacity, c.batch_size, c.train_every, c.updates, c.learning_starts, c.n_step, c.gamma, c.clip_reward
        )
        return [Phase("train", replay, self.update, periodic=((c.sync_every, self.sync),))]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch: (B, ...) windows with ``reward``, ``discount`` and ``next_obs``."""
        c = self.config
        if c.lr_end < 1.0:
            self.optimiser.lr.copy_(linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps))
        batch = {**batch, "action": batch["action"] - self.lowest}
        loss, q = td_loss(self.q, self.target, batch, c.double, c.loss)
        norm = optimise(self.optimiser, loss, c.max_grad_norm)
        return {"loss": loss.detach(), "q": q.detach().mean(), "grad_norm": norm}

    def sync(self) -> None:
        """Move the target network."""
        soft_update(self.target, self.q, self.config.tau)


def td_loss(
    q: nn.Module, target: nn.Module, batch: Batch, double: bool, kind: Literal["huber", "mse"]
) -> tuple[Tensor, Tensor]:
    """Mean weighted loss () of Q(s, a) (B,) against ``reward + discount * max_a Q_target(next, a)``, and Q(s, a).

    With ``double`` the maximum is taken where the online network has it.
    """
    with torch.no_grad():
        following = target(batch["next_obs"])
        if double:
            best = q(batch["next_obs"]).argmax(-1, keepdim=True)
            value = following.gather(1, best).squeeze(1)
        else:
            value = following.amax(-1)
        goal = batch["reward"] + batch["discount"] * value
    taken = q(batch["obs"]).gather(1, batch["action"].unsqueeze(1)).squeeze(1)
    error = F.smooth_l1_loss(taken, goal, reduction="none") if kind == "huber" else 0.5 * (taken - goal).square()
    return (error * batch["weight"]).mean(), taken


def refuses(observation: Space, action: Space) -> str | None:
    """Discrete actions and Box observations only."""
    if not isinstance(action, Discrete):
        return f"dqn chooses among numbered actions, this env takes {action}"
    if not isinstance(observation, Box):
        return f"dqn reads arrays, this env gives {observation}"
    return None


CARTPOLE = {
    "steps": 50_000,
    "copies": 8,
    "agent.lr": 1e-3,
    "agent.lr_end": 0.0,
    "agent.train_every": 8,
    "agent.updates": 4,
    "agent.sync_every": 1,
    "agent.tau": 0.01,
    "agent.epsilon_steps": 5_000,
    "agent.double": True,
}
CARTPOLE_ZOO = {
    "steps": 50_000,
    "copies": 64,
    "agent.lr": 2.3e-3,
    "agent.batch_size": 64,
    "agent.capacity": 100_000,
    "agent.learning_starts": 1_000,
    "agent.train_every": 256,
    "agent.updates": 128,
    "agent.sync_every": 128,
    "agent.epsilon_end": 0.04,
    "agent.epsilon_steps": 8_000,
    "agent.hidden": (256, 256),
}
BRICKS = {
    "steps": 100_000,
    "copies": 32,
    "agent.lr": 5e-4,
    "agent.lr_end": 0.1,
    "agent.gamma": 0.97,
    "agent.batch_size": 32,
    "agent.capacity": 100_000,
    "agent.learning_starts": 2_000,
    "agent.epsilon_end": 0.02,
    "agent.epsilon_steps": 20_000,
    "agent.n_step": 3,
    "agent.double": True,
}
ACROBOT = {
    "steps": 50_000,
    "copies": 16,
    "agent.lr": 1e-3,
    "agent.lr_end": 0.0,
    "agent.train_every": 16,
    "agent.updates": 8,
    "agent.sync_every": 1,
    "agent.tau": 0.01,
    "agent.epsilon_steps": 5_000,
    "agent.double": True,
    "agent.hidden": (64, 64),
}
ATARI = {
    "copies": 16,
    "agent.lr": 1e-4,
    "agent.batch_size": 32,
    "agent.train_every": 4,
    "agent.epsilon_end": 0.01,
    "agent.epsilon_eval": 0.01,
    "agent.clip_reward": True,
}
BREAKOUT_1M = ATARI | {
    "steps": 1_000_000,
    "agent.adam_eps": 1.5e-4,
    "agent.double": True,
    "agent.n_step": 3,
    "agent.capacity": 100_000,
    "agent.learning_starts": 20_000,
    "agent.train_every": 8,
    "agent.epsilon_steps": 100_000,
    "agent.sync_every": 250,
}
CLEANRL = ATARI | {
    "steps": 10_000_000,
    "agent.capacity": 1_000_000,
    "agent.learning_starts": 80_000,
    "agent.epsilon_steps": 1_000_000,
    "agent.sync_every": 250,
    "agent.loss": "mse",
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """DQN and its tuned settings."""
    yield AgentSpec(
        "dqn",
        DQN,
        DQNConfig,
        "deep Q-learning with target network and replay, discrete actions",
        refuses,
        presets=(
            Preset("cartpole", "cartpole", CARTPOLE, True, "expect 475 or more of 500 at the end, in about 20 seconds"),
            Preset("cartpole-zoo", "cartpole", CARTPOLE_ZOO, False, "the settings of RL-Zoo, for comparisons of speed"),
            Preset("bricks", "bricks", BRICKS, True, "random play scores 0.4; expect 10 bricks a game by 40k steps"),
            Preset(
                "acrobot", "acrobot", ACROBOT, True, "random play scores -499; expect -92 to -79, in one or two minutes"
            ),
            Preset(
                "breakout-1m",
                "breakout",
                BREAKOUT_1M,
                True,
                "random play scores 1.7; expect the return to rise after 150k steps and to pass 15 by 450k",
            ),
            Preset("cleanrl", "breakout", CLEANRL, False, "CleanRL's 10M-step protocol, 7.1 GB of replay; expect 367"),
        ),
        tags=("value-based", "off-policy", "discrete"),
    )
