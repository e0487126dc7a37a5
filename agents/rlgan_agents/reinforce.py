"""REINFORCE (Williams 1992) with rewards to go and, on request, a learned baseline: Monte-Carlo policy gradients.

Differs from the paper: each action is credited with the rewards after it alone, many episodes make one update, and Adam
takes the step. Episodes that do not end within a rollout are left out, so a rollout should hold several.
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
from rlgan.core.returns import reward_to_go
from rlgan.hookspecs import hookimpl
from rlgan.nn.actor_critic import ActorCritic, unfit
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.schedule import linear
from rlgan.nn.torsos import Precision
from rlgan.specs import AgentSpec, Preset
from rlgan.store.state import Saved

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of REINFORCE."""

    lr: Annotated[float, Gt(0)] = 1e-3
    """Adam step size."""
    lr_end: Fraction = 1.0
    """Fraction of lr that is left at the end of the run, reached linearly; 1 keeps it constant."""
    gamma: Fraction = 0.99
    """Discount per step."""
    horizon: Annotated[int, Gt(0)] = 1000
    """Rows of each copy per rollout; several times the length of an episode."""
    baseline: bool = True
    """Subtract a learned value from each return."""
    normalise: bool = True
    """Give what the log-probabilities are weighted with mean 0 and deviation 1 in each rollout."""
    entropy: Annotated[float, Ge(0)] = 0.0
    """Weight of the entropy bonus."""
    value_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the baseline's squared error."""
    max_grad_norm: Annotated[float, Gt(0)] = 0.5
    """Global norm to which gradients are clipped."""
    clip_reward: bool = False
    """Learn from the sign of rewards. Recorded and evaluated scores stay raw."""
    hidden: tuple[Annotated[int, Gt(0)], ...] = (64, 64)
    """Widths of the hidden tanh layers for vectors, for policy and value each; images take a shared CNN instead."""
    precision: Precision = "auto"
    """Arithmetic of NatureCNN; auto is bfloat16 where the processor has it. Weights and optimiser stay float32."""


class Reinforce(Saved):
    """Satisfies Agent. Observations (n, ...); actions of a Discrete, MultiDiscrete or Box space."""

    kept = ("net", "optimiser")

    def __init__(self, spaces: Spaces, config: ReinforceConfig, device: torch.device) -> None:
        self.config, self.steps = config, spaces.steps
        self.net = ActorCritic(spaces.observation, spaces.action, config.hidden, config.precision, device)
        self.optimiser = Adam(self.net.parameters(), config.lr)

    def carry(self, n: int) -> Any:
        """Fresh recurrent state, if there is any."""
        return self.net.carry(n)

    def act(self, obs: Observation, carry: Any, step: Tensor, explore: bool) -> tuple[Batch, Any]:
        """Draw from the policy; in evaluation take its most probable action."""
        parameters, _, carry = self.net(obs, carry)
        pi = self.net.distribution
        draw = pi.draw(parameters) if explore else pi.mode(parameters)
        return {"action": pi.action(draw), "draw": draw}, carry

    def phases(self) -> list[Phase]:
        """One phase: train from rollouts for the whole run."""
        c = self.config
        return [Phase("train", Rollouts(c.horizon, clip_reward=c.clip_reward), self.update, prepare=self.prepare)]

    def prepare(self, rollout: Batch) -> Batch:
        """Add the ``return`` (T, N), and clear ``valid`` where the episode does not end within the rollout."""
        ends = rollout["terminated"], rollout["truncated"]
        total, whole = reward_to_go(rollout["reward"], *ends, self.config.gamma)
        return {**rollout, "return": total, "valid": rollout["valid"] & whole}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """The whole rollout as rows (B, ...)."""
        c = self.config
        if c.lr_end < 1.0:
            self.optimiser.lr.copy_(linear(batch["step"], c.lr, c.lr * c.lr_end, self.steps))
        loss, metrics = reinforce_loss(self.net, batch, c.baseline, c.value_weight, c.entropy, c.normalise)
        norm = optimise(self.optimiser, loss, c.max_grad_norm)
        return {**metrics, "grad_norm": norm}


def reinforce_loss(
    net: ActorCritic, batch: Batch, baseline: bool, value_weight: float, entropy_weight: float, normalise: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """``-(G - V) log pi(draw) + value_weight (V - G)^2 - entropy_weight H``, mean over rows: the loss () and metrics.

    Without the baseline V is 0 and its network learns nothing.
    """
    parameters, value = net.evaluate(batch)
    pi, weight, total = net.distribution, batch["weight"], batch["return"]
    value = value if baseline else value * 0.0
    credit = total - value.detach()
    if normalise:
        credit = credit - (credit * weight).mean()
        credit = credit / ((credit.square() * weight).mean().sqrt() + 1e-8)
    policy_loss = -(pi.log_prob(parameters, batch["draw"]) * credit * weight).mean()
    value_loss = ((value - total).square() * weight).mean()
    entropy = (pi.entropy(parameters) * weight).mean()
    loss = policy_loss + value_weight * value_loss
    if entropy_weight:  # its gradient costs a tenth of a small update
        loss = loss - entropy_weight * entropy
    metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    metrics["whole"] = (weight > 0).to(weight.dtype).mean()
    return loss, {name: value.detach() for name, value in metrics.items()}


def refuses(observation: Space, action: Space) -> str | None:
    """Spaces that no actor-critic network fits."""
    return unfit(observation, action)


CARTPOLE = {
    "steps": 500_000,
    "copies": 8,
    "agent.lr": 1e-2,
    "agent.lr_end": 0.0,
    "agent.horizon": 1000,
}


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """REINFORCE and its tuned settings."""
    yield AgentSpec(
        "reinforce",
        Reinforce,
        ReinforceConfig,
        "Monte-Carlo policy gradients with or without a baseline, discrete and continuous actions",
        refuses,
        presets=(Preset("cartpole", "cartpole", CARTPOLE, True, "random play scores 22 of 500"),),
        tags=("policy gradient", "on-policy", "discrete", "continuous"),
    )
