"""Replay by priority (Schaul et al. 2016, proportional variant). Shapes as in `buffers`: C rows, N copies, B batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlgan.core.buffers import Ring
from rlgan.core.protocols import Batch

UNIT = 2.0**-24
"""What a mass of 1 stands for."""
LIMIT = 1 << 40
"""The largest mass; those of 8 million rows are summed without overflow."""
SMALLEST = 1e-6
"""Added to each priority, so that a row without error is seen again."""


class PrioritisedRing(Ring):
    """A ring whose rows are drawn in proportion to ``(priority + 1e-6)^alpha``; new ones like the highest so far.

    A sum tree of two levels, on the device: the mass of each row, and the sum of each block of about sqrt(C * N) rows.
    A draw looks through the sums, then through one block. Masses are whole numbers, so sums are exact in any order, and
    stay so. Rows whose window of n rows cannot be drawn yet or any more have none, nor do invalid ones.
    """

    kept = (*Ring.kept, "mass", "most")

    def __init__(
        self, capacity: int, copies: int, groups: list[slice], stack: int, device: torch.device, n: int, alpha: float
    ) -> None:
        super().__init__(capacity, copies, groups, stack, device)
        self.n, self.alpha = n, alpha
        self.places = self.capacity * copies
        self.block = math.isqrt(self.places - 1) + 1
        """Rows of a block."""
        blocks = -(-self.places // self.block)
        self.mass = torch.zeros(blocks * self.block, dtype=torch.int64, device=device)
        self.blocks = self.mass.view(blocks, self.block)
        self.sums = torch.zeros(blocks, dtype=torch.int64, device=device)
        self.most = torch.tensor(round(1 / UNIT), device=device)
        """The highest mass so far."""

    def write(self, group: int, row: Batch) -> None:
        """Append one row of a group. The oldest rows leave, and the newest whose window is held comes in."""
        left = self._bounds(self.n)[group][0]
        super().write(group, row)
        low, span = self._bounds(self.n)[group]
        for gone in range(left, low):
            self._weigh(gone, group, 0)
        if span > 0:
            come = low + span - 1
            valid = self.fields["valid"][come % self.capacity, self.groups[group]]
            self._weigh(come, group, valid * self.most)

    def _weigh(self, row: int, group: int, mass: Tensor | int) -> None:
        first, columns = row % self.capacity * self.copies, self.groups[group]
        start, stop = first + columns.start, first + columns.stop
        self.mass[start:stop] = mass
        touched = slice(start // self.block, (stop - 1) // self.block + 1)
        self.sums[touched] = self.blocks[touched].sum(1)

    def draw_by_priority(
        self, batch_size: int, gamma: float, beta: Tensor, reward: Callable[[Batch], Tensor] | None = None
    ) -> Batch:
        """Draw one batch of windows, fields (B, ...): one row from each of B equal parts of the whole mass.

        ``weight`` undoes the bias, ``(least mass of the batch / mass)^beta``, at most 1 and 0 on invalid rows; ``beta``
        is (). ``reward`` as in `draw`.
        """
        part = torch.arange(batch_size, device=self.device)
        share = (part + torch.rand(batch_size, device=self.device, dtype=torch.float64)) / batch_size
        place = self._find(share)
        mass = self.mass[place]
        batch = self._windows(*self._latest(place), self.n, gamma, reward)
        held = mass > 0
        least = torch.where(held, mass, LIMIT).amin()
        batch["weight"] = torch.where(held, (least / mass).pow(beta), 0.0)
        return batch

    def _find(self, share: Tensor) -> Tensor:
        """The places (B,) up to which shares (B,) of all the mass lie."""
        upto = self.sums.cumsum(0)
        # a share close to 1 may be rounded up to all the mass
        at = torch.minimum((share * upto[-1]).long(), upto[-1] - 1)
        block = torch.searchsorted(upto, at, right=True).clamp_max(len(upto) - 1)
        rest = at - (upto - self.sums)[block]
        inner = torch.searchsorted(self.blocks[block].cumsum(1), rest.unsqueeze(1), right=True).squeeze(1)
        # only where there is no mass at all a place may be beyond the last one
        return (block * self.block + inner).clamp_max(self.places - 1)

    def _latest(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """The newest rows (B,) that were written to places, and their columns."""
        slot, column = place // self.copies, place % self.copies
        newest: Tensor | int = self.written[0] - 1
        if len(self.groups) > 1:
            of_column = torch.empty(self.copies, dtype=torch.int64, device=self.device)
            for columns, written in zip(self.groups, self.written, strict=True):
                of_column[columns] = written - 1
            newest = of_column[column]
        return newest - (newest - slot) % self.capacity, column

    def reprioritise(self, index: Tensor, priority: Tensor) -> None:
        """Give the rows of a batch, by their ``index`` (B,), new priorities (B,)."""
        place = self._place(index // self.copies, index % self.copies)
        mass = ((priority + SMALLEST).pow(self.alpha) / UNIT).clamp(1, LIMIT).long()
        mass = torch.where(self.mass[place] > 0, mass, 0)
        self.most.copy_(torch.maximum(self.most, mass.amax()))
        # a row that was drawn twice has one error but for rounding
        self.mass.scatter_reduce_(0, place, mass, "amax", include_self=False)
        block = place // self.block
        self.sums[block] = self.blocks[block].sum(1)

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Set write heads and masses. ValueError: a row that cannot be drawn has one."""
        super().load_state_dict(tree)
        held = torch.zeros_like(self.mass, dtype=torch.bool)
        for columns, (low, span) in zip(self.groups, self._bounds(self.n), strict=True):
            slots = torch.arange(low, low + max(span, 0), device=self.device) % self.capacity
            held[: self.places].view(self.capacity, self.copies)[slots, columns] = True
        wrong = (self.mass < 0) | (self.mass > self.most.clamp_max(LIMIT)) | ((self.mass > 0) & ~held)
        if bool(wrong.any()):
            raise ValueError("its replay has priorities that no row of it can have")
        self.sums.copy_(self.blocks.sum(1))
