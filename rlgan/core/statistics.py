"""Returns and lengths of whole games, kept on the device until somebody asks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Statistics:
    """Running returns (N,) and, per copy, sums over the games that ended since the last `take`.

    Sums stay per copy, so that a step costs a few elementwise operations and no reduction.
    """

    def __init__(self, copies: int, device: torch.device | str, metrics: tuple[str, ...] = ()) -> None:
        def zeros() -> Tensor:
            return torch.zeros(copies, device=device)

        self.running = zeros()
        self.length = zeros()
        self.steps = torch.zeros(copies, dtype=torch.int64, device=device)
        """Valid steps of each copy since the run began."""
        self.sums = {name: zeros() for name in ("episodes", "return", "length", "square", *metrics)}

    def update(
        self,
        reward: Tensor,
        over: Tensor,
        valid: Tensor,
        cut: Tensor | None = None,
        columns: slice = slice(None),
        metrics: dict[str, Tensor] | None = None,
    ) -> None:
        """Account one row of each copy in ``columns``. All arguments are (n,).

        ``over`` are true ends of games, at which ``metrics`` are read; ``cut`` ends a game without counting it. Invalid
        rows clear the running sums, so nothing need be cleared at an end.
        """
        running, length = self.running[columns], self.length[columns]
        counted = valid.to(running.dtype)
        running.add_(reward).mul_(counted)
        length.add_(counted).mul_(counted)
        self.steps[columns].add_(valid)
        ended = over.to(running.dtype)
        returned = running * ended
        self.sums["episodes"][columns].add_(ended)
        self.sums["return"][columns].add_(returned)
        self.sums["square"][columns].addcmul_(returned, running)
        self.sums["length"][columns].addcmul_(length, ended)
        for name, value in (metrics or {}).items():
            self.sums[name][columns].addcmul_(value.to(running.dtype), ended)
        if cut is not None:
            running.masked_fill_(cut, 0.0)
            length.masked_fill_(cut, 0.0)

    def take(self) -> dict[str, float | int | None]:
        """Read the games that ended since the last call, as means, and forget them. One copy to the host."""
        names = list(self.sums)
        values = torch.stack([self.sums[name].double().sum() for name in names]).tolist()
        totals = dict(zip(names, values, strict=True))
        for total in self.sums.values():
            total.zero_()
        n = totals.pop("episodes")
        square = totals.pop("square")
        row: dict[str, float | int | None] = {"episodes": int(n)}
        for name, total in totals.items():
            row[f"{name}_mean"] = total / n if n else None
        mean = totals["return"] / n if n else 0.0
        row["return_std"] = max(square / n - mean * mean, 0.0) ** 0.5 if n else None
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors."""
        return {"running": self.running, "length": self.length, "steps": self.steps, "sums": self.sums}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy the tensors in."""
        self.running.copy_(tree["running"])
        self.length.copy_(tree["length"])
        self.steps.copy_(tree["steps"])
        for name, total in self.sums.items():
            total.copy_(tree["sums"][name])
