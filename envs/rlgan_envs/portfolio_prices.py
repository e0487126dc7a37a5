"""Prices of a market, from a CSV file of one's own or from the files in the package universal-portfolios."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np

from rlgan.errors import UsageError
from rlgan_envs import portfolio_kelly as kelly

SETS = ("nyse_o", "nyse_n", "tse", "sp500", "msci", "djia")
"""Files of universal-portfolios: prices over those before the first row, without dates."""
PACKAGE = "universal-portfolios"


@dataclass(frozen=True, eq=False)
class Market:
    """T bars of A assets."""

    name: str
    relatives: np.ndarray
    """Price at the end of each bar over that at its start, (T, A) float64; 1 where one of them is missing."""
    listed: np.ndarray
    """Whether there is a price at the start of each bar, at which the asset can be traded, (T, A) bool."""
    outcomes: np.ndarray | None = None
    """Of the synthetic market: what happened in each bar, (T,) int64."""


def load(name: str) -> Market:
    """The synthetic market, a set of universal-portfolios, or a CSV file.

    Raises:
        UsageError: it is not there, or its prices are not sound.
    """
    if name == "synthetic":
        outcomes = kelly.outcomes()
        relatives = kelly.PAYS[outcomes, 1:]
        return Market(name, relatives, np.ones(relatives.shape, bool), outcomes)
    return packaged(name) if name in SETS else read(name)


@lru_cache
def packaged(name: str) -> Market:
    """A set of universal-portfolios, whose code is not imported."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(f"universal/data/{name}.csv")))
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            f"env.prices={name} is a file of the package {PACKAGE}, which is not installed: run `pip install --no-deps "
            f'"{PACKAGE}>=0.4.17"` (what it requires is for its code, which is not used)'
        ) from error
    try:
        prices = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2, encoding="latin-1")
    except (OSError, ValueError) as error:
        raise UsageError(f"env.prices={name}: {path} cannot be read: {error}; install {PACKAGE} again") from error
    if not (np.isfinite(prices) & (prices > 0)).all():
        raise UsageError(f"env.prices={name}: {path} has prices that are not positive; install {PACKAGE} again")
    return market(name, np.concatenate((np.ones((1, prices.shape[1])), prices)))


def market(name: str, prices: np.ndarray) -> Market:
    """Bars between rows of prices (T + 1, A), NaN where an asset is not listed."""
    relatives = prices[1:] / prices[:-1]
    return Market(name, np.where(np.isnan(relatives), 1.0, relatives), ~np.isnan(prices[:-1]))


def read(name: str) -> Market:
    """A CSV file: a header, then a date (ISO 8601) and a price of each asset in each row, oldest first.

    An asset may begin later and end earlier than others, with empty cells before and after.

    Raises:
        UsageError: what is wrong, with file, line and column.
    """
    where = f"env.prices={name}"
    try:
        with Path(name).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except FileNotFoundError as error:
        raise UsageError(
            f"{where}: there is no such file; write synthetic, {', '.join(SETS)}, or the path of a CSV file"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{where} cannot be read as CSV in UTF-8: {error}") from error
    if not lines:
        raise UsageError(f"{where} is empty: write a header, then one row of a date and prices for each bar")
    header = [cell.strip() for cell in lines[0][1]]
    if len(header) < 2:
        raise UsageError(f"{where}, line 1: the header has no column of prices after that of dates: add one")
    for i, column in enumerate(header[1:], 1):
        if not column or column in header[:i]:
            fault = f"repeats '{column}'" if column else "has no name"
            raise UsageError(f"{where}, line 1: column {i + 1} {fault}: give each asset a name of its own")
    if len(lines) < 3:
        raise UsageError(
            f"{where} has {len(lines) - 1} {'row' if len(lines) == 2 else 'rows'} of prices: write at least 2, since a "
            "bar leads from one to the next"
        )
    prices, before = [], None
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise UsageError(f"{where}, line {line} has {len(row)} columns, the header has {len(header)}: fill the row")
        date = _date(f"{where}, line {line}, column '{header[0]}'", row[0])
        if before is not None and not date > before[1]:
            raise UsageError(
                f"{where}, line {line}, column '{header[0]}': {row[0].strip()} does not come after the date of line "
                f"{before[0]}: sort the rows, oldest first, one for each date"
            )
        before = (line, date)
        prices.append(
            [_price(f"{where}, line {line}, column '{c}'", cell) for c, cell in zip(header[1:], row[1:], strict=True)]
        )
    table = np.array(prices)
    for column, series in zip(header[1:], table.T, strict=True):
        (there,) = np.nonzero(~np.isnan(series))
        if not len(there):
            raise UsageError(f"{where}, column '{column}' has no price: fill it, or leave it out")
        (gaps,) = np.nonzero(np.isnan(series[there[0] : there[-1]]))
        if len(gaps):
            line = lines[1 + there[0] + gaps[0]][0]
            raise UsageError(
                f"{where}, line {line}, column '{column}' is empty between two prices: fill the gap "
                "(an asset may only begin later or end earlier)"
            )
    return market(name, table)


def _date(where: str, cell: str) -> datetime:
    try:
        date = datetime.fromisoformat(cell.strip())
    except ValueError as error:
        raise UsageError(f"{where}: '{cell.strip()}' is no date: write it as 2024-01-31") from error
    return (date.astimezone(UTC) if date.tzinfo else date).replace(tzinfo=None)


def _price(where: str, cell: str) -> float:
    """NaN where the cell is empty."""
    if not cell.strip():
        return math.nan
    try:
        price = float(cell)
    except ValueError as error:
        raise UsageError(f"{where}: '{cell.strip()}' is no number: write a price above 0") from error
    if not 0 < price < math.inf:
        raise UsageError(f"{where}: {cell.strip()} is no price: write a finite number above 0")
    return price
