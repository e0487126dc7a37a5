"""Best weights on the simplex, yardsticks that references play: growth-optimal and least-variance portfolios.

By SciPy and scikit-learn, which are imported when a reference is played.
"""

from __future__ import annotations

import numpy as np

from rlgan.errors import UsageError

GAP = 1e-8
"""Distance from the best growth of a bar that is accepted."""


def log_optimal(relatives: np.ndarray, probabilities: np.ndarray | None = None) -> np.ndarray:
    """Weights (n,) that maximise the mean of ``log(relatives @ w)`` over outcomes (T, n), equally probable or not.

    With what has been as outcomes it is the best constant rebalanced portfolio in hindsight (Cover 1991).

    Raises:
        UsageError: SciPy is missing.
        ArithmeticError: the best value may be more than ``GAP`` away.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise UsageError('the best constant portfolio needs SciPy: run pip install "rlgan[scipy]"') from error
    count, n = relatives.shape
    p = np.full(count, 1 / count) if probabilities is None else probabilities

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        wealth = relatives @ w
        return -float(p @ np.log(wealth)), -(p / wealth) @ relatives

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    given = {"method": "SLSQP", "bounds": [(0, 1)] * n, "constraints": simplex}
    w = minimize(loss, np.full(n, 1 / n), jac=True, **given, options={"ftol": 1e-15, "maxiter": 1_000}).x
    w = w.clip(min=0) / w.clip(min=0).sum()
    gradient = -loss(w)[1]
    # a concave function lies below its tangent, whose maximum on the simplex is at a corner
    if not (gap := float(gradient.max() - w @ gradient)) <= GAP:
        raise ArithmeticError(f"no best weights found: the value may be {gap:.1e} below the best one")
    return w


def least_variance(samples: np.ndarray) -> np.ndarray:
    """Weights (n,) >= 0 of least variance for samples (T, n), with the covariance of Ledoit & Wolf (2004).

    Raises:
        UsageError: scikit-learn is missing.
    """
    try:
        from sklearn.covariance import ledoit_wolf
    except ImportError as error:
        raise UsageError('least variance needs scikit-learn: run pip install "rlgan[digits]"') from error
    return minimum_variance(ledoit_wolf(samples)[0])


def minimum_variance(covariance: np.ndarray) -> np.ndarray:
    """Weights (n,) >= 0 of least variance for a positive definite covariance (n, n).

    They are proportional to the x >= 0 that minimises ``x' C x / 2 - sum(x)``, with the Cholesky factor L of C a
    problem of non-negative least squares: ``|L' x - L^-1 1|``.
    """
    from scipy.optimize import nnls

    factor = np.linalg.cholesky(covariance / covariance.diagonal().mean())
    x, _ = nnls(factor.T, np.linalg.solve(factor, np.ones(len(covariance))))
    return x / x.sum()
