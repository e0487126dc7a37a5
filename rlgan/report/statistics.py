"""Returns and lengths of whole games, kept on the device until somebody asks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlgan.errors import EnvError
from rlgan.store.state import Saved

OWN = ("episodes", "return", "length")
"""Sums over games that every env has; metrics of an env's own have other names."""
NOT_FINITE = "gave a reward that is NaN or infinite: every reward must be a finite number"


class Statistics(Saved):
    """Running returns (N,) and, per copy, sums over the games that ended since the last `take`.

    Sums stay per copy, so that a step costs a few elementwise operations and no reduction.
    """

    kept = ("running", "length", "sums")

    def __init__(self, copies: int, device: torch.device | str, metrics: tuple[str, ...] = ()) -> None:
        def zeros() -> Tensor:
            return torch.zeros(copies, device=device)

        self.running = zeros()
        self.length = zeros()
        self.sums = {name: zeros() for name in (*OWN, *metrics)}

    def advance(self, reward: Tensor, valid: Tensor) -> Tensor:
        """Add one row (N,) of rewards, 0 on invalid rows, and return the lengths (N,) so far.

        An invalid row clears the running sums, so nothing need be cleared at an end.
        """
        counted = valid.to(self.running.dtype)
        self.running.mul_(counted).add_(reward)
        return self.length.mul_(counted).add_(counted)

    def finish(self, over: Tensor, metrics: dict[str, Tensor] | None = None) -> None:
        """Count the games that are ``over`` (N,): true ends, at which ``metrics`` are read."""
        ended = over.to(self.running.dtype)
        self.sums["episodes"].add_(ended)
        self.sums["return"].addcmul_(self.running, ended)
        self.sums["length"].addcmul_(self.length, ended)
        for name, value in (metrics or {}).items():
            self.sums[name].addcmul_(value.to(ended.dtype), ended)

    def add(self, games: list[tuple[float, int]]) -> None:
        """Count games, (return, length) each, that were played elsewhere."""
        for name, total in (
            ("episodes", len(games)),
            ("return", sum(r for r, _ in games)),
            ("length", sum(n for _, n in games)),
        ):
            self.sums[name][0] += total

    def take(self) -> dict[str, float | int | None]:
        """Read the games that ended since the last call, as means, and forget them. One copy to the host."""
        names = list(self.sums)
        values = torch.stack([self.sums[name].double().sum() for name in names]).tolist()
        totals = dict(zip(names, values, strict=True))
        for total in self.sums.values():
            total.zero_()
        n = totals.pop("episodes")
        row: dict[str, float | int | None] = {"episodes": int(n)}
        for name, total in totals.items():
            row[f"{name}_mean"] = total / n if n else None
        return row

    def check(self, name: str) -> None:
        """Read whether all rewards so far were finite.

        Raises:
            EnvError: one was not. ``name`` is the env's.
        """
        if not bool((self.running + self.sums["return"]).isfinite().all()):
            raise EnvError(f"env {name} {NOT_FINITE}")

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy the tensors in. ValueError: the count of games is not a number."""
        super().load_state_dict(tree)
        if not bool(self.sums["episodes"].isfinite().all()):
            raise ValueError("its count of games is not finite")
