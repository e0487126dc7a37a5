"""Days of demand for many items: made up, or read from a file of one's own. Shapes: T days, K items.

Made-up demand is negative binomial, with a rhythm of the week and promotions that are planned ahead. A file has one
row for each day and item, and every fault of it is one sentence that names file, row and column.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from rlgan.errors import UsageError

Array = np.ndarray[Any, np.dtype[Any]]
DAYS = 10_000
"""Length of a series that is made up."""
NEEDED = ("date", "sku", "demand", "price", "cost", "lead_time")
COLUMNS = (*NEEDED, "volume", "promotion")
FIXED = ("price", "cost", "lead_time", "volume")
"""Columns that are the same on all days of an item."""
MOST = 1 << 24
"""Largest number of a file: up to it float32 holds every whole number."""
MARKS = {";": "';'", "\t": "tabs"}
"""What spreadsheets write between cells in place of a comma."""
PLAIN = "write a point for decimals, as in 1234.5, and no thousands separators or currency signs"


@dataclass(frozen=True)
class Series:
    """What an assortment is and what its customers asked for."""

    names: tuple[str, ...]
    demand: Array
    """Units asked for, (T, K)."""
    promotion: Array
    """1 on days on which an item is promoted, else 0, (T, K)."""
    weekday: Array
    """0, Monday, to 6, (T,)."""
    price: Array
    """What a unit is sold for, (K,)."""
    cost: Array
    """What it was bought for, (K,)."""
    lead_time: Array
    """Days after which an order is received, in the evening, (K,) int."""
    volume: Array
    """Room that a unit takes, (K,)."""


def make(items: int, seed: int) -> Series:
    """Demand of ``DAYS`` days, the same for the same seed on every machine.

    Means are 4 to 40 units a day, variances m + m^2 / k with k of 2 to 8, margins 20% to 50% of prices of 2 to 30, lead
    times 1 to 3 days. An item is promoted about every fifth week, for 3 to 7 days in which demand is 1.5 to 3 times as
    large.
    """
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(math.log(4), math.log(40), items))
    price = np.round(np.exp(rng.uniform(math.log(2), math.log(30), items)), 2)
    cost = np.round(price * (1 - rng.uniform(0.2, 0.5, items)), 2)
    lead_time = rng.integers(1, 4, items)
    week = np.exp(rng.normal(0, 0.25, (7, 1)) + rng.normal(0, 0.1, (7, items)))
    week /= week.mean(0)
    shape, lift = rng.uniform(2, 8, items), rng.uniform(1.5, 3, items)
    promotion = np.zeros((DAYS, items))
    starts = rng.random((DAYS, items)) < 1 / 35
    lasts = rng.integers(3, 8, (DAYS, items))
    for day, item in np.argwhere(starts):
        promotion[day : day + lasts[day, item], item] = 1
    weekday = np.arange(DAYS) % 7
    expected = mean * week[weekday] * (1 + promotion * (lift - 1))
    demand = rng.negative_binomial(shape, shape / (shape + expected)).astype(float)
    names = tuple(f"sku{k}" for k in range(items))
    return Series(names, demand, promotion, weekday, price, cost, lead_time, np.ones(items))


def read(path: str, most: int) -> Series:
    """Demand of a CSV file with the columns ``NEEDED`` and, if wanted, ``volume`` (else 1) and ``promotion`` (else 0).

    Args:
        path: Of the file; one row for each day and item, each item's days in order, all items on the same days. ``~``
            is the home folder, and a relative path is meant from the current one.
        most: Lead times are below this.

    Raises:
        UsageError: what is wrong in which row and column.
    """
    days: dict[str, list[date]] = {}
    values: dict[str, list[tuple[float, float]]] = {}
    fixed: dict[str, dict[str, float]] = {}
    for row, cells in _rows(path):
        name, day = cells["sku"], _day(path, row, cells["date"])
        if not name:
            _wrong(path, row, "sku", "it is empty; write the item's name")
        seen = days.setdefault(name, [])
        if seen and day != (due := seen[-1] + timedelta(1)):
            what = "is missing" if day > due else "comes again or out of order"
            gap = due if day > due else day
            said = f"{day} follows {seen[-1]} of '{name}': {gap} {what}"
            _wrong(path, row, "date", f"{said}; write each day once, in order")
        found = {c: _number(path, row, c, cells[c]) for c in ("demand", *FIXED, "promotion") if c in cells}
        _sound(path, row, found, most)
        terms = fixed.setdefault(name, {column: found.get(column, 1.0) for column in FIXED})
        for column in FIXED:
            if found.get(column, 1.0) != terms[column]:
                _wrong(
                    path,
                    row,
                    column,
                    f"{cells[column]} of '{name}' was {terms[column]:g} before; write one for all days",
                )
        seen.append(day)
        values.setdefault(name, []).append((found["demand"], found.get("promotion", 0.0)))
    names = tuple(days)
    if not names or sum(map(len, days.values())) < 2:
        raise UsageError(
            f"{path} has {'1 row' if names else 'no rows'} of demand; write one row for each day and item, of many days"
        )
    first = days[names[0]]
    for name in names:
        if (days[name][0], days[name][-1]) != (first[0], first[-1]):
            raise UsageError(
                f"{path}: '{name}' has the days {days[name][0]} to {days[name][-1]} and '{names[0]}' {first[0]} to "
                f"{first[-1]}; write the same days for every item, with demand 0 where nothing was asked for"
            )
    table = np.array([values[name] for name in names])  # (K, T, 2)
    terms_of = {column: np.array([fixed[name][column] for name in names]) for column in FIXED}
    return Series(
        names,
        table[:, :, 0].T,
        table[:, :, 1].T,
        np.array([day.weekday() for day in first]),
        terms_of["price"],
        terms_of["cost"],
        terms_of["lead_time"].astype(int),
        terms_of["volume"],
    )


def _rows(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of each row, as an editor shows it, and its cells by column."""
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip().lower() for cell in next(reader, [])]
            if len(header) == 1 and (between := next((name for mark, name in MARKS.items() if mark in header[0]), "")):
                raise UsageError(f"{path}, row 1: cells are separated by {between}; write commas between them")
            missing = [column for column in NEEDED if column not in header]
            if missing:
                raise UsageError(
                    f"{path}, row 1: no column {', '.join(missing)}; the first row names the columns "
                    f"{', '.join(NEEDED)}, and volume and promotion if wanted"
                )
            for column in set(header) - set(COLUMNS):
                if close := difflib.get_close_matches(column, COLUMNS, 1, 0.8):
                    raise UsageError(f"{path}, row 1: column {column} would not be read; did you mean {close[0]}?")
            if twice := sorted({column for column in header if column and header.count(column) > 1}):
                raise UsageError(f"{path}, row 1: {', '.join(twice)} stands twice; name each column once")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    points = f", and {PLAIN}" if len(cells) > len(header) else ""
                    raise UsageError(
                        f"{path}, row {reader.line_num}: it has {len(cells)} cells and the first row {len(header)}; "
                        f"write one cell for each column{points}"
                    )
                yield reader.line_num, {c: cell.strip() for c, cell in zip(header, cells, strict=True)}
    except (OSError, RuntimeError, UnicodeDecodeError, csv.Error) as error:
        said = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and not Path(path).expanduser().is_absolute():
            said += f", looked for in {Path.cwd()}, where the command runs"
        raise UsageError(f"env.csv={path} cannot be read: {said}; write the path of a CSV file in UTF-8") from None


