"""A market of four outcomes and three stocks whose best growth is known in closed form (Kelly 1956).

In each bar one stock rises and the others fall, or all fall. Which one depends on the bar before the last: what rose
then makes its neighbour more probable. Four assets (with cash) and four outcomes are a complete market, so its best
portfolio turns 1 into p / q, what is probable over what it costs to insure, and grows by the relative entropy of both.
"""

from __future__ import annotations

from bisect import bisect
from functools import cache

import numpy as np

UP, DOWN = 1.8, 0.8
"""Factors of the price of a stock that rises, and of one that falls."""
STOCKS, BARS = 3, 1 << 18
DELAY = 2
"""Bars from what is known to what depends on it: one more than an agent with a lag of one bar must look back."""
PAYS = np.full((STOCKS + 1, STOCKS + 1), DOWN)
"""What 1 becomes by outcome (0 = all fall, k = stock k rises) and asset (0 = cash), (4, 4)."""
PAYS[:, 0] = 1.0
PAYS[range(1, STOCKS + 1), range(1, STOCKS + 1)] = UP
CHAIN = np.array([(0.34, 0.22, 0.22, 0.22), (0.34, 0.18, 0.3, 0.18), (0.34, 0.18, 0.18, 0.3), (0.34, 0.3, 0.18, 0.18)])
"""Probabilities of outcomes after each outcome, (4, 4)."""


@cache
def outcomes(count: int = BARS, seed: int = 0) -> np.ndarray:
    """Outcomes of the bars, (T,) int64: always the same ones."""
    point = np.random.default_rng(seed).random(count)
    edges = CHAIN.cumsum(1)[:, :-1].tolist()
    drawn = [0] * DELAY
    for u in point.tolist():
        drawn.append(bisect(edges[drawn[-DELAY]], u))
    return np.array(drawn[DELAY:])


def insurance() -> np.ndarray:
    """Price q of 1 paid in each outcome, (4,): with it every asset costs 1."""
    return np.linalg.solve(PAYS.T, np.ones(STOCKS + 1))


def weights() -> np.ndarray:
    """Best weights after each outcome of ``DELAY`` bars before, (4, 4), all positive."""
    return np.linalg.solve(PAYS, (CHAIN / insurance()).T).T


@cache
def growth() -> float:
    """Best expected log growth of a bar: relative entropy of p and q, averaged over the outcomes that lead to p."""
    values, vectors = np.linalg.eig(CHAIN.T)
    share = np.real(vectors[:, np.argmax(np.real(values))])
    share /= share.sum()
    return float(share @ (CHAIN * np.log(CHAIN / insurance())).sum(1))
