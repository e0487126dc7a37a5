"""RelGAN (Nie et al. 2019): made tokens are relaxed, so that the discriminator's gradient reaches the generator.

A token is the largest of its logits with Gumbel noise; what the discriminator sees in its place is the softmax of the
same numbers times a sharpness, which rises. The loss is relativistic. Of the authors' two generators this is the one
with an LSTM, their other has a relational memory. Their two linear layers after the highway, with nothing between, are
one here.

The published figures are of the protocol of their code: the oracle of SeqGAN, drawn anew by seed, 10,000 fixed
sequences, 150 passes of likelihood, 3,000 rounds of one update of the generator and five of the discriminator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import optimise
from rlgan.nn.text import START, TextCNN, TokenLSTM
from rlgan.specs import GeneratorSpec, Preset
from rlgan_generators.writers import MINI, Writer, WriterConfig


@dataclass(frozen=True)
class RelGANConfig(WriterConfig):
    """Settings of RelGAN."""

    lr_g: Annotated[float, Gt(0)] = 1e-4
    """Adam step size of the generator against the discriminator; ``lr`` is that of likelihood."""
    lr_d: Annotated[float, Gt(0)] = 1e-4
    """Adam step size of the discriminator."""
    pretrain: Annotated[int, Ge(0)] = 40
    """Passes over the data in which the generator learns by maximum likelihood."""
    discriminator_updates: Annotated[int, Gt(0)] = 5
    """For one update of the generator."""
    sharpness: Annotated[float, Ge(1)] = 2.0
    """By which noisy logits are multiplied after ``sharpen`` updates of the generator; 1 at the first, then a power."""
    sharpen: Annotated[int, Gt(0)] = 5_000
    """Updates of the generator."""
    parts: Annotated[int, Gt(0)] = 64
    """Parts of the discriminator's embedding, each judged by itself, of one number each."""
    filters: Annotated[int, Gt(0)] = 300
    """Filters of each of the widths 2, 3, 4 and 5."""
    dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.25
    """Share of the discriminator's features that is dropped."""


class RelGAN(Writer):
    """Satisfies Generator. Sequences (n, L) int64."""

    kept = (*Writer.kept, "discriminator", "policy_adam", "discriminator_adam", "made_updates", "latest")

    def __init__(self, data: DataSet, config: RelGANConfig, device: torch.device) -> None:
        super().__init__(data, config, device)
        if self.length < WIDTHS[-1]:
            raise UsageError(f"relgan looks at {WIDTHS[-1]} tokens at a time, and sequences have {self.length}")
        self.config, count = config, len(WIDTHS)
        size = (self.size, config.parts, WIDTHS, (config.filters,) * count, config.dropout, config.parts)
        self.discriminator = TextCNN(*size).to(device)
        self.policy_adam = self.adam(self.policy.parameters(), config.lr_g)
        self.discriminator_adam = self.adam(self.discriminator.parameters(), config.lr_d)
        self.made_updates = torch.zeros((), device=device)
        """Updates of the generator against the discriminator."""
        self.latest = {name: torch.zeros((), device=device) for name in ("loss_g", "norm_g", "sharpness")}

    def phases(self) -> list[Phase]:
        """Maximum likelihood, then rounds to the end of the run."""
        c = self.config
        likelihood = Samples(c.batch_size, shuffle=False)
        return [
            Phase("pretrain", likelihood, self.likelihood, c.pretrain * (self.count // c.batch_size), "updates"),
            Phase("train", Samples(c.batch_size), self.update, delayed=((c.discriminator_updates, self.improve),)),
        ]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real sequences, and as many made ones, for the discriminator."""
        with torch.no_grad():
            made = self._relaxed(len(batch["real"]))
        loss = relativistic_loss(self._real(batch["real"]), self.logits(made @ self.discriminator.embedding.weight))
        norm = optimise(self.discriminator_adam, loss, self.max_norm)
        return {"loss_d": loss.detach(), "norm_d": norm, **self.latest}

    def improve(self, batch: Batch) -> None:
        """Make relaxed sequences that are taken for real rather than the real ones."""
        made = self._relaxed(len(batch["real"]))
        loss = relativistic_loss(self.logits(made @ self.discriminator.embedding.weight), self._real(batch["real"]))
        norm = optimise(self.policy_adam, loss, self.max_norm)
        for name, value in {"loss_g": loss.detach(), "norm_g": norm, "sharpness": self._sharpness()}.items():
            self.latest[name].copy_(value)
        self.made_updates.add_(1)

    def logits(self, embedded: Tensor) -> Tensor:
        """How real embedded sequences (n, L, parts) look, (n * parts,)."""
        made, real = self.discriminator.out(self.discriminator.features(embedded, True)).unbind(1)
        return real - made

    def _real(self, tokens: Tensor) -> Tensor:
        return self.logits(self.discriminator.embedding(tokens))

    def _sharpness(self) -> Tensor:
        return self.config.sharpness ** (self.made_updates / self.config.sharpen)

    def _relaxed(self, n: int) -> Tensor:
        uniform = torch.rand(self.length, n, self.size, device=self.device).clamp_(1e-20, 1 - 1e-7)
        return relaxed(self.policy, -(-uniform.log()).log(), self._sharpness())[0]


WIDTHS = (2, 3, 4, 5)


def relaxed(policy: TokenLSTM, noise: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """Sequences by Gumbel noise (L, n, V): relaxed ones (n, L, V), whose entries sum to 1, and their tokens (n, L).

    The chosen tokens are what the policy goes on from; after its end a sequence has nothing but its end.
    """
    length, n, _ = noise.shape
    state = policy.advance(torch.full((n,), START, device=noise.device), policy.blank(n))
    last = torch.full((n,), -1, device=noise.device)
    soft, hard = [], []
    for t in range(length):
        noisy = policy.logits(state[0]) + noise[t]
        token, weight = noisy.argmax(-1), (noisy * sharpness).softmax(-1)
        if policy.end is not None:
            ended = last == policy.end
            token = torch.where(ended, last, token)
            weight = torch.where(ended[:, None], F.one_hot(token, policy.vocabulary).float(), weight)
        state, last = policy.advance(token, state), token
        soft.append(weight)
        hard.append(token)
    return torch.stack(soft, 1), torch.stack(hard, 1)


def relativistic_loss(likelier: Tensor, than: Tensor) -> Tensor:
    """Mean () of -log sigmoid of how much more real some look (n,) than others (Jolicoeur-Martineau 2019)."""
    return F.softplus(than - likelier).mean()


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """RelGAN and the protocol of its authors' code."""
    mini = {
        **MINI,
        "steps": 20 * 64 + 5 * 200,
        "eval.every": 456,
        "generator.pretrain": 20,
        "generator.parts": 8,
        "generator.filters": 64,
    }
    # 156 updates a pass; a round is five of the discriminator's
    published = {
        "steps": 150 * 156 + 3_000 * 5,
        "data.samples": 9_984,
        "eval.samples": 9_984,
        "eval.every": 1_920,
        "generator.pretrain": 150,
        "generator.eps_hat": True,
    }
    presets = (
        Preset("mini", "oracle", mini, True, "a small oracle"),
        Preset("repo", "oracle", published, note="the protocol of the authors' repository, with their LSTM"),
    )
    summary = "LSTM whose relaxed tokens a relativistic discriminator judges"
    yield GeneratorSpec("relgan", RelGAN, RelGANConfig, summary, presets=presets, tags=("text", "gan"))