def _day(path: str, row: int, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        _wrong(path, row, "date", f"'{text}' is no date; write it as 2025-01-31")


def _number(path: str, row: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = ", 0 where nothing was asked for" if column == "demand" else ""
        # with a digit in it, a number was meant
        right = PLAIN if any(map(str.isdigit, text)) else f"write one in each row{hint}"
        _wrong(path, row, column, f"'{text}' is no number; {right}")
    if value > MOST:
        _wrong(path, row, column, f"{text} is more than {MOST:,}; write larger units")
    return value


def _sound(path: str, row: int, found: dict[str, float], most: int) -> None:
    """Whether a row's numbers can be true."""
    for column in ("demand", "cost", "lead_time"):
        if found[column] < 0:
            _wrong(path, row, column, f"{found[column]:g} is negative; write a number from 0 on")
    if found["price"] <= found["cost"]:
        _wrong(
            path,
            row,
            "price",
            f"{found['price']:g} is not above the cost, {found['cost']:g}; write a price that earns something",
        )
    if found["lead_time"] % 1:
        _wrong(path, row, "lead_time", f"{found['lead_time']:g} is no whole number of days")
    if found["lead_time"] >= most:
        _wrong(
            path, row, "lead_time", f"{found['lead_time']:g} days are no shorter than an episode; env.max_steps={most}"
        )
    if found.get("volume", 1.0) <= 0:
        _wrong(path, row, "volume", f"{found['volume']:g} is no room; write a number above 0")
    if found.get("promotion", 0.0) not in (0.0, 1.0):
        _wrong(path, row, "promotion", f"{found['promotion']:g} is neither 0 nor 1")


def _wrong(path: str, row: int, column: str, what: str) -> NoReturn:
    raise UsageError(f"{path}, row {row}, column {column}: {what}")
