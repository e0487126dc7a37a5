"""SAC (Haarnoja et al. 2018): an actor and two critics that maximise reward and entropy, with a learned temperature.

The temperature follows *Soft Actor-Critic Algorithms and Applications*, numbered actions Christodoulou (2019). Differs
from the papers: one optimiser steps actor, critics and temperature at once, all along gradients at the old parameters;
noise may be correlated over time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Discrete, Space
from torch import Tensor, nn

from rlgan.core.protocols import Batch, Phase, Replay, Spaces
from rlgan.hookspecs import hookimpl
from rlgan.nn.continuous import Bounded, Carry, Critics, Noise, networks, squashed, target_of, unfit, uniform
from rlgan.nn.distributions import Categorical
from rlgan.nn.optimise import Adam, optimise, soft_update
from rlgan.nn.torsos import Precision, compute_dtype, flat
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class SACConfig:
    """Settings of SAC."""

    lr: Annotated[float, Gt(0)] = 3e-4
    """Adam step size of actor, critics and temperature."""
    gamma: Fraction = 0.99
    """Discount per step."""
    tau: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.005
    """How far the target critics move towards the online ones in each update."""
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
    alpha: Annotated[float, Gt(0)] = 1.0
    """Temperature: the worth of one nat of entropy. Where it is learned, its value at the start."""
    learn_alpha: bool = True
    """Steer the temperature so that the policy keeps its target entropy."""
    entropy_per_number: float = -1.0
    """Target entropy in nats for each number of an action in -1 to 1; the uniform policy has log 2."""
    entropy_share: Fraction = 0.89
    """Target entropy for numbered actions, as a share of the uniform policy's."""
    noise_memory: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0
    """Correlation of the noise in actions with that of the step before, for envs where single pushes lead nowhere."""
    critics: Annotated[int, Gt(0)] = 2
    """Critics, of whose values the least counts."""
    hidden: tuple[Annotated[int, Gt(0)], ...] = (256, 256)
    """Widths of the hidden layers of the actor and of each critic."""
    precision: Precision = "auto"
    """Arithmetic of products of hidden layers; auto is bfloat16 where it is faster. Weights stay float32."""


class SAC(Saved):
    """Satisfies Agent. Observations are vectors; actions a Box with bounds, or numbered.

    Rows hold the ``draw``: the action in -1 to 1 (n, D), or its number from 0 (n,).
    """

    kept = ("actor", "critics", "target", "log_alpha", "optimiser")

    def __init__(self, spaces: Spaces, config: SACConfig, device: torch.device) -> None:
        c = self.config = config
        self.device, self.numbered = device, isinstance(spaces.action, Discrete)
        if isinstance(spaces.action, Discrete):
            self.pi = Categorical(int(spaces.action.n), int(spaces.action.start))
            outputs, self.target_entropy = self.pi.size, c.entropy_share * math.log(self.pi.size)
        else:
            self.bounds = Bounded(spaces.action, device)
            self.noise = Noise(self.bounds.size, c.noise_memory, device)
            outputs, self.target_entropy = 2 * self.bounds.size, c.entropy_per_number * self.bounds.size
        dtype = compute_dtype(c.precision, device)
        self.actor, self.critics = networks(spaces, c.hidden, dtype, device, outputs, c.critics)
        self.target = target_of(self.critics)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(c.alpha), device=device), requires_grad=c.learn_alpha)
        learned = [*self.actor.parameters(), *self.critics.parameters(), self.log_alpha]
        self.optimiser = Adam([p for p in learned if p.requires_grad], c.lr)

    def carry(self, n: int) -> Carry:
        """The noise of the step before, where it matters."""
        return None if self.numbered else self.noise.carry(n)

    def act(self, obs: Tensor, carry: Carry, step: Tensor, explore: bool) -> tuple[Batch, Carry]:
        """Draw from the policy, uniformly before learning starts; in evaluation take its most probable action."""
        parameters, warm_up = self.actor(obs), step < self.config.learning_starts
        if self.numbered:
            draw = self.pi.draw(parameters) if explore else self.pi.mode(parameters)
            if explore:
                draw = torch.where(warm_up, torch.randint_like(draw, self.pi.size), draw)
            return {"action": self.pi.action(draw), "draw": draw}, None
        if explore:
            noise, carry = self.noise.draw(len(obs), carry)
            draw = torch.where(warm_up, uniform(noise), squashed(parameters, noise)[0])
        else:
            draw = parameters.chunk(2, -1)[0].tanh()
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
        nets = self.actor, self.critics, self.target
        loss, metrics = sac_loss(*nets, self.log_alpha, batch, self.target_entropy, self.numbered)
        norm = optimise(self.optimiser, loss, math.inf)
        soft_update(self.target, self.critics, self.config.tau)
        return {**metrics, "grad_norm": norm}


