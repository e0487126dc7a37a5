"""Where rows live. Shapes: C rows of the ring, N copies, B batch, K batches drawn at once, S stacked frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlgan.core.protocols import Batch, mapped
from rlgan.core.returns import n_step
from rlgan.core.rows import following
from rlgan.store.state import Saved

OF_ENV = {"obs", "final_obs", "first", "action", "reward", "terminated", "truncated", "valid"}
"""Fields of a row that are not extras of act."""


class Ring(Saved):
    """The last C rows of N copies, each group of copies with a write head of its own.

    Observations that stack S frames are kept as their newest frame alone and stacked again when drawn, never across the
    ``first`` row of an episode nor across the write head: 1M Atari rows take 7.06 GB instead of 28.2.
    """

    kept: ClassVar[tuple[str, ...]] = ("written",)  # the rows themselves go into segments

    def __init__(self, capacity: int, copies: int, groups: list[slice], stack: int, device: torch.device) -> None:
        self.capacity = -(-capacity // copies)
        self.copies, self.stack, self.device = copies, stack, device
        self.groups = groups
        self.written = [0] * len(groups)
        """Rows written so far by each group; row r lies in slot r % C."""
        self.fields: dict[str, Tensor] = {}
        """Every field as (C, N, ...)."""
        self.flat: dict[str, Tensor] = {}
        """The same memory as (C * N + 1, ...)."""

    def _allocate(self, shapes: dict[str, tuple[torch.Size, torch.dtype]]) -> None:
        for name, (shape, dtype) in shapes.items():
            # left untouched, so that memory grows as rows arrive; the place after the last row stays black and stands
            # in for the frames before an episode
            flat = torch.empty((self.capacity * self.copies + 1, *shape), dtype=dtype, device=self.device)
            flat[-1] = 0
            self.flat[name] = flat
            self.fields[name] = flat[:-1].view(self.capacity, self.copies, *shape)

    def write(self, group: int, row: Batch) -> None:
        """Append one row of a group; observations are stacked as the env gives them."""
        if self.stack > 1:
            row = {name: value[:, -1] if name in ("obs", "final_obs") else value for name, value in row.items()}
        if not self.fields:
            self._allocate({name: (value.shape[1:], value.dtype) for name, value in row.items()})
        slot, columns = self.written[group] % self.capacity, self.groups[group]
        for name, value in row.items():
            self.fields[name][slot, columns].copy_(value)
        self.written[group] += 1

    def _bounds(self, n: int) -> list[tuple[int, int]]:
        """For each group the oldest row that can start a window of n rows, and how many can."""
        bounds = []
        for written in self.written:
            # the frames below the oldest row are overwritten once the ring is full
            low = written - self.capacity + self.stack - 1 if written > self.capacity else 0
            bounds.append((low, written - n - low))
        return bounds

    def ready(self, n: int) -> bool:
        """Whether windows of n rows, and the row after them, can be drawn from every group."""
        return all(span > 0 for _, span in self._bounds(n))

    def draw(
        self, count: int, batch_size: int, n: int, gamma: float, reward: Callable[[Batch], Tensor] | None = None
    ) -> Batch:
        """Draw K batches of windows of n rows, uniformly over valid starts, with replacement; fields are (K, B, ...).

        Twice as many candidates are drawn and valid ones come first, so shapes are fixed; a batch that still holds
        invalid rows gives them ``weight`` 0. ``reward`` gives time-first rows another reward (n, K * B).
        """
        column = torch.randint(self.copies, (count, 2 * batch_size), device=self.device)
        row = self._rows(column, n)
        valid = self.flat["valid"][self._place(row, column)]
        order = (~valid).to(torch.uint8).argsort(dim=-1, stable=True)[:, :batch_size]
        row, column, valid = (x.gather(1, order) for x in (row, column, valid))
        batch = self._windows(row.view(-1), column.view(-1), n, gamma, reward)
        batch = {name: value.view(count, batch_size, *value.shape[1:]) for name, value in batch.items()}
        weight = valid.to(batch["reward"].dtype)
        batch["weight"] = weight / weight.mean(1, keepdim=True).clamp_min(1e-8)
        return batch

    def _rows(self, column: Tensor, n: int) -> Tensor:
        """Draw a starting row for each column, uniformly over those whose whole window and next row are held."""
        uniform = torch.rand(column.shape, device=self.device, dtype=torch.float64)
        bounds = self._bounds(n)
        if len(bounds) == 1:
            low, span = bounds[0]
            return low + (uniform * span).long()
        low_of, span_of = torch.empty((2, self.copies), dtype=torch.int64, device=self.device)
        for columns, (low, span) in zip(self.groups, bounds, strict=True):
            low_of[columns], span_of[columns] = low, span
        return low_of[column] + (uniform * span_of[column]).long()

    def _at(self, name: str, row: Tensor, column: Tensor) -> Tensor:
        return self.flat[name].index_select(0, self._place(row, column))

    def _place(self, row: Tensor, column: Tensor) -> Tensor:
        return row % self.capacity * self.copies + column

    def _windows(
        self, row: Tensor, column: Tensor, n: int, gamma: float, model: Callable[[Batch], Tensor] | None
    ) -> Batch:
        """Cut windows at their first end; ``next_obs`` is the true observation after the cut."""
        names = ("reward", "terminated", "truncated", *(("action", "valid") if model else ()))
        rows = {name: torch.stack([self._at(name, row + i, column) for i in range(n)]) for name in names}
        if model:
            rows["obs"] = torch.stack([self._observations(row + i, column) for i in range(n)])
            rows["next_obs"] = torch.stack([self._following(row + i, column) for i in range(n)])
            rows["reward"] = model(rows)
        reward, discount, length = n_step(rows["reward"], rows["terminated"], rows["truncated"], gamma)
        extras = sorted(self.fields.keys() - OF_ENV)
        batch = {name: self._at(name, row, column) for name in ("action", *extras)}
        batch |= {"reward": reward, "discount": discount}
        batch["obs"] = self._observations(row, column)
        batch["next_obs"] = self._following(row + length - 1, column)
        batch["index"] = row * self.copies + column
        return batch

    def _observations(self, row: Tensor, column: Tensor) -> Tensor:
        if self.stack == 1:
            return self._at("obs", row, column)
        back = torch.arange(self.stack - 1, -1, -1, device=self.device)
        rows = (row[:, None] - back).clamp_min(0)  # (B, S), oldest first
        place = self._place(rows, column[:, None])
        # an older frame belongs to the episode unless one begins after it, up to the newest
        begins = self.flat["first"][place[:, 1:]].flip(1).cumsum(1).flip(1) > 0
        place[:, :-1].masked_fill_(begins, self.capacity * self.copies)
        return self.flat["obs"].index_select(0, place.view(-1)).view(*place.shape, *self.flat["obs"].shape[1:])

    def _following(self, row: Tensor, column: Tensor) -> Tensor:
        """The true observation after each row: the final one where a simulator resets in the same step."""
        shown = self._observations(row + 1, column)
        if "final_obs" not in self.fields:
            return shown
        rows = {name: self._at(name, row, column) for name in ("terminated", "truncated", "final_obs")}
        if self.stack > 1:
            rows["final_obs"] = torch.cat([self._observations(row, column)[:, 1:], rows["final_obs"][:, None]], 1)
        return following(rows, shown)

    def pieces(self, start: int, size: int) -> Iterator[tuple[int, Batch]]:
        """Give the rows from ``start`` on that are still held as views (rows, N, ...) of at most ``size`` bytes.

        Taken between iterations, when all groups have written equally many rows.
        """
        stop = self.written[0]
        row = max(start, stop - self.capacity)
        step = max(1, size // max(sum(f[0].nbytes for f in self.fields.values()), 1))
        while row < stop:
            slot = row % self.capacity
            count = min(step, stop - row, self.capacity - slot)
            yield row, {name: field[slot : slot + count] for name, field in self.fields.items()}
            row += count

    def restore(self, start: int, rows: Batch) -> None:
        """Put back a piece; its shapes decide the allocation."""
        if not self.fields:
            self._allocate({name: (value.shape[2:], value.dtype) for name, value in rows.items()})
        slot = start % self.capacity
        for name, value in rows.items():
            self.fields[name][slot : slot + len(value)].copy_(value)


def stacked(rows: list[list[Batch]], last: list[Any]) -> Batch:
    """Time-first fields (T, N, ...) from the rows of each group of copies; ``last`` ends ``obs`` as row T."""
    fields = {}
    for name in rows[0][0]:
        groups = [[row[name] for row in group] for group in rows]
        if name == "obs":
            groups = [[*group, end] for group, end in zip(groups, last, strict=True)]
        columns = [mapped(lambda *column: torch.stack(column), *group) for group in groups]
        fields[name] = columns[0] if len(columns) == 1 else mapped(lambda *parts: torch.cat(parts, 1), *columns)
    return fields


def minibatches(fields: Batch, size: int | None, epochs: int, sequence: int = 0) -> Iterator[Batch]:
    """Yield the minibatches of a prepared rollout, (T, N, ...), for each epoch: `whole`, `shuffled` or `sequences`."""
    if sequence:
        yield from sequences(fields, sequence, size or fields["valid"].numel(), epochs)
        return
    if size is None:
        for _ in range(epochs):
            yield whole(fields)
        return
    flat = mapped(lambda x: x.flatten(0, 1), fields)
    for index in shuffled(flat["valid"], size, epochs):
        yield gathered(flat, index)


def whole(fields: Batch) -> Batch:
    """All rows of a rollout (T, N, ...) in order, with a ``weight`` of mean 1, 0 on invalid rows."""
    flat = mapped(lambda x: x.flatten(0, 1), fields)
    weight = flat["valid"].float()
    return {**flat, "weight": weight / weight.mean().clamp_min(1e-8)}


def shuffled(valid: Tensor, size: int, epochs: int) -> Iterator[Tensor]:
    """Yield the rows (size,) of each minibatch, where ``valid`` (rows,) tells which count.

    Valid rows come first in each epoch's order and wrap around, so every minibatch has ``size`` rows and every valid
    row is seen.
    """
    count = len(valid)
    if count % size:
        raise ValueError(f"a rollout of {count} rows cannot be cut into minibatches of {size}")
    order = (torch.rand(epochs, count, device=valid.device) + 2 * (~valid)).argsort(-1)
    place = torch.arange(count, device=valid.device) % valid.sum().clamp_min(1)
    yield from order.index_select(1, place).view(-1, size)


def sequences(fields: Batch, length: int, size: int, epochs: int) -> Iterator[Batch]:
    """Yield minibatches of ``size`` rows in whole sequences, (length, B, ...), shuffled anew for each epoch.

    ``fields`` are (T, N, ...), but ``carry`` is (T / length, N, ...): what was remembered before each sequence. Invalid
    rows stay where they are, with ``weight`` 0; its mean is 1.
    """
    rows = {name: value for name, value in fields.items() if name != "carry"}
    lined = mapped(lambda x: x.unflatten(0, (-1, length)).transpose(0, 1).flatten(1, 2), rows)  # (length, S N, ...)
    carry = mapped(lambda x: x.flatten(0, 1), fields["carry"])  # (S N, ...)
    valid = lined["valid"]
    order = torch.rand(epochs, valid.shape[1], device=valid.device).argsort(-1)
    for index in order.view(-1, size // length):
        batch = mapped(lambda x, index=index: x.index_select(1, index), lined)
        weight = batch["valid"].float()
        batch["carry"] = mapped(lambda x, index=index: x.index_select(0, index), carry)
        yield {**batch, "weight": weight / weight.mean().clamp_min(1e-8)}


def gathered(flat: Batch, index: Tensor) -> Batch:
    """The rows at ``index`` (B,) of flat fields, with a ``weight`` of 1, 0 on invalid ones."""
    batch = mapped(lambda x: x.index_select(0, index), flat)
    return {**batch, "weight": batch["valid"].float()}
