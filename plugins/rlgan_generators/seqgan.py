"""SeqGAN (Yu et al. 2017): an LSTM writes tokens, a convolutional discriminator rewards it, REINFORCE teaches it.

As in the authors' code: rollouts use the current generator (their delayed copy never takes effect), and the policy
gradient is a sum over batch and time, without a baseline. The order of updates is theirs too, cut otherwise: a round
here is the discriminator's updates and then the generator's, so theirs of 50 draws before the rounds is 45 here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import Adam, descend, optimise
from rlgan.nn.text import TextCNN, TokenLSTM
from rlgan.nn.torsos import Precision, compute_dtype
from rlgan.specs import GeneratorSpec, Preset
from rlgan.store.state import Saved
from rlgan.tokens import counted

LEAST = -46.05170185988091
"""Log of 1e-20, below which the authors' code clips probabilities."""


@dataclass(frozen=True)
class SeqGANConfig:
    """Settings of SeqGAN."""

    batch_size: Annotated[int, Gt(1)] = 64
    """Sequences in one update."""
    embedding: Annotated[int, Gt(0)] = 32
    """Length of the generator's embedding."""
    hidden: Annotated[int, Gt(0)] = 32
    """Units of the generator's memory."""
    lr: Annotated[float, Gt(0)] = 1e-2
    """Adam step size of the generator."""
    lr_d: Annotated[float, Gt(0)] = 1e-4
    """Adam step size of the discriminator."""
    max_norm: Annotated[float, Gt(0)] = 5.0
    """Largest norm of the generator's gradient."""
    pretrain: Annotated[int, Ge(0)] = 40
    """Passes over the data in which the generator learns by maximum likelihood."""
    pretrain_d: Annotated[int, Ge(0)] = 10
    """Draws of made sequences on which the discriminator is pretrained, before those of the first round."""
    draws: Annotated[int, Gt(0)] = 2
    """Draws of made sequences in one round, as many as the data has; then follows one update of the generator."""
    passes: Annotated[int, Gt(0)] = 3
    """Passes of the discriminator over each draw and the data."""
    rollouts: Annotated[int, Gt(0)] = 16
    """Completions of each prefix."""
    reward: Literal["rollout", "final", "constant", "shuffled"] = "rollout"
    """What a token earns: the discriminator's mean belief in completions that begin with it; its belief in the whole
    sequence alone; 1 always; or the rollouts' reward of another sequence. The last two are controls."""
    embedding_d: Annotated[int, Gt(0)] = 64
    """Length of the discriminator's embedding."""
    widths: tuple[int, ...] = (2, 3, 4)
    """Tokens that the discriminator's filters span."""
    filters: tuple[int, ...] = (64, 64, 64)
    """Filters of each width."""
    dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.25
    """Share of the discriminator's features that is dropped in its updates."""
    decay: Annotated[float, Ge(0)] = 0.2
    """Weight of half the squares of its last layer."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the logits of samples and their likelihood in evaluation; training is at 1."""
    precision: Precision = "auto"
    """Arithmetic of the discriminator; auto is bfloat16 where it is faster."""

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.filters) or not self.widths or min(*self.widths, *self.filters) < 1:
            raise ValueError("widths and filters are lists of the same length, of whole numbers above 0")


