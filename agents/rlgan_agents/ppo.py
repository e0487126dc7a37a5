"""PPO (Schulman et al. 2017) with generalised advantage estimation: clipped policy gradients over several epochs.

Differs from the paper: advantages are normalised in each minibatch, gradients are clipped, layers start orthogonal, as
in the implementations that published results come from. Schedules count agent steps summed over copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Space
from torch import Tensor

from rlgan.core.protocols import Batch, Observation, Phase, Rollouts, Spaces
from rlgan.core.returns import gae
from rlgan.hookspecs import hookimpl
from rlgan.nn.actor_critic import ActorCritic, Memory, unfit
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.schedule import linear
from rlgan.nn.torsos import Precision
from rlgan.specs import AgentSpec
from rlgan.store.state import Saved
from rlgan_agents.ppo_presets import PRESETS

USED = ("obs", "draw", "log_prob", "valid", "first", "carry")
"""What an update takes from a row as it was collected; each name more is gathered for each minibatch."""

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO."""

    lr: Annotated[float, Gt(0)] = 3e-4
    """Adam step size."""
    lr_end: Fraction = 1.0
    """Fraction of lr that is left at the end of the run, reached linearly; 1 keeps it constant."""
    adam_eps: Annotated[float, Gt(0)] = 1e-5
    """Added to the root of Adam's second moment."""
    gamma: Fraction = 0.99
    """Discount per step."""
    lam: Fraction = 0.95
    """How far advantages look ahead; 0 is one step, 1 the rest of the rollout."""
    horizon: Annotated[int, Gt(0)] = 128
    """Rows of each copy per rollout."""
    minibatch: Annotated[int, Gt(1)] = 256
    """Rows per update; it divides horizon x copies."""
    epochs: Annotated[int, Gt(0)] = 4
    """Passes over each rollout."""
    clip: Annotated[float, Gt(0)] = 0.2
    """How far the ratio of new to old probability may move from 1 before its gradient is cut off."""
    clip_end: Fraction = 1.0
    """Fraction of clip that is left at the end of the run, reached linearly; 1 keeps it constant."""
    normalise: bool = True
    """Give the advantages of each minibatch mean 0 and deviation 1."""
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
    memory: Memory = "none"
    """A recurrent layer before policy and value, for problems that one observation does not show whole."""
    cells: Annotated[int, Gt(0)] = 64
    """Width of the recurrent layer."""
    sequence: Annotated[int, Gt(0)] = 16
    """Rows that the recurrent layer is trained through at a time; it divides horizon and minibatch."""
    rows: bool = False
    """Rows of observations (K, F) are K actors that share their networks; the last number is a row's own reward."""
    precision: Precision = "auto"
    """Arithmetic of NatureCNN; auto is bfloat16 where the processor has it. Weights and optimiser stay float32."""


class PPO(Saved):
    """Satisfies Agent. Observations (n, ...); actions of a Discrete, MultiDiscrete or Box space."""

    kept = ("net", "optimiser")

    def __init__(self, spaces: Spaces, config: PPOConfig, device: torch.device) -> None:
        self.config, self.steps = config, spaces.steps
        shape = (config.hidden, config.precision, device, config.memory, config.cells, config.rows)
        self.net = ActorCritic(spaces.observation, spaces.action, *shape)
        self.optimiser = Adam(self.net.parameters(), config.lr, eps=config.adam_eps)

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
        kept = {"draw": draw, "log_prob": pi.log_prob(parameters, draw), "value": value}
        return {"action": pi.action(draw), **kept}, carry

    def phases(self) -> list[Phase]:
        """One phase: train from rollouts for the whole run."""
        c = self.config
        rollouts = Rollouts(c.horizon, c.minibatch, c.epochs, c.sequence if c.memory != "none" else 0, c.clip_reward)
        return [Phase("train", rollouts, self.update, prepare=self.prepare)]

    def prepare(self, rollout: Batch) -> Batch:
        """Leave what updates use, with ``advantage`` and the value's ``target``, (T, N)."""
        c, value = self.config, rollout["value"]
        reward, ends = rollout["reward"], (rollout["terminated"], rollout["truncated"])
        if c.rows:
            reward, ends = rollout["next_obs"][..., -1], tuple(end.unsqueeze(-1) for end in ends)
            reward = reward.sign() if c.clip_reward else reward
        advantage = gae(reward, value, self.net.next_values(rollout), *ends, c.gamma, c.lam)
        used = {name: rollout[name] for name in USED if name in rollout}
        return {**used, "advantage": advantage, "target": advantage + value}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of rows (B, ...), or of sequences (L, B, ...)."""
        c = self.config
        if c.lr_end < 1.0:
            self.optimiser.lr.copy_(linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps))
        clip = linear(batch["step"], c.clip, c.clip * c.clip_end, self.steps) if c.clip_end < 1.0 else c.clip
        loss, metrics = ppo_loss(self.net, batch, clip, c.value_weight, c.entropy, c.normalise)
        norm = optimise(self.optimiser, loss, c.max_grad_norm)
        return {**metrics, "grad_norm": norm}


def ppo_loss(
    net: ActorCritic, batch: Batch, clip: Tensor | float, value_weight: float, entropy_weight: float, normalise: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """``-min(r A, clamp(r, 1 - clip, 1 + clip) A) + value_weight (V - target)^2 - entropy_weight H``, mean over rows.

    ``r`` is the probability of the draw over the one that it was drawn with. Returns the loss () and metrics.
    """
    parameters, value = net.evaluate(batch)
    pi, weight, advantage = net.distribution, batch["weight"], batch["advantage"]
    weight = weight.unsqueeze(-1) if advantage.dim() > weight.dim() else weight  # of all actors of a row
    if normalise:
        centred = advantage - (advantage * weight).mean()
        advantage = centred / ((centred.square() * weight).mean().sqrt() + 1e-8)
    change = pi.log_prob(parameters, batch["draw"]) - batch["log_prob"]
    ratio = change.exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    policy_loss = -(gain * weight).mean()
    value_loss = ((value - batch["target"]).square() * weight).mean()
    entropy = (pi.entropy(parameters) * weight).mean()
    loss = policy_loss + value_weight * value_loss
    if entropy_weight:  # its gradient costs a tenth of a small update
        loss = loss - entropy_weight * entropy
    with torch.no_grad():
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": ((ratio - 1 - change) * weight).mean(),
            "clipped": (((ratio - 1).abs() > clip) * weight).mean(),
        }
    return loss, {name: value.detach() for name, value in metrics.items()}


def refuses(observation: Space, action: Space) -> str | None:
    """Spaces that no actor-critic network fits."""
    return unfit(observation, action)


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """PPO and its tuned settings."""
    yield AgentSpec(
        "ppo",
        PPO,
        PPOConfig,
        "proximal policy optimisation, discrete and continuous actions",
        refuses,
        presets=PRESETS,
        tags=("policy gradient", "on-policy", "discrete", "continuous"),
    )
