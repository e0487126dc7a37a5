"""What the numbers of a data set of sequences stand for: words or characters, and where a sequence ends."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import torch
from torch import Tensor

from rlgan.errors import UsageError


@dataclass(frozen=True, eq=False)
class Tokens:
    """A vocabulary of V tokens, numbered from 0. Sequences are (n, L) int64."""

    words: tuple[str, ...]
    """How each token is written."""
    joiner: str = " "
    """What stands between two tokens of a text: a space between words, nothing between characters."""
    end: int | None = None
    """The token that ends a sequence and fills what is left of it; None where all sequences have length L."""

    def text(self, samples: Tensor) -> list[str]:
        """One line of text for each sequence, up to its end."""
        lengths = lengths_of(samples, self.end).tolist()
        rows = zip(samples.tolist(), lengths, strict=True)
        return [self.joiner.join(self.words[token] for token in row[:length]) for row, length in rows]

    def read(self, text: str) -> Tensor:
        """The tokens (P,) of a text. UsageError names the first that is not in the vocabulary, and its nearest."""
        numbers = {word: number for number, word in enumerate(self.words) if number != self.end}
        pieces = text.split() if self.joiner else list(text)
        for piece in pieces:
            if piece not in numbers:
                close = difflib.get_close_matches(piece, numbers, n=1)
                raise UsageError(
                    f"{piece!r} is none of the {len(numbers):,} tokens of the data set: write some that it has"
                    + (f", as {close[0]!r}" if close else "")
                )
        return torch.tensor([numbers[piece] for piece in pieces], dtype=torch.int64)


def lengths_of(samples: Tensor, end: int | None) -> Tensor:
    """Tokens (n,) of each sequence (n, L) before its end."""
    if end is None:
        return torch.full((len(samples),), samples.shape[1], device=samples.device)
    return (samples != end).cumprod(1).sum(1)


def counted(samples: Tensor, end: int | None) -> Tensor:
    """Which tokens (n, L) are part of a sequence: all before its end, and the end itself."""
    places = torch.arange(samples.shape[1], device=samples.device)
    return places <= lengths_of(samples, end)[:, None]
