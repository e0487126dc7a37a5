"""Measures of sequences against a corpus, in tensors: what is copied, and samplers that only count.

Sequences are (n, L) int64 tokens, with ``end`` as `Tokens` has it; an n-gram lies before the end of its sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlgan.tokens import counted, lengths_of


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


def counting_sampler(
    corpus: Tensor, order: int, n: int, rng: torch.Generator | None = None, end: int | None = None
) -> Tensor:
    """n sequences (n, L), each next token drawn from those that followed the same ``order - 1`` tokens in the corpus.

    The first tokens are those of a sequence of the corpus. Where nothing ever followed, one token less is looked at;
    order 1 draws from all tokens, an end among them. Counts alone, nothing is learned: what a generator of sequences
    has to beat.
    """
    length, device = corpus.shape[1], corpus.device
    base = int(corpus.max()) + 1

    def pick(count: Tensor) -> Tensor:
        return (torch.rand(len(count), device=device, generator=rng) * count).long().minimum((count - 1).clamp_min(0))

    tables, counts = [], counted(corpus, end)
    for context in range(order):
        there = counts[:, context:]
        key, following = _key(corpus, context, length, base)[there], corpus[:, context:][there]
        where = key.argsort(stable=True)
        tables.append((key[where], following[where]))
    begun = pick(torch.full((n,), len(corpus), device=device))
    made = torch.zeros(n, length, dtype=torch.int64, device=device)
    made[:, : order - 1] = corpus[begun, : order - 1]
    for t in range(order - 1, length):
        for context in range(order):  # longer contexts overrule shorter ones
            keys, following = tables[context]
            key = _key(made[:, t - context : t + 1], context, context + 1, base).squeeze(1)
            low, high = (torch.searchsorted(keys, key, right=right) for right in (False, True))
            drawn = following[(low + pick(high - low)).clamp_max(len(keys) - 1)]
            made[:, t] = torch.where(high > low, drawn, made[:, t])
    return made if end is None else made.masked_fill(~counted(made, end), end)


def _key(tokens: Tensor, context: int, length: int, base: int) -> Tensor:
    """One number (n, length - context) for the ``context`` tokens before each place."""
    key = torch.zeros_like(tokens[:, context:length])
    for k in range(context):
        key = key * base + tokens[:, k : k + length - context]
    return key


def bleu(samples: Tensor, references: Tensor | None, most: int, end: int | None = None) -> list[float]:
    """Mean BLEU-2 to BLEU-``most`` (Papineni et al. 2002) of samples, each a sentence against all references.

    Without references each sample is held against all others, self-BLEU (Zhu et al. 2018). Precisions of 0 are smoothed
    as by method 1 of Chen & Cherry (2014) with epsilon 0.1, which is what nltk gives.
    """
    sets = (samples,) if references is None else (samples, references)
    n, length = samples.shape
    lengths = lengths_of(samples, end)
    total, scores = torch.zeros(n, dtype=torch.float64, device=samples.device), []
    possible = torch.ones(n, dtype=torch.bool, device=samples.device)
    for order in range(1, most + 1):
        hits, all_grams = total.new_zeros(n), (lengths - order + 1).clamp_min(1)
        if order <= length:
            row, count, allowed = _matches(grams(sets, order, end))
            hits.index_add_(0, row, torch.minimum(count, allowed).double())
        if order == 1:
            possible = hits > 0
        total = total + (torch.where(hits > 0, hits, 0.1) / all_grams).log()
        scores.append((total / order).exp())
    penalty = _brevity(lengths, None if references is None else lengths_of(references, end))
    return [float((score * penalty * possible).mean()) for score in scores[1:]]


def _matches(found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """For each kind of n-gram in each sample: its row, its count, and the most that any one reference has of it."""
    base = max(int(ids.max()) for ids, _ in found) + 1

    def counts(ids: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        key, count = (rows * base + ids)[there].unique(return_counts=True)
        return key // base, key % base, count

    row, gram, count = counts(*found[0])
    _, known, times = counts(*found[-1])
    most = count.new_zeros(base).scatter_reduce(0, known, times, "amax")
    if len(found) == 2:
        return row, count, most[gram]
    # among samples the reference is another one: where one alone has the most, the second most counts for it
    top = count == most[gram]
    owners = count.new_zeros(base).index_add(0, gram, top.long())
    second = count.new_zeros(base).scatter_reduce(0, gram, torch.where(top, 0, count), "amax")
    return row, count, torch.where(top & (owners[gram] == 1), second[gram], most[gram])


def _brevity(lengths: Tensor, references: Tensor | None) -> Tensor:
    """Penalty (n,) of samples shorter than the reference whose length is closest, the shorter one of two."""
    others = lengths if references is None else references
    places = torch.arange(int(others.max()) + 1, device=lengths.device)
    itself = (places == lengths[:, None]).long() if references is None else 0
    present = others.bincount(minlength=len(places)) > itself
    far = (places - lengths[:, None]).abs() * (2 * len(places)) + places
    closest = torch.where(present, far, far.max() + 1).argmin(1)
    return torch.where(lengths > closest, 1.0, (1 - closest / lengths.clamp_min(1)).exp()) * (lengths > 0)
