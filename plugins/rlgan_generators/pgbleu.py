"""PG-BLEU (Yu et al. 2017): SeqGAN's policy gradient with BLEU in place of a discriminator; nothing is adversarial.

As in the authors' code: BLEU-3 of one completion of each prefix, against two fifths of the data. Precisions of 0 are
smoothed here (`rlgan.measures`), where nltk's BLEU of that time went on to shorter n-grams.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import GeneratorSpec, Preset
from rlgan.tokens import lengths_of
from rlgan_generators.writers import MINI, Writer, WriterConfig, rollout_rewards

CHUNK = 512
"""Sequences that are scored at once: each n-gram is compared with all others of its sequence."""


@dataclass(frozen=True)
class PGBLEUConfig(WriterConfig):
    """Settings of PG-BLEU."""

    pretrain: Annotated[int, Ge(0)] = 40
    """Passes over the data in which the generator learns by maximum likelihood."""
    lr_pg: Annotated[float, Gt(0)] | None = None
    """Adam step size of the generator's policy gradient; none = that of likelihood."""
    rollouts: Annotated[int, Gt(0)] = 1
    """Completions of each prefix."""
    order: Annotated[int, Ge(2)] = 3
    """Longest n-grams of BLEU."""
    references: Annotated[int, Gt(0)] = 4_000
    """Sequences of the data that BLEU is measured against: the first ones, or all where it has fewer."""


class PGBLEU(Writer):
    """Satisfies Generator. Sequences (n, L) int64."""

    kept = (*Writer.kept, "policy_adam")

    def __init__(self, data: DataSet, config: PGBLEUConfig, device: torch.device) -> None:
        super().__init__(data, config, device)
        self.config = config
        self.bleu = Bleu(data.real[: config.references].to(device), config.order, self.policy.end, self.size)
        self.policy_adam = self.adam(self.policy.parameters(), config.lr_pg or config.lr)

    def phases(self) -> list[Phase]:
        """Maximum likelihood in the order of the data, then policy gradient to the end of the run."""
        c = self.config
        likelihood = Samples(c.batch_size, shuffle=False)
        return [
            Phase("pretrain", likelihood, self.likelihood, c.pretrain * (self.count // c.batch_size), "updates"),
            Phase("train", Samples(c.batch_size), self.update),
        ]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Write sequences, and make those more likely whose n-grams real ones have."""
        tokens = self.made(self.config.batch_size)
        return self.reinforce(
            self.policy_adam, tokens, rollout_rewards(self.policy, self.bleu, tokens, self.config.rollouts)
        )


class Bleu:
    """BLEU (n,) of sequences (n, L) against references (m, L), as `rlgan.measures.bleu` has it for each.

    What references have is put into tables once, so that shapes are fixed: nothing is read back in an update.
    """

    def __init__(self, references: Tensor, order: int, end: int | None, vocabulary: int) -> None:
        if vocabulary**order >= 2**63:
            raise UsageError(f"n-grams of {order} of {vocabulary:,} tokens cannot be numbered: lower generator.order")
        self.end, self.vocabulary, length = end, vocabulary, references.shape[1]
        self.orders = range(1, min(order, length) + 1)
        self.order = order
        self.tables = [self._table(references, k) for k in self.orders]
        lengths, places = lengths_of(references, end), torch.arange(length + 1, device=references.device)
        far = (places[:, None] - lengths).abs() * (2 * length + 2) + lengths
        self.closest = lengths[far.argmin(1)]
        """Length (L + 1,) of the reference that is closest to each length, the shorter one of two."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """The score, in [0, 1]."""
        return torch.cat([self._score(part) for part in tokens.split(CHUNK)])

    def _score(self, tokens: Tensor) -> Tensor:
        lengths = lengths_of(tokens, self.end)
        total, possible = torch.zeros(len(tokens), device=tokens.device), lengths > 0
        for k in range(1, self.order + 1):
            hits = self._hits(tokens, k) if k in self.orders else torch.zeros_like(total)
            possible = possible & (hits > 0) if k == 1 else possible
            total = total + (torch.where(hits > 0, hits, 0.1) / (lengths - k + 1).clamp_min(1)).log()
        closest = self.closest[lengths]
        brevity = torch.where(lengths > closest, 1.0, (1 - closest / lengths.clamp_min(1)).exp())
        return (total / self.order).exp() * brevity * possible

    def _numbers(self, tokens: Tensor, k: int) -> Tensor:
        """A number for each n-gram (n, L - k + 1), the same for the same one; -1 where there is none."""
        width = tokens.shape[1] - k + 1
        number = tokens[:, :width]
        for i in range(1, k):
            number = number * self.vocabulary + tokens[:, i : i + width]
        there = torch.arange(width, device=tokens.device) + k <= lengths_of(tokens, self.end)[:, None]
        return number.masked_fill(~there, -1)

    def _table(self, references: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The n-grams of references in order (G,), and the most of each that one reference has (G,)."""
        number = self._numbers(references, k)
        known, index = number.unique(return_inverse=True)
        times = torch.cat([_times(part) for part in number.split(CHUNK)])
        most = torch.zeros_like(known).scatter_reduce(0, index.flatten(), times.flatten(), "amax")
        return known, most.masked_fill(known < 0, 0)

    def _hits(self, tokens: Tensor, k: int) -> Tensor:
        """How many n-grams (n,) of each sequence one reference has, each at most as often as it has it."""
        known, most = self.tables[k - 1]
        number = self._numbers(tokens, k)
        place = torch.searchsorted(known, number).clamp_max(len(known) - 1)
        times, allowed = _times(number), torch.where(known[place] == number, most[place], 0)
        # each occurrence counts its share of what is allowed to all of them
        return (torch.minimum(times, allowed) / times).sum(1)


def _times(number: Tensor) -> Tensor:
    """How often each entry stands in its row of (n, P)."""
    return (number[:, :, None] == number[:, None, :]).sum(2)


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """PG-BLEU and its published protocol."""
    mini = {
        **MINI,
        "steps": 20 * 64 + 100,
        "eval.every": 345,
        "generator.pretrain": 20,
        "generator.references": 1_638,
        "generator.lr_pg": 1e-3,
    }
    # 156 updates a pass of likelihood, then 800
    paper = {
        "steps": 200 * 156 + 800,
        "eval.samples": 9_984,
        "eval.every": 3_200,
        "generator.pretrain": 200,
        "generator.lr": 1e-3,
        "generator.eps_hat": True,
    }
    presets = (
        Preset("mini", "oracle", mini, True, "a small oracle"),
        Preset("paper", "oracle", paper, note="the paper's baseline of BLEU as reward"),
    )
    summary = "LSTM rewarded by BLEU, for sequences of tokens"
    yield GeneratorSpec("pgbleu", PGBLEU, PGBLEUConfig, summary, presets=presets, tags=("text",))
