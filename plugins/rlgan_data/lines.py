"""Lines of a text file, word by word or character by character: poems, captions, tunes of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from rlgan.core.protocols import DataSet
from rlgan.datasets import fingerprint
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.measures import bleu, copy_rate, counting_sampler, distinct
from rlgan.specs import DataSpec, Score
from rlgan.tokens import Tokens, counted

END = 0
COPIED, MOST = 4, 4
"""Length of the n-grams whose copies are counted, and of the longest in BLEU."""


@dataclass(frozen=True)
class LinesConfig:
    """Settings of lines."""

    level: Literal["word", "char"] = "word"
    """What a token is: a word between spaces, or a character."""
    length: Annotated[int, Ge(0)] = 0
    """Tokens of a sequence; shorter lines are filled with their end; 0 = as many as the longest line has."""
    held_out: Annotated[int, Ge(2)] = 10
    """One line of so many is held out."""


def make(config: LinesConfig, argument: str) -> DataSet:
    """Read the lines of a file, (M, L). Lines without a token are left out.

    ``~`` at the start of its path is the home folder.

    Raises:
        UsageError: it cannot be read, has less than two lines, or a line that is too long.
    """
    noun = "words" if config.level == "word" else "characters"
    try:
        content = Path(argument).expanduser().read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, RuntimeError) as error:
        where = "" if Path(argument).is_absolute() or argument.startswith("~") else f", looked for in {Path.cwd()}"
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"data=lines:{argument} cannot be read: {said}{where}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"data=lines:{argument} is not UTF-8: save it as UTF-8 text") from error
    rows_of_text = (line.rstrip("\n") for line in StringIO(text, newline=None))  # a form feed ends no line
    numbered = enumerate((line.split() if config.level == "word" else list(line) for line in rows_of_text), 1)
    lines = {number: line for number, line in numbered if line}
    if len(lines) < 2:
        found = "1 line" if lines else "no lines"
        raise UsageError(f"data=lines:{argument} has {found}: write at least three, one of which is held out")
    longest = max(map(len, lines.values()))
    length = config.length or longest
    if too_long := [number for number, line in lines.items() if len(line) > length]:
        raise UsageError(
            f"line {too_long[0]} of {argument} has {len(lines[too_long[0]])} {noun}, more than data.length={length}, "
            f"and {len(too_long)} of {len(lines)} lines have: write data.length={longest}, or shorten them"
        )
    words = ("", *sorted({token for line in lines.values() for token in line}))
    number = {word: i for i, word in enumerate(words)}
    rows = torch.tensor([[number[w] for w in line] + [END] * (length - len(line)) for line in lines.values()])
    held = torch.arange(len(rows)) % config.held_out == min(config.held_out, len(rows)) - 1
    tokens = Tokens(words, " " if config.level == "word" else "", END)
    train, test = rows[~held], rows[held]
    protocol = f"{fingerprint(content)} level={config.level} lines={len(rows)} held_out={len(test)} length={length}"
    return DataSet(
        train, protocol=protocol, tokens=tokens, judge=lambda device: LinesJudge(train.to(device), test.to(device))
    )


class LinesJudge:
    """Satisfies Judge: likelihood of held-out lines, and what samples share with these, the data and one another."""

    drawn = "nll_test"
    scores: tuple[Score, ...] = ()
    plane = (f"self_bleu_{MOST}", f"bleu_{MOST}")

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self.train, self.test, self.alike = train, test, max(2, len(test))

    def figures(self, samples: Tensor) -> dict[str, Any]:
        """Copied 4-grams and BLEU against held-out lines; of as many as are held out, self-BLEU and distinct n-grams.

        The last two depend on how many they are of.
        """
        few = samples[: self.alike]
        own = bleu(few, None, MOST, END) if len(few) > 1 else [None] * (MOST - 1)
        orders = range(2, MOST + 1)
        return {
            "copy_rate": copy_rate(samples, self.train, END, COPIED) if samples.shape[1] >= COPIED else None,
            **{f"bleu_{k}": value for k, value in zip(orders, bleu(samples, self.test, MOST, END), strict=True)},
            **{f"self_bleu_{k}": value for k, value in zip(orders, own, strict=True)},
            **{f"distinct_{k}": distinct(few, k, END) for k in (1, 2) if samples.shape[1] >= k},
        }

    @cached_property
    def baselines(self) -> list[dict[str, Any]]:
        """The same of samplers that only count, and of the held-out lines."""
        rng = torch.Generator(self.test.device).manual_seed(0)
        orders = {"unigram sampler": 1, "bigram sampler": 2, "trigram sampler": 3}
        made = {
            who: counting_sampler(self.train, k, self.alike, rng, END)
            for who, k in orders.items()
            if k <= self.train.shape[1]
        }
        real = self.figures(self.test)
        # each held-out line against the others: it is among the references of samples, where it would have 1
        real |= {f"bleu_{k}": real[f"self_bleu_{k}"] for k in range(2, MOST + 1)}
        return [*({"who": who, **self.figures(rows)} for who, rows in made.items()), {"who": "held-out lines", **real}]

    @property
    def points(self) -> dict[str, tuple[float, ...]]:
        """Samplers that only count, and the held-out lines, where there is more than one."""
        x, y = self.plane
        return {each["who"]: (each[x], each[y]) for each in self.baselines if each[x] is not None}

    def row(self, generator: Any, n: int) -> dict[str, Any]:
        """Evaluate n samples, at least as many as are held out, and the likelihood of the held-out lines."""
        nll = -float(generator.log_prob(self.test).double().sum() / counted(self.test, END).sum())
        samples = generator.sample(max(n, self.alike))
        return {"nll_test": nll, **self.figures(samples), "samples": len(samples), "baselines": self.baselines}

    def rank(self, row: dict[str, Any]) -> float:
        """The likelihood of held-out lines."""
        return -float(row["nll_test"])

    def sentence(self, row: dict[str, Any]) -> str:
        """Say what was found."""
        copied = f", {row['copy_rate']:.1%} of 4-grams copied" if row["copy_rate"] is not None else ""
        return (
            f"NLL_test {row['nll_test']:.3f} nats a token, BLEU-{MOST} {row[f'bleu_{MOST}']:.3f} over "
            f"{row['samples']:,} samples{copied}"
        )


@hookimpl
def rlgan_specs() -> Iterable[DataSpec]:
    """Lines of a file."""
    yield DataSpec("lines", make, LinesConfig, "lines of a text file: data=lines:PATH", family=True, tags=("text",))
