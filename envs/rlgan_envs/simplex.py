"""Best weights on the simplex, exactly enough to be a yardstick: growth-optimal and least-variance portfolios."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LOWEST = 7e-12
"""Weight of the logarithmic barrier at the end: the answer is at most so far from the best, for each asset."""
STEPS, NEAR, GAP = 20, 0.3, 1e-8
"""Most Newton steps at one barrier; relative change of weights below which the next barrier begins; distance from the
optimum that is accepted."""
PATIENCE = 3
"""Block pivots that may bring no progress before they become single."""


def maximise(slope: Callable[[Tensor], tuple[Tensor, Tensor]], n: int) -> Tensor:
    """Weights (n,) >= 0 of sum 1 that maximise a concave function, by Newton steps inside of the simplex.

    ``slope`` gives gradient (n,) and Hessian (n, n) at weights (n,), float64 on the CPU, of about unit scale.

    Raises:
        ArithmeticError: the best value may be more than ``GAP`` away.
    """
    w, eye, barrier = torch.full((n,), 1 / n, dtype=torch.float64), torch.eye(n, dtype=torch.float64), 1.0
    while barrier > LOWEST:
        for _ in range(STEPS):
            gradient, hessian = slope(w)
            # in relative changes u = dw / w the matrix keeps its scale where weights vanish
            matrix = barrier * eye - w[:, None] * hessian * w
            free, tied = torch.linalg.solve(matrix, torch.stack((w * gradient + barrier, w), 1)).T
            u = free - tied * (w @ free) / (w @ tied)
            lowest, highest = float(u.min()), float(u.max())
            w = w * (1 + min(1.0, 0.9 / max(-lowest, 1e-300)) * u)
            w = w / w.sum()
            if max(-lowest, highest) < NEAR:
                break
        barrier /= 6
    gradient, _ = slope(w)
    # a concave function lies below its tangent, whose maximum on the simplex is at a corner
    gap = float(gradient.max() - w @ gradient)
    if not gap <= GAP:
        raise ArithmeticError(f"no best weights found: the value may be {gap:.1e} below the best one")
    return w


def log_optimal(relatives: Tensor, probabilities: Tensor | None = None) -> Tensor:
    """Weights (n,) that maximise the mean of ``log(relatives @ w)`` over outcomes (T, n), equally probable or not.

    With what has been as outcomes it is the best constant rebalanced portfolio in hindsight (Cover 1991).
    """
    count, n = relatives.shape
    p = torch.full((count,), 1 / count, dtype=torch.float64) if probabilities is None else probabilities

    def slope(w: Tensor) -> tuple[Tensor, Tensor]:
        scaled = relatives / (relatives @ w)[:, None]
        return p @ scaled, -(scaled.T * p) @ scaled

    return maximise(slope, n)


def minimum_variance(covariance: Tensor) -> Tensor:
    """Weights (n,) >= 0 of least variance for a positive definite covariance (n, n) float64, exactly.

    Block principal pivoting (Judice & Pires 1994): all assets whose sign is wrong change sides at once; where that does
    not help, the last of them alone, which always ends (Murty 1974).

    Raises:
        ArithmeticError: it does not end: the covariance is not positive definite.
    """
    scaled, n = covariance / covariance.diagonal().mean(), len(covariance)
    held, fewest, patience = torch.ones(n, dtype=torch.bool), n + 1, PATIENCE
    for _ in range(100 * n):
        (of,) = held.nonzero(as_tuple=True)
        x = torch.zeros(n, dtype=torch.float64)
        x[of] = torch.linalg.solve(scaled[of][:, of], torch.ones(len(of), dtype=torch.float64))
        wrong = torch.where(held, x < 0, scaled @ x < 1 - 1e-9)
        count = int(wrong.sum())
        if count == 0:
            return x / x.sum()
        if count < fewest:
            fewest, patience = count, PATIENCE
        elif patience:
            patience -= 1
        else:
            last = int(wrong.nonzero()[-1])
            wrong = torch.arange(n) == last
        held = held ^ wrong
    raise ArithmeticError("no weights of least variance found: the covariance is not positive definite")


def ledoit_wolf(samples: Tensor) -> Tensor:
    """Covariance (n, n) of samples (T, n), drawn towards a multiple of the identity as Ledoit & Wolf (2004) derive."""
    count, n = samples.shape
    x = samples - samples.mean(0)
    sample, eye = x.T @ x / count, torch.eye(n, dtype=samples.dtype)
    level = sample.trace() / n
    spread = (sample - level * eye).square().sum()
    error = x.square().sum(1).square().sum() / count**2 - sample.square().sum() / count
    share = torch.minimum(error / spread, torch.ones(())) if spread > 0 else 1.0
    return share * level * eye + (1 - share) * sample
