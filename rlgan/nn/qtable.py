"""Action values in a table, for numbered observations. Shapes: S observations, A actions, n copies, B rows."""

from __future__ import annotations

import torch
from gymnasium.spaces import Discrete, Space
from torch import Tensor, nn


class QTable(nn.Module):
    """Values (S, A) float64 of the actions of one Discrete space under the observations of another."""

    values: Tensor
    rows: Tensor
    """Rows of an update at each entry, (S * A,); 0 between updates."""

    def __init__(self, observation: Space, action: Space, initial: float, device: torch.device) -> None:
        super().__init__()
        assert isinstance(observation, Discrete) and isinstance(action, Discrete)
        self.first, self.lowest = int(observation.start), int(action.start)
        size = int(observation.n), int(action.n)
        self.register_buffer("values", torch.full(size, initial, dtype=torch.float64, device=device))
        self.register_buffer("rows", torch.zeros_like(self.values).flatten(), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Values of all actions (..., A) under observations (...)."""
        return self.values[obs - self.first]

    def place(self, obs: Tensor, action: Tensor) -> Tensor:
        """Number of the entry of each observation and action (...), from 0 to S * A - 1."""
        return (obs - self.first) * self.values.shape[1] + action - self.lowest

    def best(self, obs: Tensor) -> Tensor:
        """The action (n,) with the highest value; the first of equal ones."""
        return self(obs).argmax(-1) + self.lowest

    def explore(self, obs: Tensor, epsilon: Tensor) -> Tensor:
        """Epsilon-greedy actions (n,), independent in each copy. Ties are broken at random.

        Otherwise a table that knows nothing yet would always go the same way.
        """
        value = self(obs)
        draw = torch.rand_like(value)
        best = draw.masked_fill(value < value.amax(-1, keepdim=True), -1.0).argmax(-1)
        random = torch.randint(value.shape[-1], best.shape, device=best.device)
        chosen = torch.where(torch.rand(best.shape, device=best.device) < epsilon, random, best)
        return chosen + self.lowest

    def move(self, obs: Tensor, action: Tensor, target: Tensor, valid: Tensor, lr: Tensor) -> dict[str, Tensor]:
        """Move each entry that valid rows (B,) visit by ``lr`` () of the way to the mean of their targets (B,).

        So copies that meet at one entry in one update count as one visit with a target of less variance. Returns
        metrics.
        """
        place = self.place(obs, action)
        weight, flat = valid.to(self.values.dtype), self.values.view(-1)
        error = (target - flat[place]) * weight
        share = error / self.rows.index_add_(0, place, weight)[place].clamp_min(1.0)
        flat.index_add_(0, place, lr * share)
        self.rows.index_fill_(0, place, 0.0)
        count = weight.sum().clamp_min(1.0)
        return {"td_error": (error.square().sum() / count).sqrt(), "q": (flat[place] * weight).sum() / count}


def unnumbered(who: str, observation: Space, action: Space) -> str | None:
    """Why an agent with a table cannot act with these spaces, or None; ``who`` begins the sentence."""
    if not isinstance(action, Discrete):
        return f"{who} chooses among numbered actions, this env takes {action}"
    if not isinstance(observation, Discrete):
        return f"{who} has one row of its table for each numbered observation, this env gives {observation}"
    return None
