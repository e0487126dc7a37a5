"""A learned reward as a stage of a source: after collecting, before learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlgan.core.capture import Captured, capture
from rlgan.core.protocols import Batch, RewardModel
from rlgan.store.state import Saved


class RewardStage(Saved):
    """Puts a model's reward in place of the env's, and trains the model on rows as they were collected."""

    kept = ("model", "credit", "metrics")

    def __init__(self, model: RewardModel, learner: Any, mode: Captured) -> None:
        self.model, self.learner = model, learner
        self.update = capture(model.update, mode)
        self.credit = 0
        """Rows that no update of the model has followed yet."""
        self.metrics: dict[str, Tensor] = {}
        """Of the model's last update."""

    def __call__(self, rows: Batch) -> Tensor:
        """Return the reward (T, N) of rows; 0 on invalid ones."""
        with torch.no_grad():
            return self.model.reward(rows, self.learner) * rows["valid"]

    def learn(self, rows: int, draw: Callable[[int], Batch]) -> None:
        """Train the model for as many rows as were collected; ``draw(count)`` gives rows (1, count, ...)."""
        self.credit += rows
        while self.credit >= self.model.every:
            self.credit -= self.model.every
            self.metrics = self.update(draw(self.model.batch_size))

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in; the names of metrics are known only after an update."""
        self.metrics = tree["metrics"]
        super().load_state_dict(tree)
