"""The words of the command line: ``key=value``, commas for a matrix, ``0..9`` for a range, ``[1,2]`` for a list."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlgan.errors import UsageError

LIMIT = 10_000
"""The most runs that one command may ask for."""
RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")


@dataclass(frozen=True)
class Cell:
    """One run of a matrix."""

    words: tuple[str, ...]
    """What would ask for this run alone."""
    settings: dict[str, str]
    """Key to text."""
    files: tuple[str, ...]
    varied: tuple[str, ...]
    """The words in which this run differs from the others."""


def split_commas(text: str) -> list[str]:
    """Split at the commas that stand in no bracket and in no quotes; doubled quotes inside quotes are one."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[]":
            depth += 1 if char == "[" else -1
        elif char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
        if depth < 0:
            break
    if quote or depth:
        raise UsageError(f"unclosed {'quote' if quote else 'bracket'}")
    return [*parts, text[start:]]


def alternatives(text: str) -> Sequence[str | int]:
    """The values that one word asks for: ``1,2`` gives two, ``0..9`` ten, ``[1,2]`` one."""
    items = split_commas(text)
    if len(items) > 1 and "" in items:
        raise UsageError("a value between two commas is empty")
    values: list[str | int] = []
    for item in items:
        ends = RANGE.fullmatch(item)
        if not ends:
            values.append(item)
            continue
        first, last = int(ends[1]), int(ends[2])
        if last < first:
            raise UsageError(f"the range {item} is empty, write {last}..{first}")
        if last - first >= LIMIT:
            raise UsageError(f"the range {item} has {last - first + 1} values, more than {LIMIT}")
        values += range(first, last + 1)
    return values


def expand(words: Sequence[str]) -> tuple[list[Cell], list[str]]:
    """Read the words and multiply out their commas; the last word varies fastest.

    Returns:
        The cells, and a sentence for each word that cannot be read (then there are no cells).
    """
    choices: dict[str, Sequence[str | int]] = {}
    files: list[str] = []
    problems: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
        if word.startswith("@"):
            files.append(word[1:])
        elif not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", key):
            problems.append(f"cannot read '{word}': write key=value, as in agent=dqn, or @file.yaml.")
        elif key in choices:
            problems.append(f"{key} is given twice: give it once (commas ask for several runs: {key}=A,B).")
        else:
            try:
                choices[key] = alternatives(text)
            except UsageError as error:
                problems.append(f"{word}: {error}.")
    count = math.prod(map(len, choices.values()))
    if count > LIMIT:
        problems.append(f"the commas and ranges ask for {count} runs, more than {LIMIT}: ask for fewer at a time.")
    if problems:
        return [], problems
    cells = []
    for values in itertools.product(*choices.values()):
        settings = {key: str(value) for key, value in zip(choices, values, strict=True)}
        varied = tuple(f"{key}={settings[key]}" for key in choices if len(choices[key]) > 1)
        own = [f"@{file}" for file in files] + [f"{key}={text}" for key, text in settings.items()]
        cells.append(Cell(tuple(own), settings, tuple(files), varied))
    return cells, []
