"""Measures of sequences against a corpus, in tensors: what is copied, and samplers that only count.

Sequences are (n, L) int64 tokens, with ``end`` as `Tokens` has it; an n-gram lies before the end of its sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlgan.tokens import lengths_of


def grams(sets: Sequence[Tensor], order: int, end: int | None) -> list[tuple[Tensor, Tensor]]:
    """Numbers (n, L - order + 1) of the n-grams of several sets, equal for equal ones, and which of them are there."""
    lengths = [len(part) for part in sets]
    tokens = torch.cat(list(sets))
    width = tokens.shape[1] - order + 1
    if width < 1:
        raise ValueError(f"sequences of {tokens.shape[1]} tokens have no {order}-grams")
    base = int(tokens.max()) + 1
    ids = tokens[:, :width]
    for k in range(1, order):
        # numbered anew each time, so that products stay small
        ids = (ids * base + tokens[:, k : k + width]).unique(return_inverse=True)[1]
    there = torch.arange(width, device=tokens.device) + order <= lengths_of(tokens, end)[:, None]
    return list(zip(ids.split(lengths), there.split(lengths), strict=True))


def copy_rate(samples: Tensor, corpus: Tensor, end: int | None = None, order: int = 4) -> float:
    """Share of the n-grams of samples that the corpus has too; 0 where they have none."""
    (made, there), (known, real) = grams((samples, corpus), order, end)
    found = torch.isin(made[there], known[real])
    return float(found.double().mean()) if len(found) else 0.0


def distinct(samples: Tensor, order: int, end: int | None = None) -> float:
    """Different n-grams of samples as a share of all (Li et al. 2016); 0 where they have none."""
    ((made, there),) = grams((samples,), order, end)
    return len(made[there].unique()) / max(1, int(there.sum()))


def counting_sampler(corpus: Tensor, order: int, n: int, rng: torch.Generator | None = None) -> Tensor:
    """n sequences (n, L), each next token drawn from those that followed the same ``order - 1`` tokens in the corpus.

    The first tokens are those of a sequence of the corpus. Where nothing ever followed, one token less is looked at;
    order 1 draws from all tokens. Counts alone, nothing is learned: what a generator of sequences has to beat.
    """
    length, device = corpus.shape[1], corpus.device
    base = int(corpus.max()) + 1

    def pick(count: Tensor) -> Tensor:
        return (torch.rand(len(count), device=device, generator=rng) * count).long().minimum((count - 1).clamp_min(0))

    tables = []
    for context in range(order):
        key = _key(corpus, context, length, base)
        where = key.flatten().argsort(stable=True)
        tables.append((key.flatten()[where], corpus[:, context:].flatten()[where]))
    begun = pick(torch.full((n,), len(corpus), device=device))
    made = torch.zeros(n, length, dtype=torch.int64, device=device)
    made[:, : max(order - 1, 0)] = corpus[begun, : max(order - 1, 0)]
    for t in range(max(order - 1, 0), length):
        for context in range(order):  # longer contexts overrule shorter ones
            keys, following = tables[context]
            key = _key(made[:, t - context : t + 1], context, context + 1, base).squeeze(1)
            low, high = (torch.searchsorted(keys, key, right=right) for right in (False, True))
            drawn = following[(low + pick(high - low)).clamp_max(len(keys) - 1)]
            made[:, t] = torch.where(high > low, drawn, made[:, t])
    return made


def _key(tokens: Tensor, context: int, length: int, base: int) -> Tensor:
    """One number (n, length - context) for the ``context`` tokens before each place."""
    key = torch.zeros_like(tokens[:, context:length])
    for k in range(context):
        key = key * base + tokens[:, k : k + length - context]
    return key