class SeqGAN(Saved):
    """Satisfies Generator. Sequences (n, L) int64."""

    kept = ("policy", "discriminator", "mle_adam", "policy_adam", "discriminator_adam", "latest")

    def __init__(self, data: DataSet, config: SeqGANConfig, device: torch.device) -> None:
        if data.tokens is None:
            form = tuple(data.real.shape[1:])
            raise UsageError(f"seqgan writes sequences of tokens, this data set has samples of {form} that are none")
        self.count, self.length = data.real.shape
        self.protocol = data.protocol
        if max(config.widths) > self.length:
            raise UsageError(
                f"sequences have {self.length} tokens and a filter spans {max(config.widths)}: "
                f"write generator.widths=[...] up to {self.length}"
            )
        self.config, self.device, size = config, device, len(data.tokens.words)
        self.temperature = config.temperature
        self.dtype = compute_dtype(config.precision, device)
        self.policy = TokenLSTM(size, config.embedding, config.hidden, data.tokens.end).start(0.1).to(device)
        self.discriminator = TextCNN(size, config.embedding_d, config.widths, config.filters, config.dropout).to(device)
        # moments of both kinds of gradients are kept apart
        self.mle_adam, self.policy_adam = (Adam(self.policy.parameters(), config.lr) for _ in range(2))
        self.discriminator_adam = Adam(self.discriminator.parameters(), config.lr_d)
        self.latest = {name: torch.zeros((), device=device) for name in ("reward", "loss_g", "norm_g")}
        """Of the generator's last update by policy gradient."""

    def phases(self) -> list[Phase]:
        """Maximum likelihood in the order of the data, the discriminator alone, then both in rounds."""
        c = self.config
        likelihood = Samples(c.batch_size, shuffle=False)
        against = Samples(c.batch_size, against=self._made, passes=c.passes)
        draw = c.passes * (2 * self.count // c.batch_size)
        return [
            Phase("pretrain", likelihood, self.pretrain, c.pretrain * (self.count // c.batch_size), "updates"),
            Phase("pretrain-d", against, self.update, c.pretrain_d * draw, "updates"),
            Phase("train", against, self.update, delayed=((c.draws * draw, self.improve),)),
        ]

    def pretrain(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real sequences: likelihood."""
        real = batch["real"]
        loss = -self.policy.log_prob(real).clamp_min(LEAST).sum() / counted(real, self.policy.end).sum()
        return {"loss": loss.detach(), "norm": optimise(self.mle_adam, loss, self.config.max_norm)}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real and made sequences for the discriminator."""
        with self._arithmetic():
            logits = self.discriminator(batch["mixed"], True).float()
        error = F.cross_entropy(logits, batch["is_real"].long())
        descend(self.discriminator_adam, error + self.config.decay * half_squares(self.discriminator.out))
        right = (logits.argmax(1) == batch["is_real"]).float().mean()
        return {"loss_d": error.detach(), "accuracy": right, **self.latest}

    def improve(self, batch: Batch) -> None:
        """Write sequences, and make those that are believed to be real more likely."""
        tokens = self._made(self.config.batch_size)
        reward = self.rewards(tokens)
        loss = policy_gradient_loss(self.policy.log_prob(tokens), reward)
        norm = optimise(self.policy_adam, loss, self.config.max_norm)
        for name, value in {"reward": reward.mean(), "loss_g": loss.detach(), "norm_g": norm}.items():
            self.latest[name].copy_(value)

    @torch.no_grad()
    def rewards(self, tokens: Tensor) -> Tensor:
        """What each token of sequences (n, L) earns, (n, L)."""
        kind, (n, length) = self.config.reward, tokens.shape
        if kind == "constant":
            return torch.ones(n, length, device=self.device)
        whole = self.belief(tokens)[:, None]
        if kind == "final":
            return whole.expand(-1, length)
        uniform = torch.rand(length - 1, self.config.rollouts, n, length, device=self.device)
        made = self.policy.completions(tokens, uniform)
        reward = torch.cat((self.belief(made.flatten(0, 2)).view(made.shape[:-1]).mean(1).T, whole), 1)
        return reward[torch.rand(n, device=self.device).argsort()] if kind == "shuffled" else reward

    def belief(self, tokens: Tensor) -> Tensor:
        """Probability (n,) that sequences (n, L) are real."""
        with self._arithmetic():
            return self.discriminator.belief(tokens)

    def sample(self, n: int, prefix: Tensor | None = None) -> Tensor:
        """Return n sequences (n, L), each beginning with ``prefix`` (P,)."""
        if prefix is not None and len(prefix) > self.length:
            raise UsageError(f"a prefix of {len(prefix)} tokens is longer than a sequence, which has {self.length}")
        return self.policy.sample(torch.rand(n, self.length, device=self.device), prefix, self.temperature)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Log probability (n, L) of each token of sequences (n, L); 0 after their end."""
        return self.policy.measure(tokens, self.temperature)[0]

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes, and which data it learned from."""
        return {**super().state_dict(), "data": self.protocol}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in. ValueError: it learned from other data."""
        if tree["data"] != self.protocol:
            raise ValueError(f"it learned from {tree['data']!r:.200}, which has changed")
        super().load_state_dict(tree)

    def _made(self, n: int) -> Tensor:
        return self.policy.sample(torch.rand(n, self.length, device=self.device))

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)


def policy_gradient_loss(log_prob: Tensor, reward: Tensor) -> Tensor:
    """Minus the sum () of what tokens (n, L) earn, each by its log probability (Yu et al. 2017, equation 8)."""
    return -(log_prob.clamp_min(LEAST) * reward).sum()


def half_squares(layer: torch.nn.Linear) -> Tensor:
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
    }
    # 156 updates a pass; 936 a draw of the discriminator's; 45 draws before the rounds, 4,680 updates a round
    repo = {**published, "steps": 18_720 + 42_120 + 200 * 4_680, "generator.pretrain": 120}
    paper = {**published, "steps": 37_440 + 42_120 + 800 * 4_680, "generator.pretrain": 240, "generator.lr": 1e-3}
    # few passes over more data, so that the discriminator cannot learn it by heart: its rewards would all be near 0
    mini = {
        "steps": 20 * 64 + 2 * 128 + 40 * 128,
        "data.vocabulary": 200,
        "data.samples": 4_096,
        "eval.samples": 4_096,
        "eval.every": 512,
        "generator.pretrain": 20,
        "generator.pretrain_d": 2,
        "generator.draws": 1,
        "generator.passes": 1,
    }
    presets = (
        Preset("mini", "oracle", mini, True, "a small oracle"),
        Preset("repo", "oracle", {**repo, "eval.every": 5 * 4_680}, note="the protocol of the authors' repository"),
        Preset("paper", "oracle", {**paper, "eval.every": 5 * 4_680}, note="the protocol of the paper"),
    )
    summary = "LSTM rewarded by a discriminator, for sequences of tokens"
    yield GeneratorSpec("seqgan", SeqGAN, SeqGANConfig, summary, presets=presets, tags=("text", "gan"))
