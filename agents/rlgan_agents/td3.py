"""TD3 (Fujimoto et al. 2018): a deterministic actor under two critics, of which the lower value counts.

Differs from the paper: many copies of the env; noise may be correlated over time. Noise is in units of the action's
half range.
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
class TD3Config:
    """Settings of TD3."""

    lr: Annotated[float, Gt(0)] = 3e-4
    """Adam step size of actor and critics."""
    gamma: Fraction = 0.99
    """Discount per step."""
    tau: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.005
    """How far the targets move towards the online networks each time the actor learns."""
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
    policy_delay: Annotated[int, Gt(0)] = 2
    """Updates of the critics for each one of the actor and the targets."""
    noise: Annotated[float, Ge(0)] = 0.1
    """Standard deviation of the noise in actions while exploring; actions lie in -1 to 1."""
    noise_memory: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0
    """Correlation of that noise with that of the step before; Ornstein-Uhlenbeck noise has 0.85."""
    target_noise: Annotated[float, Ge(0)] = 0.2
    """Standard deviation of the noise in the target actor's actions, which smooths the critics over similar actions."""
    target_noise_clip: Annotated[float, Ge(0)] = 0.5
    """Bound of that noise."""
    hidden: tuple[Annotated[int, Gt(0)], ...] = (256, 256)
    """Widths of the hidden layers of the actor and of each critic."""
    precision: Precision = "auto"
    """Arithmetic of products of hidden layers; auto is bfloat16 where it is faster. Weights stay float32."""


class TD3(Saved):
    """Satisfies Agent. Observations are vectors, actions a Box with bounds.

    Rows hold the action in -1 to 1 as ``draw`` (n, D).
    """

    kept = ("actor", "critics", "target_actor", "target_critics", "actor_optimiser", "critic_optimiser", "policy_loss")

    def __init__(self, spaces: Spaces, config: TD3Config, device: torch.device) -> None:
        assert isinstance(spaces.action, Box)
        c = self.config = config
        self.bounds = Bounded(spaces.action, device)
        self.noise = Noise(self.bounds.size, c.noise_memory, device)
        dtype, size = compute_dtype(c.precision, device), self.bounds.size
        self.actor, self.critics = networks(spaces, c.hidden, dtype, device, size, critics=2)
        self.target_actor, self.target_critics = target_of(self.actor), target_of(self.critics)
        self.actor_optimiser = Adam(self.actor.parameters(), c.lr)
        self.critic_optimiser = Adam(self.critics.parameters(), c.lr)
        self.policy_loss = torch.zeros((), device=device)
        """Of the last update of the actor."""

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
        return [Phase("train", replay, self.update, delayed=((c.policy_delay, self.improve),))]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of rows (B, ...) for the critics."""
        c = self.config
        noise = (c.target_noise * torch.randn_like(batch["draw"])).clamp(-c.target_noise_clip, c.target_noise_clip)
        batch = {**batch, "obs": flat(batch["obs"]), "next_obs": flat(batch["next_obs"])}
        loss, taken = critic_loss(self.critics, self.target_actor, self.target_critics, batch, noise)
        norm = optimise(self.critic_optimiser, loss, math.inf)
        metrics = {"critic_loss": loss.detach(), "q": taken.detach().mean(), "grad_norm": norm}
        return {**metrics, "policy_loss": self.policy_loss}

    def improve(self, batch: Batch) -> None:
        """The same minibatch for the actor; then both targets move."""
        loss = actor_loss(self.actor, self.critics, flat(batch["obs"]), batch["weight"])
        optimise(self.actor_optimiser, loss, math.inf)
        self.policy_loss.copy_(loss.detach())
        soft_update(self.target_actor, self.actor, self.config.tau)
        soft_update(self.target_critics, self.critics, self.config.tau)


def critic_loss(
    critics: nn.Module, target_actor: nn.Module, target_critics: nn.Module, batch: Batch, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum over critics of half the weighted mean squared error (), and their values (2, B) of the actions taken.

    The goal is ``reward + discount * min_i Q_i(next, a)`` by the targets, at the target actor's action plus ``noise``
    (B, D), clipped to -1 to 1.
    """
    with torch.no_grad():
        action = (target_actor(batch["next_obs"]).tanh() + noise).clamp(-1.0, 1.0)
        value = target_critics(torch.cat([batch["next_obs"], action], -1)).amin(0).squeeze(-1)
        goal = batch["reward"] + batch["discount"] * value
    taken = critics(torch.cat([batch["obs"], batch["draw"]], -1)).squeeze(-1)
    return (0.5 * (taken - goal).square() * batch["weight"]).mean(-1).sum(), taken


def actor_loss(actor: nn.Module, critics: Critics, obs: Tensor, weight: Tensor) -> Tensor:
    """Minus the weighted mean value () of the actor's actions by the first critic, which stays as it is."""
    value = critics.fixed(torch.cat([obs, actor(obs).tanh()], -1), 1)
    return -(value.flatten() * weight).mean()


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
    """TD3 and its tuned settings."""
    yield AgentSpec(
        "td3",
        TD3,
        TD3Config,
        "deterministic actor under twin critics, with smoothed targets, continuous actions",
        refuses,
        presets=(Preset("pendulum", "pendulum", PENDULUM, True, "random play scores -1232; RL-Zoo reaches -152"),),
        tags=("actor-critic", "off-policy", "continuous"),
    )
