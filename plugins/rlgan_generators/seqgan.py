"""SeqGAN (Yu et al. 2017): an LSTM writes tokens, a convolutional discriminator rewards it, REINFORCE teaches it.

As in the authors' code: rollouts use the current generator (their delayed copy never takes effect), and the policy
gradient is a sum over batch and time, without a baseline. The order of updates is theirs too, cut otherwise: a round
here is the discriminator's updates and then the generator's, so theirs of 50 draws before the rounds is 45 here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.protocols import Batch, DataSet, Phase
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import descend
from rlgan.specs import GeneratorSpec, Preset
from rlgan.tokens import counted
from rlgan_generators.writers import (
    MINI_ROUNDS,
    AdversaryConfig,
    Writer,
    arithmetic,
    discriminator,
    last_token,
    rollout_rewards,
    rounds,
    token_advantages,
)


@dataclass(frozen=True)
class SeqGANConfig(AdversaryConfig):
    """Settings of SeqGAN."""

    reward: Literal["rollout", "actor-critic", "final", "constant", "shuffled"] = "rollout"
    """What a token earns: the discriminator's mean belief in completions that begin with it; by how much it raises a
    value head's estimate of its belief in the whole sequence; that belief itself; 1 always; or the rollouts' reward of
    another sequence. The last two are controls."""
    lam: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.9
    """Decay of the actor-critic's advantages and returns; 0 bootstraps after one token, 1 at the end alone."""
    critic: Annotated[int, Gt(0)] = 16
    """Updates of the actor-critic's value head for one of the generator."""
    decay: Annotated[float, Ge(0)] = 0.2
    """In the discriminator's loss: weight of half the squares of its last layer's weights and biases."""


class SeqGAN(Writer):
    """Satisfies Generator. Sequences (n, L) int64."""

    kept = (*Writer.kept, "discriminator", "value", "policy_adam", "discriminator_adam", "value_adam", "latest")

    def __init__(self, data: DataSet, config: SeqGANConfig, device: torch.device) -> None:
        super().__init__(data, config, device)
        self.config = config
        self.discriminator = discriminator(config, self.size, self.length, device)
        self.value = nn.Linear(config.hidden, 1).to(device)
        # moments of both kinds of gradients are kept apart
        self.policy_adam = self.adam(self.policy.parameters(), config.lr_pg or config.lr)
        self.discriminator_adam = self.adam(self.discriminator.parameters(), config.lr_d)
        self.value_adam = self.adam(self.value.parameters(), config.lr)
        self.latest = {name: torch.zeros((), device=device) for name in ("reward", "loss_g", "norm_g")}
        """Of the generator's last update by policy gradient."""

    def phases(self) -> list[Phase]:
        """Those of the paper, in rounds."""
        return rounds(self, self.config)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real and made sequences for the discriminator."""
        with arithmetic(self.config.precision, self.device):
            logits = self.discriminator(batch["mixed"], True).float()
        error = F.cross_entropy(logits, batch["is_real"].long())
        descend(self.discriminator_adam, error + self.config.decay * half_squares(self.discriminator.out))
        right = (logits.argmax(1) == batch["is_real"]).float().mean()
        return {"loss_d": error.detach(), "accuracy": right, **self.latest}

    def improve(self, batch: Batch) -> None:
        """Write sequences, and make those that are believed to be real more likely."""
        tokens = self.made(self.config.batch_size)
        for name, value in self.reinforce(self.policy_adam, tokens, self.rewards(tokens)).items():
            self.latest[name].copy_(value)

    @torch.no_grad()
    def rewards(self, tokens: Tensor) -> Tensor:
        """What each token of sequences (n, L) earns, (n, L)."""
        kind, (n, length) = self.config.reward, tokens.shape
        if kind == "constant":
            return torch.ones(n, length, device=self.device)
        if kind == "final":
            return self.belief(tokens)[:, None].expand(-1, length)
        if kind == "actor-critic":
            return self.advantages(tokens)
        reward = rollout_rewards(self.policy, self.belief, tokens, self.config.rollouts)
        if kind == "rollout":
            return reward
        order = torch.rand(n, device=self.device).argsort()
        return reward[order.roll(1)[order.argsort()]]  # in a circle, so that none keeps its own

    def advantages(self, tokens: Tensor) -> Tensor:
        """Advantages (n, L) of tokens over the value head, which learns their lambda returns besides."""
        c, end = self.config, self.policy.end
        hidden = self.policy.states(tokens)[0].detach().transpose(0, 1)  # (n, L, hidden): before each token
        reward = self.belief(tokens)[:, None] * last_token(tokens, end)
        counts = counted(tokens, end)
        # of the value as it was: fitted to these very sequences it would explain away what they teach
        found = token_advantages(reward, self.value(hidden).squeeze(-1), tokens, end, 1.0, c.lam)
        for _ in range(c.critic):
            with torch.enable_grad():
                value = self.value(hidden).squeeze(-1)
                target = value.detach() + token_advantages(reward, value.detach(), tokens, end, 1.0, c.lam)
                descend(self.value_adam, ((value - target).square() * counts).sum() / counts.sum())
        return found

    def belief(self, tokens: Tensor) -> Tensor:
        """Probability (n,) that sequences (n, L) are real."""
        with arithmetic(self.config.precision, self.device):
            return self.discriminator.belief(tokens)


def half_squares(layer: nn.Linear) -> Tensor:
    """Half the sum () of the squares of a layer's weights and biases."""
    return (layer.weight.square().sum() + layer.bias.square().sum()) / 2


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """SeqGAN and its published protocols."""
    published = {
        "eval.samples": 9_984,
        "generator.pretrain_d": 45,
        "generator.draws": 5,
        "generator.widths": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20],
        "generator.filters": [100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160],
        "generator.precision": "float32",
        "generator.eps_hat": True,
    }
    # 156 updates a pass; 936 a draw of the discriminator's; 45 draws before the rounds, 4,680 updates a round
    repo = {**published, "steps": 18_720 + 42_120 + 200 * 4_680, "generator.pretrain": 120}
    paper = {**published, "steps": 37_440 + 42_120 + 800 * 4_680, "generator.pretrain": 240, "generator.lr": 1e-3}
    # few passes over more data, so that the discriminator cannot learn it by heart: its rewards would all be near 0
    presets = (
        Preset("mini", "oracle", MINI_ROUNDS, True, "a small oracle"),
        Preset("repo", "oracle", {**repo, "eval.every": 5 * 4_680}, note="the protocol of the authors' repository"),
        Preset("paper", "oracle", {**paper, "eval.every": 5 * 4_680}, note="the protocol of the paper"),
    )
    summary = "LSTM rewarded by a discriminator, for sequences of tokens"
    yield GeneratorSpec("seqgan", SeqGAN, SeqGANConfig, summary, presets=presets, tags=("text", "gan"))
