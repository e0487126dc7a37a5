"""RankGAN (Lin et al. 2017): SeqGAN whose discriminator ranks a sequence among others, by likeness to real ones.

A sequence is as likely to be chosen for a reference as the cosine of their features says, against those of a set that
it is compared with: real ones for a made sequence, made ones for a real one. ``gamma`` and the sizes of sets are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Batch, DataSet, Phase
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import descend
from rlgan.specs import GeneratorSpec, Preset
from rlgan_generators.writers import (
    MINI_ROUNDS,
    AdversaryConfig,
    Writer,
    arithmetic,
    discriminator,
    rollout_rewards,
    rounds,
)


@dataclass(frozen=True)
class RankGANConfig(AdversaryConfig):
    """Settings of RankGAN."""

    references: Annotated[int, Gt(0)] = 16
    """Real sequences that likeness is measured to."""
    compared: Annotated[int, Gt(0)] = 16
    """Real sequences that a made one is ranked among, when it is rewarded."""
    gamma: Annotated[float, Gt(0)] = 10.0
    """Multiplies cosines: the larger, the more the most alike is preferred."""


class RankGAN(Writer):
    """Satisfies Generator. Sequences (n, L) int64."""

    kept = (*Writer.kept, "ranker", "policy_adam", "ranker_adam", "latest")

    def __init__(self, data: DataSet, config: RankGANConfig, device: torch.device) -> None:
        super().__init__(data, config, device)
        self.config, self.real = config, data.real.to(device)
        self.ranker = discriminator(config, self.size, self.length, device)
        self.policy_adam = self.adam(self.policy.parameters(), config.lr_pg or config.lr)
        # of the last layer, which says real or made, nothing is used
        self.ranker_adam = self.adam(
            (p for n, p in self.ranker.named_parameters() if not n.startswith("out")), config.lr_d
        )
        self.latest = {name: torch.zeros((), device=device) for name in ("reward", "loss_g", "norm_g")}
        """Of the generator's last update by policy gradient."""

    def phases(self) -> list[Phase]:
        """Those of SeqGAN."""
        return rounds(self, self.config)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real and made sequences for the ranker."""
        is_real = batch["is_real"]
        near = self.likeness(
            self.features(batch["mixed"], True), self.features(self._drawn(self.config.references), True)
        )
        others = torch.where(is_real[:, None], among(near, ~is_real), among(near, is_real))
        loss = ranking_loss(log_rank(near, others), is_real)
        descend(self.ranker_adam, loss)
        return {"loss_d": loss.detach(), **self.latest}

    def improve(self, batch: Batch) -> None:
        """Write sequences, and make those more likely that rank high among real ones."""
        c, tokens = self.config, self.made(self.config.batch_size)
        with torch.no_grad():
            references, compared = (self.features(self._drawn(n), False) for n in (c.references, c.compared))
            others = self.likeness(compared, references).logsumexp(0)

            def score(made: Tensor) -> Tensor:
                near = [self.likeness(self.features(part, False), references) for part in made.split(512)]
                return log_rank(torch.cat(near), others).exp()

            reward = rollout_rewards(self.policy, score, tokens, c.rollouts)
        for name, value in self.reinforce(self.policy_adam, tokens, reward).items():
            self.latest[name].copy_(value)

    def features(self, tokens: Tensor, training: bool) -> Tensor:
        """Features (n, F) of sequences (n, L)."""
        with arithmetic(self.config.precision, self.device):
            return self.ranker.features(self.ranker.embedding(tokens), training).float()

    def likeness(self, features: Tensor, references: Tensor) -> Tensor:
        """``gamma`` times the cosine (n, U) between features (n, F) and those of references (U, F)."""
        return self.config.gamma * F.normalize(features, dim=1) @ F.normalize(references, dim=1).T

    def _drawn(self, n: int) -> Tensor:
        return self.real[torch.randint(len(self.real), (n,), device=self.device)]


def among(near: Tensor, chosen: Tensor) -> Tensor:
    """Log of the sum (U,) over the chosen (n,) of the exponentials of likeness (n, U)."""
    return near.masked_fill(~chosen[:, None], -torch.inf).logsumexp(0)


def log_rank(near: Tensor, others: Tensor) -> Tensor:
    """Log (n,) of how high sequences rank, a mean over references of log softmax: ``near`` (n, U) is their likeness to
    these, ``others`` (U,) or (n, U) the log sum of exponentials of those that they are compared with (equations 2, 3).
    """
    return (near - torch.logaddexp(near, others)).mean(1)


def ranking_loss(log_rank: Tensor, is_real: Tensor) -> Tensor:
    """Minus the mean () of log R of the real, and log (1 - R) of the made sequences (n,) (equation 4)."""
    below = torch.log(-torch.expm1(log_rank.clamp_max(-1e-6)))
    return -torch.where(is_real, log_rank, below).mean()


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """RankGAN."""
    presets = (Preset("mini", "oracle", MINI_ROUNDS, True, "a small oracle"),)
    summary = "LSTM rewarded by its rank among real sequences"
    yield GeneratorSpec("rankgan", RankGAN, RankGANConfig, summary, presets=presets, tags=("text", "gan"))
