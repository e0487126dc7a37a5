"""GAIL (Ho & Ermon 2016): a discriminator learns to tell rows from demonstrations, and the agent to fool it.

Differs from the paper: the reward is -log(1 - D), which is positive and so rewards survival; rows come from whatever
the agent learns from, with Replay all its recent past (as in Kostrikov et al. 2019); the gradient between both kinds of
rows is drawn to 0 (Thanh-Tung et al. 2019), so that nothing is left to gain where the agent does as the demonstrations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from gymnasium.spaces import Box, Discrete
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Batch, Spaces
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.torsos import MLP
from rlgan.specs import RewardSpec
from rlgan.store import demos
from rlgan.store.state import Saved


@dataclass(frozen=True)
class GAILConfig:
    """Settings of GAIL."""

    demos: Path
    """File of demonstrations, as `rlgan eval DIR demos=PATH` writes it."""
    lr: Annotated[float, Gt(0)] = 3e-4
    """Adam step size of the discriminator."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the discriminator's hidden layers."""
    every: Annotated[int, Gt(0)] = 8
    """Rows between updates of the discriminator."""
    batch_size: Annotated[int, Gt(0)] = 128
    """Rows of each kind per update."""
    penalty: Annotated[float, Ge(0)] = 0.1
    """Weight of the gradient penalty."""


class GAIL(Saved):
    """Satisfies RewardModel. Observations are vectors, actions numbered."""

    kept = ("discriminator", "optimiser")

    when: Literal["sample"] = "sample"

    def __init__(self, spaces: Spaces, config: GAILConfig, device: torch.device) -> None:
        box, action = spaces.observation, spaces.action
        if not (isinstance(box, Box) and len(box.shape) == 1 and isinstance(action, Discrete)):
            raise UsageError(f"reward=gail reads vectors and numbered actions, this env has {box} and {action}")
        self.config, self.every, self.batch_size = config, config.every, config.batch_size
        self.actions, self.lowest = int(action.n), int(action.start)
        obs, acted = (rows.to(device) for rows in demos.load(config.demos, spaces.env, box, action))
        self.mean, self.deviation = obs.mean(0), obs.std(0).clamp_min(1e-6)
        self.expert = self.features(obs, acted)
        self.discriminator = MLP(self.expert.shape[1], config.hidden, 1).to(device)
        self.optimiser = Adam(self.discriminator.parameters(), config.lr)
        self.digest = hashlib.sha256(self.expert.cpu().numpy().tobytes()).hexdigest()

    def features(self, obs: Tensor, action: Tensor) -> Tensor:
        """What the discriminator sees of rows (B, ...): scaled observations beside one-hot actions."""
        return torch.cat([(obs - self.mean) / self.deviation, F.one_hot(action - self.lowest, self.actions)], -1)

    def reward(self, rows: Batch, learner: Any) -> Tensor:
        """``-log(1 - D)`` (T, N), where D is the probability that a row is a demonstration."""
        seen = self.features(rows["obs"].flatten(0, 1), rows["action"].flatten(0, 1))
        return F.softplus(self.discriminator(seen)).view(rows["reward"].shape)

    def update(self, rows: Batch) -> dict[str, Tensor]:
        """One minibatch (1, B, ...) of the agent's rows against as many demonstrations."""
        ours = self.features(rows["obs"].flatten(0, 1), rows["action"].flatten(0, 1))
        theirs = self.expert[torch.randint(len(self.expert), (len(ours),), device=ours.device)]
        on_ours, on_theirs = self.discriminator(ours), self.discriminator(theirs)
        loss = (F.softplus(on_ours).squeeze(1) * rows["weight"].flatten()).mean() + F.softplus(-on_theirs).mean()
        between = torch.lerp(ours, theirs, torch.rand(len(ours), 1, device=ours.device)).requires_grad_()
        (slope,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        penalty = slope.square().sum(1).mean()
        optimise(self.optimiser, loss + self.config.penalty * penalty, 10.0)
        right = (on_ours < 0).float().mean() + (on_theirs > 0).float().mean()
        return {"loss_gail": loss.detach(), "gail_accuracy": right / 2}

    def state_dict(self) -> dict[str, Any]:
        """The discriminator, its optimiser, and by what the demonstrations in their file are known again."""
        return {**super().state_dict(), "demonstrations": self.digest}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in; ValueError where the demonstrations are no longer those that it learned from."""
        if tree["demonstrations"] != self.digest:
            raise ValueError(f"{self.config.demos} holds other demonstrations by now")
        super().load_state_dict(tree)


@hookimpl
def rlgan_specs() -> Iterable[RewardSpec]:
    """Generative adversarial imitation learning."""
    yield RewardSpec("gail", GAIL, GAILConfig, "imitation: rows shall look like demonstrations", tags=("imitation",))
