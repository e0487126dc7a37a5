"""DQN (Mnih et al. 2015): Q-learning with a target network and replay; and, each as a flag, what Rainbow makes of it.

Double targets, n-step windows, two streams, replay by priority, noisy layers, and distributions of the return instead
of its mean (Hessel et al. 2018 has all references). Differs from the paper: Adam instead of RMSProp, many copies of the
env. All schedules count agent steps summed over copies; moves of the target network are counted in updates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Discrete, Space
from torch import Tensor

from rlgan.core.protocols import Batch, Phase, Priorities, Replay, Spaces
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import Adam, optimise, soft_update
from rlgan.nn.schedule import linear
from rlgan.nn.tops import Top, without_noise
from rlgan.nn.torsos import Precision, value_network
from rlgan.nn.value_heads import HeadName, LossName, epsilon_greedy, make_head, unfit
from rlgan.specs import AgentSpec
from rlgan.store.state import Saved
from rlgan_agents.dqn_presets import PRESETS

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
    dueling: bool = False
    """Tell the value of a state and the advantages of actions in two streams."""
    prioritised: bool = False
    """Draw rows by their error when they were last drawn, instead of uniformly."""
    priority_alpha: Fraction = 0.5
    """Exponent of the priorities; 0 is uniform."""
    priority_beta: Fraction = 0.4
    """Exponent of the weights that undo the bias; it rises to 1 over the run."""
    noisy: bool = False
    """Learned noise in the last two layers, which explores by itself: then epsilon_start and epsilon_end may be 0."""
    noisy_sigma: Annotated[float, Gt(0)] = 0.5
    """Where that noise starts, as a multiple of 1 over the root of a layer's inputs."""
    head: HeadName = "q"
    """What is learned of the return: its mean (q), a distribution over atoms (c51) or quantiles (qr)."""
    atoms: Annotated[int, Gt(1)] = 51
    """Atoms of c51, or quantiles of qr."""
    v_min: float = -10.0
    """Lowest atom of c51."""
    v_max: float = 10.0
    """Highest atom of c51. A return beyond counts as this one."""
    loss: LossName = "huber"
    """Of head q. Huber has slope 1 beyond an error of 1; mse is half the squared error."""
    max_grad_norm: Annotated[float, Gt(0)] = 10.0
    """Global norm to which gradients are clipped."""
    clip_reward: bool = False
    """Learn from the sign of rewards. Recorded and evaluated scores stay raw."""
    hidden: tuple[Annotated[int, Gt(0)], ...] = (128, 128)
    """Widths of the hidden layers for vectors; images take NatureCNN, boards of few cells PlanesCNN."""
    precision: Precision = "auto"
    """Arithmetic of NatureCNN; auto is bfloat16 where it is faster. Weights and optimiser stay float32."""


class DQN(Saved):
    """Satisfies Agent. Observations (n, ...), actions (n,) int64 of a Discrete space."""

    kept = ("q", "target", "optimiser")

    def __init__(self, spaces: Spaces, config: DQNConfig, device: torch.device) -> None:
        assert isinstance(spaces.action, Discrete)
        c = self.config = config
        self.steps = spaces.steps
        self.actions, self.lowest = int(spaces.action.n), int(spaces.action.start)
        self.head = make_head(c.head, c.loss, c.atoms, c.v_min, c.v_max, device)
        top = Top(self.head.each, c.dueling, c.noisy_sigma if c.noisy else 0.0)
        make = (spaces.observation, self.actions * self.head.each, c.hidden, c.precision, device, top)
        self.q, self.target = value_network(*make), value_network(*make).requires_grad_(False)
        soft_update(self.target, self.q, 1.0)
        self.optimiser = Adam(self.q.parameters(), c.lr, eps=c.adam_eps)

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """Epsilon-greedy, independently in each copy; so is the noise of noisy layers, of which evaluation has none."""
        c = self.config
        out = self.q(obs) if explore or not c.noisy else without_noise(self.q, obs)
        greedy = self.head.values(out).argmax(-1)
        epsilon = linear(step, c.epsilon_start, c.epsilon_end, c.epsilon_steps) if explore else c.epsilon_eval
        chosen = epsilon_greedy(greedy, self.actions, epsilon)
        return {"action": chosen + self.lowest}, None

    def phases(self) -> list[Phase]:
        """One phase: train from replay for the whole run."""
        c = self.config
        replay = Replay(
            *(c.capacity, c.batch_size, c.train_every, c.updates, c.learning_starts, c.n_step, c.gamma, c.clip_reward),
            priorities=Priorities(c.priority_alpha, c.priority_beta, self.steps) if c.prioritised else None,
        )
        return [Phase("train", replay, self.update, periodic=((c.sync_every, self.sync),))]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch: (B, ...) windows with ``reward``, ``discount`` and ``next_obs``."""
        c = self.config
        if c.lr_end < 1.0:
            self.optimiser.lr.copy_(linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps))
        batch = {**batch, "action": batch["action"] - self.lowest}
        rows, q = self.head.loss(self.q, self.target, batch, c.double)
        loss = (rows * batch["weight"]).mean()
        norm = optimise(self.optimiser, loss, c.max_grad_norm)
        metrics = {"loss": loss.detach(), "q": q.detach().mean(), "grad_norm": norm}
        return metrics | {"priority": self.head.priority(rows.detach())} if c.prioritised else metrics

    def sync(self) -> None:
        """Move the target network."""
        soft_update(self.target, self.q, self.config.tau)


def refuses(observation: Space, action: Space) -> str | None:
    """Discrete actions and Box observations only."""
    return unfit("dqn", observation, action)


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """DQN; its tuned settings stand in dqn_presets."""
    yield AgentSpec(
        "dqn",
        DQN,
        DQNConfig,
        "deep Q-learning with target network and replay, discrete actions",
        refuses,
        presets=PRESETS,
        tags=("value-based", "off-policy", "discrete"),
    )
