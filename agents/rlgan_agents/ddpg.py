"""DDPG (Lillicrap et al. 2016): a deterministic actor that climbs a critic of state and action.

Differs from the paper: one optimiser with one step size steps both networks at once, neither has batch normalisation or
weight decay, the action enters with the state, and noise is normal unless it is to be remembered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Box, Space
from torch import Tensor, nn

from rlgan.core.protocols import Batch, Phase, Replay, Spaces
from rlgan.hookspecs import hookimpl
from rlgan.nn.continuous import Bounded, Carry, Critics, Noise, networks, target_of, unfit, uniform
from rlgan.nn.optimise import Adam, optimise, soft_update
from rlgan.nn.torsos import Precision, compute_dtype, flat
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class DDPGConfig:
    """Settings of DDPG."""

    lr: Annotated[float, Gt(0)] = 3e-4
    """Adam step size of actor and critic."""
    gamma: Fraction = 0.99
    """Discount per step."""
    tau: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.005
    """How far the targets move towards the online networks in each update."""
    batch_size: Annotated[int, Gt(0)] = 256
    """Rows per update."""
    capacity: Annotated[int, Gt(0)] = 1_000_000
    """Rows that the replay holds, summed over copies; memory grows as they arrive."""
    learning_starts: Annotated[int, Ge(0)] = 1_000
    """Rows collected before the first update; actions are uniform for as many steps."""
    train_every: Annotated[int, Gt(0)] = 1
    """Rows between bursts of updates, rounded up to whole vector steps; the ratio of updates to rows is exact."""
    updates: Annotated[int, Gt(0)] = 1
    """Updates per train_every rows."""
    noise: Annotated[float, Ge(0)] = 0.1
    """Standard deviation of the noise in actions while exploring; actions lie in -1 to 1."""
    noise_memory: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0
    """Correlation of that noise with that of the step before; the paper's Ornstein-Uhlenbeck noise has 0.85."""
    hidden: tuple[Annotated[int, Gt(0)], ...] = (256, 256)
    """Widths of the hidden layers of the actor and of the critic."""
    precision: Precision = "auto"
    """Arithmetic of products of hidden layers; auto is bfloat16 where it is faster. Weights stay float32."""


class DDPG(Saved):
    """Satisfies Agent. Observations are vectors, actions a Box with bounds.

    Rows hold the action in -1 to 1 as ``draw`` (n, D).
    """

    kept = ("actor", "critic", "target_actor", "target_critic", "optimiser")

    def __init__(self, spaces: Spaces, config: DDPGConfig, device: torch.device) -> None:
        assert isinstance(spaces.action, Box)
        c = self.config = config
        self.bounds = Bounded(spaces.action, device)
        self.noise = Noise(self.bounds.size, c.noise_memory, device)
        dtype, size = compute_dtype(c.precision, device), self.bounds.size
        self.actor, self.critic = networks(spaces, c.hidden, dtype, device, size, critics=1)
        self.target_actor, self.target_critic = target_of(self.actor), target_of(self.critic)
        self.optimiser = Adam([*self.actor.parameters(), *self.critic.parameters()], c.lr)

    def carry(self, n: int) -> Carry:
        """The noise of the step before, where it matters."""
        return self.noise.carry(n)

    def act(self, obs: Tensor, carry: Carry, step: Tensor, explore: bool) -> tuple[Batch, Carry]:
        """The actor's action with noise, uniform before learning starts; in evaluation without."""
        c, draw = self.config, self.actor(obs).tanh()
        if explore:
            noise, carry = self.noise.draw(len(obs), carry)
            noisy = (draw + c.noise * noise).clamp(-1.0, 1.0)
            draw = torch.where(step < c.learning_starts, uniform(noise), noisy)
        return {"action": self.bounds.to_env(draw), "draw": draw}, carry

    def phases(self) -> list[Phase]:
        """One phase: train from replay for the whole run."""
        c = self.config
        ratio = (c.train_every, c.updates, c.learning_starts)
        replay = Replay(c.capacity, c.batch_size, *ratio, gamma=c.gamma, acting_carry=True)
        return [Phase("train", replay, self.update)]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of rows (B, ...)."""
        batch = {**batch, "obs": flat(batch["obs"]), "next_obs": flat(batch["next_obs"])}
        loss, metrics = ddpg_loss(self.actor, self.critic, self.target_actor, self.target_critic, batch)
        norm = optimise(self.optimiser, loss, math.inf)
        soft_update(self.target_actor, self.actor, self.config.tau)
        soft_update(self.target_critic, self.critic, self.config.tau)
        return {**metrics, "grad_norm": norm}


def ddpg_loss(
    actor: nn.Module, critic: Critics, target_actor: nn.Module, target_critic: nn.Module, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum () of two losses that share no parameters, weighted means over rows (B, ...), and metrics.

    Critic: half the squared error against ``reward + discount * Q(next, actor(next))`` by the targets. Actor: minus the
    value of its actions by the critic, which stays as it is.
    """
    obs, following, weight = batch["obs"], batch["next_obs"], batch["weight"]
    with torch.no_grad():
        value = target_critic(torch.cat([following, target_actor(following).tanh()], -1)).flatten()
        goal = batch["reward"] + batch["discount"] * value
    taken = critic(torch.cat([obs, batch["draw"]], -1)).flatten()  # (B,): one critic, one value
    critic_loss = (0.5 * (taken - goal).square() * weight).mean()
    policy_loss = -(critic.fixed(torch.cat([obs, actor(obs).tanh()], -1)).flatten() * weight).mean()
    metrics = {"critic_loss": critic_loss, "policy_loss": policy_loss, "q": taken.mean()}
    return critic_loss + policy_loss, {name: metric.detach() for name, metric in metrics.items()}


def refuses(observation: Space, action: Space) -> str | None:
    """Vectors, and a Box with bounds."""
    return unfit(observation, action)


PENDULUM = {
    "steps": 20_000,
    "copies": 8,
    "agent.lr": 1e-3,
    "agent.gamma": 0.98,
    "agent.capacity": 200_000,
    "agent.learning_starts": 10_000,
    "agent.hidden": (400, 300),
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """DDPG and its tuned settings."""
    yield AgentSpec(
        "ddpg",
        DDPG,
        DDPGConfig,
        "deterministic actor and critic, continuous actions",
        refuses,
        presets=(Preset("pendulum", "pendulum", PENDULUM, True, "random play scores -1232; RL-Zoo reaches -152"),),
        tags=("actor-critic", "off-policy", "continuous"),
    )
