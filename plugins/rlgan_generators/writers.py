"""What generators of sequences share: a policy that learns by likelihood and by policy gradient, and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.core.returns import gae
from rlgan.errors import UsageError
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.text import TextCNN, TokenLSTM
from rlgan.nn.torsos import Precision, compute_dtype
from rlgan.store.state import Saved, same_data
from rlgan.tokens import counted

LEAST = -46.05170185988091
"""Log of 1e-20, below which SeqGAN's code clips probabilities."""


COMPLETED = 1 << 26
"""Tokens of completions that are held at once: 64 sequences of 20 tokens, 16 times each, have 1/172 of that."""
MINI = {"data.vocabulary": 200, "data.samples": 4_096, "eval.samples": 4_096}
"""The small oracle of the presets `mini`; a pass over its data has 64 minibatches of 64."""
MINI_ROUNDS = {
    **MINI,
    "steps": 20 * 64 + 2 * 128 + 40 * 128,
    "eval.every": 512,
    "generator.pretrain": 20,
    "generator.pretrain_d": 2,
    "generator.draws": 1,
    "generator.passes": 1,
    # 40 policy gradients at 0.01 are noise that undoes likelihood; at 1e-4 the discriminator stays at chance
    "generator.lr_pg": 1e-3,
    "generator.lr_d": 1e-3,
}
"""The same for generators with an `AdversaryConfig`."""


@dataclass(frozen=True)
class WriterConfig:
    """Settings of every generator of sequences."""

    batch_size: Annotated[int, Gt(1)] = 64
    """Sequences in one update."""
    embedding: Annotated[int, Gt(0)] = 32
    """Length of the generator's embedding."""
    hidden: Annotated[int, Gt(0)] = 32
    """Units of the generator's memory."""
    lr: Annotated[float, Gt(0)] = 1e-2
    """Adam step size of the generator."""
    max_norm: Annotated[float, Gt(0)] = 5.0
    """Largest norm of the generator's gradient."""
    eps_hat: bool = False
    """Whether Adam's epsilon is added to the root before it is corrected, as TensorFlow 1 does."""
    temperature: Annotated[float, Ge(0.01)] = 1.0
    """Divides the logits of samples and their likelihood in evaluation; training is at 1."""


@dataclass(frozen=True)
class AdversaryConfig(WriterConfig):
    """Settings of generators that a convolutional network judges, in rounds as SeqGAN's."""

    lr_pg: Annotated[float, Gt(0)] | None = None
    """Adam step size of the generator's policy gradient; none = that of likelihood."""
    lr_d: Annotated[float, Gt(0)] = 1e-4
    """Adam step size of the discriminator."""
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
    embedding_d: Annotated[int, Gt(0)] = 64
    """Length of the discriminator's embedding."""
    widths: tuple[int, ...] = (2, 3, 4)
    """Tokens that the discriminator's filters span."""
    filters: tuple[int, ...] = (64, 64, 64)
    """Filters of each width."""
    dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.25
    """Share of the discriminator's features that is dropped in its updates."""
    precision: Precision = "auto"
    """Arithmetic of the discriminator; auto is bfloat16 where it is faster."""

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.filters) or not self.widths or min(*self.widths, *self.filters) < 1:
            raise ValueError("widths and filters are lists of the same length, of whole numbers above 0")


