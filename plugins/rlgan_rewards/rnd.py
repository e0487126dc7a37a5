"""Random network distillation (Burda et al. 2019): a bonus for observations that a predictor does not know yet.

Differs from the paper: the bonus is scaled by the deviation of the prediction errors instead of that of their
discounted sums, it shares one value function and discount with the env's reward, and it is not free of episode ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from gymnasium.spaces import Box
from torch import Tensor, nn

from rlgan.core.protocols import Batch, Spaces
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.torsos import value_network
from rlgan.specs import RewardSpec
from rlgan.store.state import Saved


@dataclass(frozen=True)
class RNDConfig:
    """Settings of random network distillation."""

    scale: Annotated[float, Ge(0)] = 0.1
    """Weight of the bonus, whose typical size is 1."""
    env_scale: Annotated[float, Ge(0)] = 1.0
    """Weight of the env's own reward; 0 leaves curiosity alone."""
    lr: Annotated[float, Gt(0)] = 1e-4
    """Adam step size of the predictor."""
    features: Annotated[int, Gt(0)] = 64
    """Outputs of the random network, which the predictor learns."""
    hidden: tuple[int, ...] = (128,)
    """Widths of both networks' hidden layers; images take a convolutional network instead."""
    every: Annotated[int, Gt(0)] = 4
    """Rows between updates of the predictor."""
    batch_size: Annotated[int, Gt(0)] = 64
    """Rows per update."""


class RND(Saved):
    """Satisfies RewardModel. Observations (T, N, ...) of a Box."""

    when: Literal["collect"] = "collect"
    kept = ("random", "predictor", "optimiser", "means")

    def __init__(self, spaces: Spaces, config: RNDConfig, device: torch.device) -> None:
        if not isinstance(spaces.observation, Box):
            raise UsageError(f"reward=rnd reads arrays, this env gives {spaces.observation}")
        self.config, self.every, self.batch_size = config, config.every, config.batch_size
        make = (spaces.observation, config.features, config.hidden, "auto", device)
        self.random, self.predictor = value_network(*make).requires_grad_(False), value_network(*make)
        self.optimiser = Adam(self.predictor.parameters(), config.lr)
        shape, self.images = spaces.observation.shape, len(spaces.observation.shape) == 3
        means = {"obs": torch.zeros(shape), "variance": torch.ones(shape), "squared_error": torch.ones(())}
        self.means = nn.ParameterDict(means).requires_grad_(False).to(device)

    def reward(self, rows: Batch, learner: Any) -> Tensor:
        """Env's reward plus the bonus of the observation that each row leads to, (T, N)."""
        bonus = self.errors(rows) / self.means["squared_error"].sqrt().clamp_min(1e-6)
        return self.config.env_scale * rows["reward"] + self.config.scale * bonus

    def update(self, rows: Batch) -> dict[str, Tensor]:
        """One minibatch (1, B, ...): the predictor learns the random network's outputs, the means follow by 1%."""
        if not self.images:
            self.means["obs"].lerp_(rows["next_obs"].float().mean((0, 1)), 0.01)
            self.means["variance"].lerp_((rows["next_obs"] - self.means["obs"]).square().mean((0, 1)), 0.01)
        errors = self.errors(rows)
        self.means["squared_error"].lerp_(errors.detach().square().mean(), 0.01)
        loss = (errors * rows["weight"]).mean()
        optimise(self.optimiser, loss, 10.0)
        return {"loss_rnd": loss.detach()}

    def errors(self, rows: Batch) -> Tensor:
        """Mean squared error (T, N) of the predictor; vectors are scaled to deviation 1 and cut at 5."""
        obs = rows["next_obs"].flatten(0, 1)
        if not self.images:
            obs = ((obs - self.means["obs"]) * self.means["variance"].clamp_min(1e-8).rsqrt()).clamp(-5, 5)
        return (self.predictor(obs) - self.random(obs)).square().mean(-1).view(rows["next_obs"].shape[:2])


@hookimpl
def rlgan_specs() -> Iterable[RewardSpec]:
    """Random network distillation."""
    yield RewardSpec("rnd", RND, RNDConfig, "curiosity: a bonus for unfamiliar observations", tags=("exploration",))
