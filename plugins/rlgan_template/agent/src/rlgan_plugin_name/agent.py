"""Advantage actor-critic (Mnih et al. 2016, synchronous) with generalised advantages (Schulman et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor

from rlgan import AgentSpec, Preset, hookimpl
from rlgan.core.protocols import Batch, Phase, Rollouts, Spaces
from rlgan.core.returns import gae
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.torsos import MLP
from rlgan.store.state import Saved


@dataclass(frozen=True)
class PluginNameConfig:
    """Settings of plugin_name."""

    lr: Annotated[float, Gt(0)] = 1e-3
    """Adam step size at the start; it falls to 0 at the end of the run."""
    gamma: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.99
    """Discount per step."""
    lam: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.95
    """How far advantages look ahead; 0 is one step, 1 the rest of the rollout."""
    horizon: Annotated[int, Gt(0)] = 16
    """Rows of each copy per rollout."""
    minibatch: Annotated[int, Gt(0)] = 64
    """Rows per update; must divide horizon x copies."""
    entropy: Annotated[float, Ge(0)] = 0.01
    """Weight of the policy's entropy, which keeps it from settling too early."""
    max_grad_norm: Annotated[float, Gt(0)] = 0.5
    """Global norm to which gradients are clipped."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""


class PluginNameAgent(Saved):
    """A policy and a value network. Observations (n, ...), actions (n,) int64 of a Discrete space."""

    kept = ("policy", "value", "optimiser")

    def __init__(self, spaces: Spaces, config: PluginNameConfig, device: torch.device) -> None:
        self.config, self.steps = config, spaces.steps
        inputs = int(torch.tensor(spaces.observation.shape).prod())
        self.lowest = int(spaces.action.start)
        self.policy = MLP(inputs, config.hidden, int(spaces.action.n)).to(device)
        self.value = MLP(inputs, config.hidden, 1).to(device)
        self.optimiser = Adam([*self.policy.parameters(), *self.value.parameters()], config.lr)

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """Draw from the policy; in evaluation take its most probable action."""
        logits = self.policy(obs)
        if explore:  # the maximum of logits and Gumbel noise is a draw from the softmax
            logits = logits - torch.empty_like(logits).exponential_().log()
        return {"action": logits.argmax(-1) + self.lowest}, None

    def phases(self) -> list[Phase]:
        """One phase: train from rollouts for the whole run."""
        return [Phase("train", Rollouts(self.config.horizon, self.config.minibatch), self.update, prepare=self.prepare)]

    def prepare(self, rollout: Batch) -> Batch:
        """Add advantages and targets of the value, (T, N), once per rollout."""
        c, obs = self.config, rollout["obs"][:-1]
        value, following = (self.value(x.flatten(0, 1)).view(x.shape[:2]) for x in (obs, rollout["next_obs"]))
        ends = rollout["terminated"], rollout["truncated"]
        advantage = gae(rollout["reward"], value, following, *ends, c.gamma, c.lam)
        return {**rollout, "advantage": advantage, "target": advantage + value}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of rows (B, ...). Rows that are no real steps have weight 0."""
        c, weight = self.config, batch["weight"]
        self.optimiser.lr.copy_(c.lr * (1 - batch["step"] / self.steps).clamp_min(0))
        log_policy = self.policy(batch["obs"]).log_softmax(-1)
        taken = log_policy.gather(1, (batch["action"] - self.lowest).unsqueeze(1)).squeeze(1)
        advantage = batch["advantage"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = -(taken * advantage * weight).mean()
        value_loss = ((self.value(batch["obs"]).squeeze(1) - batch["target"]).square() * weight).mean()
        entropy = -((log_policy.exp() * log_policy).sum(-1) * weight).mean()
        norm = optimise(self.optimiser, policy_loss + 0.5 * value_loss - c.entropy * entropy, c.max_grad_norm)
        losses = {"policy_loss": policy_loss.detach(), "value_loss": value_loss.detach()}
        return {**losses, "entropy": entropy.detach(), "grad_norm": norm}


def refuses(observation: Space, action: Space) -> str | None:
    """Discrete actions and vectors only."""
    if not isinstance(action, Discrete):
        return f"plugin_name chooses among numbered actions, this env takes {action}"
    if not isinstance(observation, Box) or len(observation.shape) != 1:
        return f"plugin_name reads vectors, this env gives {observation}"
    return None


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """plugin_name and its tuned settings."""
    yield AgentSpec(
        "plugin_name",
        PluginNameAgent,
        PluginNameConfig,
        "advantage actor-critic, discrete actions",
        refuses,
        presets=(Preset("cartpole", "cartpole", {"steps": 50_000}, True, "random play scores 22 of 500"),),
        tags=("policy gradient", "on-policy", "discrete"),
    )