def soft_value(
    actor: nn.Module, critics: Callable[[Tensor], Tensor], alpha: Tensor, obs: Tensor, numbered: bool
) -> tuple[Tensor, Tensor]:
    """``E[min_i Q_i(s, a)] + alpha H`` under the actor, and its entropy H, (B,).

    Exact for numbered actions; for a Box an estimate from one draw, whose gradient passes through the draw.
    """
    parameters = actor(obs)
    if numbered:
        log = parameters.log_softmax(-1)
        entropy = -(log.exp() * log).sum(-1)
        return (log.exp() * critics(obs).amin(0)).sum(-1) + alpha * entropy, entropy
    action, log_prob = squashed(parameters, torch.randn_like(parameters.chunk(2, -1)[0]))
    value = critics(torch.cat([obs, action], -1)).amin(0).squeeze(-1)
    return value - alpha * log_prob, -log_prob


def sac_loss(
    actor: nn.Module,
    critics: Critics,
    target: nn.Module,
    log_alpha: Tensor,
    batch: Batch,
    target_entropy: float,
    numbered: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum () of three losses that share no parameters, weighted means over rows (B, ...), and metrics.

    Critics: half the squared error of each against ``reward + discount * soft_value(next)`` by the target. Actor: minus
    the soft value by the fixed critics. Temperature: ``log alpha (H - target_entropy)``.
    """
    obs, draw, weight, alpha = batch["obs"], batch["draw"], batch["weight"], log_alpha.detach().exp()
    with torch.no_grad():
        goal = batch["reward"] + batch["discount"] * soft_value(actor, target, alpha, batch["next_obs"], numbered)[0]
    if numbered:
        values = critics(obs)
        taken = values.gather(-1, draw.expand(values.shape[:2]).unsqueeze(-1)).squeeze(-1)
    else:
        taken = critics(torch.cat([obs, draw], -1)).squeeze(-1)  # (E, B)
    critic_loss = (0.5 * (taken - goal).square() * weight).mean(-1).sum()
    value, entropy = soft_value(actor, critics.fixed, alpha, obs, numbered)
    policy_loss = -(value * weight).mean()
    entropy = (entropy.detach() * weight).mean()
    metrics = {"critic_loss": critic_loss, "policy_loss": policy_loss, "q": taken.mean()}
    metrics |= {"entropy": entropy, "alpha": alpha}
    loss = critic_loss + policy_loss + log_alpha * (entropy - target_entropy * weight.mean())
    return loss, {name: metric.detach() for name, metric in metrics.items()}


def refuses(observation: Space, action: Space) -> str | None:
    """Vectors, and numbered actions or a Box with bounds."""
    return unfit(observation, action, numbered=True)


PENDULUM = {"steps": 20_000, "copies": 8, "agent.lr": 1e-3, "agent.learning_starts": 100}
HALFCHEETAH = {"steps": 1_000_000, "copies": 4, "agent.learning_starts": 10_000}
REACHER = HALFCHEETAH | {"steps": 200_000}
CARTPOLE = {
    "copies": 8,
    "agent.lr": 1e-3,
    "agent.train_every": 8,
    "agent.updates": 4,
    "agent.entropy_share": 0.3,
    "agent.hidden": (64, 64),
}
MOUNTAINCAR = {
    "steps": 50_000,
    "copies": 8,
    "agent.gamma": 0.9999,
    "agent.tau": 0.01,
    "agent.batch_size": 512,
    "agent.capacity": 50_000,
    "agent.learning_starts": 8_000,
    "agent.train_every": 32,
    "agent.updates": 32,
    "agent.alpha": 0.1,
    "agent.learn_alpha": False,
    "agent.noise_memory": 0.95,
    "agent.hidden": (64, 64),
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """SAC and its tuned settings."""
    yield AgentSpec(
        "sac",
        SAC,
        SACConfig,
        "soft actor-critic with a learned temperature, continuous and discrete actions",
        refuses,
        presets=(
            Preset("pendulum", "pendulum", PENDULUM, True, "random play scores -1232; RL-Zoo reaches -157"),
            Preset("cartpole", "cartpole", CARTPOLE, True, "random play scores 22; 9 seeds of 10 end at 475 or more"),
            Preset("halfcheetah", "gym:HalfCheetah-v5", HALFCHEETAH, True, "RL-Zoo's settings, which reach 9535 on v3"),
            Preset("reacher", "gym:Reacher-v5", REACHER, True, "as halfcheetah; Tianshou reaches -2.6 in 1M steps"),
            Preset(
                "mountaincar-continuous",
                "mountaincar-continuous",
                MOUNTAINCAR,
                True,
                "random play scores -33; 90 solves it",
            ),
        ),
        tags=("actor-critic", "off-policy", "continuous", "discrete"),
    )
