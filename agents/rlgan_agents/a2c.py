"""A2C: advantage actor-critic (Mnih et al. 2016) with synchronous copies, one update per rollout.

Differs from the paper: one learner, and copies that step together, so no gradient is stale; layers start orthogonal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Space
from torch import Tensor

from rlgan.core.protocols import Batch, Observation, Phase, Rollouts, Spaces
from rlgan.core.returns import gae
from rlgan.hookspecs import hookimpl
from rlgan.nn.actor_critic import ActorCritic, unfit
from rlgan.nn.optimise import Adam, RMSProp, optimise
from rlgan.nn.schedule import linear
from rlgan.nn.torsos import Precision
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class A2CConfig:
    """Settings of A2C."""

    lr: Annotated[float, Gt(0)] = 7e-4
    """Step size."""
    lr_end: Fraction = 1.0
    """Fraction of lr that is left at the end of the run, reached linearly; 1 keeps it constant."""
    optimiser: Literal["rmsprop", "adam"] = "rmsprop"
    """rmsprop is that of TensorFlow, with eps inside the root, which published results were made with."""
    eps: Annotated[float, Gt(0)] = 1e-5
    """Added to the optimiser's second moment (rmsprop) or to its root (adam)."""
    gamma: Fraction = 0.99
    """Discount per step."""
    lam: Fraction = 1.0
    """How far advantages look ahead; 0 is one step, 1 the rest of the rollout."""
    horizon: Annotated[int, Gt(0)] = 5
    """Rows of each copy per rollout."""
    normalise: bool = False
    """Give the advantages of each rollout mean 0 and deviation 1."""
    entropy: Annotated[float, Ge(0)] = 0.0
    """Weight of the entropy bonus."""
    value_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the value's squared error."""
    max_grad_norm: Annotated[float, Gt(0)] = 0.5
    """Global norm to which gradients are clipped."""
    clip_reward: bool = False
    """Learn from the sign of rewards. Recorded and evaluated scores stay raw."""
    hidden: tuple[Annotated[int, Gt(0)], ...] = (64, 64)
    """Widths of the hidden tanh layers for vectors, for policy and value each; images take a shared CNN instead."""
    precision: Precision = "auto"
    """Arithmetic of NatureCNN; auto is bfloat16 where the processor has it. Weights and optimiser stay float32."""


class A2C(Saved):
    """Satisfies Agent. Observations (n, ...); actions of a Discrete, MultiDiscrete or Box space."""

    kept = ("net", "optimiser")

    def __init__(self, spaces: Spaces, config: A2CConfig, device: torch.device) -> None:
        self.config, self.steps = config, spaces.steps
        self.net = ActorCritic(spaces.observation, spaces.action, config.hidden, config.precision, device)
        make = RMSProp if config.optimiser == "rmsprop" else Adam
        self.optimiser = make(self.net.parameters(), config.lr, eps=config.eps)

    def carry(self, n: int) -> Any:
        """Fresh recurrent state, if there is any."""
        return self.net.carry(n)

    def act(self, obs: Observation, carry: Any, step: Tensor, explore: bool) -> tuple[Batch, Any]:
        """Draw from the policy; in evaluation take its most probable action."""
        parameters, value, carry = self.net(obs, carry)
        pi = self.net.distribution
        if not explore:
            return {"action": pi.action(pi.mode(parameters))}, carry
        draw = pi.draw(parameters)
        return {"action": pi.action(draw), "draw": draw, "value": value}, carry

    def phases(self) -> list[Phase]:
        """One phase: train from rollouts for the whole run."""
        c = self.config
        return [Phase("train", Rollouts(c.horizon, clip_reward=c.clip_reward), self.update, prepare=self.prepare)]

    def prepare(self, rollout: Batch) -> Batch:
        """Add ``advantage`` and the value's ``target``, (T, N)."""
        c, value = self.config, rollout["value"]
        ends = rollout["terminated"], rollout["truncated"]
        advantage = gae(rollout["reward"], value, self.net.next_values(rollout), *ends, c.gamma, c.lam)
        return {**rollout, "advantage": advantage, "target": advantage + value}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """The whole rollout as rows (B, ...)."""
        c = self.config
        if c.lr_end < 1.0:
            self.optimiser.lr.copy_(linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps))
        loss, metrics = a2c_loss(self.net, batch, c.value_weight, c.entropy, c.normalise)
        norm = optimise(self.optimiser, loss, c.max_grad_norm)
        return {**metrics, "grad_norm": norm}


def a2c_loss(
    net: ActorCritic, batch: Batch, value_weight: float, entropy_weight: float, normalise: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """``-A log pi(draw) + value_weight (V - target)^2 - entropy_weight H``, mean over rows: the loss () and metrics."""
    parameters, value = net.evaluate(batch)
    pi, weight, advantage = net.distribution, batch["weight"], batch["advantage"]
    if normalise:
        centred = advantage - (advantage * weight).mean()
        advantage = centred / ((centred.square() * weight).mean().sqrt() + 1e-8)
    policy_loss = -(pi.log_prob(parameters, batch["draw"]) * advantage * weight).mean()
    value_loss = ((value - batch["target"]).square() * weight).mean()
    entropy = (pi.entropy(parameters) * weight).mean()
    loss = policy_loss + value_weight * value_loss
    if entropy_weight:  # its gradient costs a tenth of a small update
        loss = loss - entropy_weight * entropy
    metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return loss, {name: value.detach() for name, value in metrics.items()}


def refuses(observation: Space, action: Space) -> str | None:
    """Spaces that no actor-critic network fits."""
    return unfit(observation, action)


CARTPOLE = {"steps": 500_000, "copies": 8}
BREAKOUT = {
    "steps": 10_000_000,
    "copies": 16,
    "agent.entropy": 0.01,
    "agent.value_weight": 0.25,
    "agent.clip_reward": True,
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """A2C and its tuned settings."""
    yield AgentSpec(
        "a2c",
        A2C,
        A2CConfig,
        "advantage actor-critic, discrete and continuous actions",
        refuses,
        presets=(
            Preset(
                "cartpole", "cartpole", CARTPOLE, True, "the settings of RL-Zoo; expect 475 or more of 500 at the end"
            ),
            Preset("breakout", "breakout", BREAKOUT, True, "the 10M-step protocol of RL-Zoo, which reaches 280"),
        ),
        tags=("policy gradient", "on-policy", "discrete", "continuous"),
    )