class Writer(Saved):
    """An LSTM that writes sequences (n, L) int64. Generators add what they are rewarded by, and ``phases``."""

    kept = ("policy", "mle_adam")

    def __init__(self, data: DataSet, config: WriterConfig, device: torch.device) -> None:
        if data.tokens is None:
            name, form = type(self).__name__.lower(), tuple(data.real.shape[1:])
            raise UsageError(f"{name} writes sequences of tokens, this data set has samples of {form} that are none")
        self.count, self.length = data.real.shape
        self.protocol, self.size = data.protocol, len(data.tokens.words)
        self.device, self.temperature = device, config.temperature
        self.max_norm, self.eps_hat = config.max_norm, config.eps_hat
        self.policy = TokenLSTM(self.size, config.embedding, config.hidden, data.tokens.end).start(0.1).to(device)
        self.mle_adam = self.adam(self.policy.parameters(), config.lr)

    def adam(self, parameters: Iterable[Tensor], lr: float) -> Adam:
        """Adam over parameters, its epsilon where the settings have it."""
        return Adam(parameters, lr, eps_hat=self.eps_hat)

    def likelihood(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real sequences: a mean over tokens."""
        real = batch["real"]
        loss = mean_nll(self.policy.log_prob(real), real, self.policy.end)
        return {"loss": loss.detach(), "norm": optimise(self.mle_adam, loss, self.max_norm)}

    def reinforce(self, adam: Adam, tokens: Tensor, reward: Tensor) -> dict[str, Tensor]:
        """Make tokens (n, L) more likely by what each earns (n, L)."""
        loss = policy_gradient_loss(self.policy.log_prob(tokens), reward)
        norm = optimise(adam, loss, self.max_norm)
        return {"reward": reward.mean(), "loss_g": loss.detach(), "norm_g": norm}

    def made(self, n: int) -> Tensor:
        """n sequences (n, L) at temperature 1."""
        return self.policy.sample(torch.rand(n, self.length, device=self.device))

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
        """Copy a saved state in. OtherData: it learned from other data."""
        same_data(tree["data"], self.protocol)
        super().load_state_dict(tree)


def mean_nll(log_prob: Tensor, tokens: Tensor, end: int | None) -> Tensor:
    """Mean () of minus the log probabilities (n, L) over the tokens that count."""
    return -log_prob.clamp_min(LEAST).sum() / counted(tokens, end).sum()


def policy_gradient_loss(log_prob: Tensor, reward: Tensor) -> Tensor:
    """Minus the sum () of what tokens (n, L) earn, each by its log probability (Yu et al. 2017, equation 8)."""
    return -(log_prob.clamp_min(LEAST) * reward).sum()


@torch.no_grad()
def rollout_rewards(policy: TokenLSTM, score: Callable[[Tensor], Tensor], tokens: Tensor, rollouts: int) -> Tensor:
    """The mean score of completions that begin with each token and those before it, (n, L), of sequences (n, L).

    ``score`` is (n,) of sequences (n, L); the last token earns that of the sequence itself.
    """
    length, means = tokens.shape[1], []
    for part in tokens.split(max(1, COMPLETED // max(1, (length - 1) * rollouts * length))):
        made = policy.completions(part, torch.rand(length - 1, rollouts, len(part), length, device=tokens.device))
        means.append(score(made.flatten(0, 2)).view(made.shape[:-1]).mean(1).T)
    return torch.cat((torch.cat(means), score(tokens)[:, None]), 1)


def last_token(tokens: Tensor, end: int | None) -> Tensor:
    """Which token (n, L) is the last that counts of each sequence (n, L)."""
    counts = counted(tokens, end)
    return counts & ~F.pad(counts[:, 1:], (0, 1))


def token_advantages(
    reward: Tensor, value: Tensor, tokens: Tensor, end: int | None, gamma: float, lam: float
) -> Tensor:
    """Generalised advantages (n, L) of tokens that earn ``reward`` (n, L); ``value`` (n, L) is that of what stands
    before each. 0 where a token does not count.
    """
    last = last_token(tokens, end).T
    after = F.pad(value[:, 1:], (0, 1)).T
    return gae(reward.T, value.T, after, last, torch.zeros_like(last), gamma, lam).T * counted(tokens, end)


def discriminator(config: AdversaryConfig, size: int, length: int, device: torch.device) -> TextCNN:
    """The network that judges sequences of ``length`` tokens from ``size``. UsageError: its filters are too wide."""
    if max(config.widths) > length:
        raise UsageError(
            f"sequences have {length} tokens and a filter spans {max(config.widths)}: "
            f"write generator.widths=[...] up to {length}"
        )
    return TextCNN(size, config.embedding_d, config.widths, config.filters, config.dropout).to(device)


def arithmetic(precision: Precision, device: torch.device) -> torch.autocast:
    """In which a discriminator runs."""
    dtype = compute_dtype(precision, device)
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def rounds(writer: Any, config: AdversaryConfig) -> list[Phase]:
    """Maximum likelihood in the order of the data, the discriminator alone, then both in rounds."""
    c, count = config, writer.count
    likelihood = Samples(c.batch_size, shuffle=False)
    against = Samples(c.batch_size, against=writer.made, passes=c.passes)
    draw = c.passes * (2 * count // c.batch_size)
    return [
        Phase("pretrain", likelihood, writer.likelihood, c.pretrain * (count // c.batch_size), "updates"),
        Phase("pretrain-d", against, writer.update, c.pretrain_d * draw, "updates"),
        Phase("train", against, writer.update, delayed=((c.draws * draw, writer.improve),)),
    ]
