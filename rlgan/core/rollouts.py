"""The source of on-policy batches: collect a horizon, prepare it once, pass over it in minibatches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rlgan.core.buffers import gathered, minibatches, shuffled, stacked, whole
from rlgan.core.capture import Captured, capture
from rlgan.core.protocols import Batch, Phase, Rollouts, mapped
from rlgan.core.reward import RewardStage
from rlgan.core.rows import following
from rlgan.core.stream import Stream
from rlgan.errors import UsageError, divisor_near
from rlgan.store.state import Saved

PIECE = 8
"""Most rows that are collected in one compiled piece: longer ones take minutes to compile and gain little."""
UNROLLED = 64
"""Longest rollout that is prepared in one compiled piece."""


class RolloutSource(Saved):
    """Collect a horizon, prepare it once, then pass over it in minibatches.

    With ``capture=compile`` and an env on the device nothing runs outside of compiled code but the shuffling: a rollout
    is collected in pieces of a few rows, prepared as one, and each update gathers its own minibatch. A short rollout
    that is learned from once is one piece with its update.
    """

    def __init__(
        self, spec: Rollouts, stream: Stream, phase: Phase, reward: RewardStage | None = None, mode: Captured = "eager"
    ) -> None:
        self.rows = spec.horizon * stream.env.num_envs
        size = spec.minibatch or self.rows
        if self.rows % size:
            raise UsageError(
                f"minibatch {size} does not divide the {self.rows} rows of a rollout, {spec.horizon} (horizon) x "
                f"{stream.env.num_envs} (copies): write agent.minibatch={divisor_near(self.rows, size)} or change these"
            )
        if spec.sequence and (spec.horizon % spec.sequence or size % spec.sequence):
            proposed = divisor_near(math.gcd(spec.horizon, size), spec.sequence)
            raise UsageError(
                f"sequences of {spec.sequence} rows do not divide both horizon {spec.horizon} and minibatch {size}: "
                f"write agent.sequence={proposed}, or change these"
            )
        self.spec, self.stream, self.phase, self.reward = spec, stream, phase, reward
        self.count = spec.epochs * self.rows // size
        """Minibatches of one rollout."""
        self.remaining = 0
        self.batches: Iterator[Batch] = iter(())
        self.boundary = True
        self.update = capture(phase.update, mode)
        self.batch: Batch | None = None
        """The last one, where updates are made one by one."""
        self.captured = mode == "compile" and not stream.env.flies and not (reward or spec.sequence or phase.delayed)
        self.piece = max(n for n in range(1, PIECE + 1) if spec.horizon % n == 0)
        """Rows of each copy that are collected in one piece."""
        self.indices: Iterator[Tensor | None] = iter(())
        self.flat: Batch = {}
        if self.captured:
            self.collect = capture(stream.collect, mode)
            self.prepared = capture(self._prepared, mode if spec.horizon <= UNROLLED else "eager")
            self.gather = capture(self._gather, mode)
            self.iteration = capture(self._iteration, mode)

    def next(self) -> Batch:
        """Collect a rollout when the last one is used up, and hand out its minibatches."""
        if self.boundary:
            spec = self.spec
            self.batches = minibatches(self._collect(), spec.minibatch, spec.epochs, spec.sequence)
            self.remaining = self.count
        batch = next(self.batches)
        batch["step"] = self.stream.step
        self.remaining -= 1
        self.boundary = self.remaining == 0
        return batch

    def learn(self) -> dict[str, Tensor]:
        """Collect a rollout when the last one is used up, and make one update."""
        if not self.captured:
            self.batch = self.next()
            return self.update(self.batch)
        spec, stream = self.spec, self.stream
        if self.boundary:
            stream.fix()
            stream.rows += self.rows
            if self.piece == spec.horizon and self.count == 1 and spec.minibatch is None:
                return self.iteration()
            self.flat = self.prepared([self.collect(self.piece) for _ in range(spec.horizon // self.piece)])
            size, valid = spec.minibatch, self.flat["valid"]
            self.indices = iter([None] * spec.epochs) if size is None else shuffled(valid, size, spec.epochs)
            self.remaining = self.count
        self.remaining -= 1
        self.boundary = self.remaining == 0
        return self.gather(self.flat, next(self.indices))

    def _collect(self) -> Batch:
        spec, stream = self.spec, self.stream
        groups = range(len(stream.columns))
        rows: list[list[Batch]] = [[] for _ in groups]
        carries: list[list[Any]] = [[stream.carries[g]] for g in groups]
        for t in range(1, spec.horizon + 1):
            for g in groups:
                rows[g].append(stream.receive(g))
                if spec.sequence and t % spec.sequence == 0:
                    carries[g].append(stream.carries[g])
                if t < spec.horizon and stream.env.flies:
                    stream.launch(g)
        rollout = stacked(rows, stream.obs)
        if spec.sequence:
            if "final_obs" in rollout:
                raise UsageError(
                    "a recurrent agent cannot learn where a step also resets: use an env in AutoresetMode.NEXT_STEP"
                )
            heads = [[{"carry": _named(carry)} for carry in group] for group in carries]
            rollout |= stacked(heads, [])
        with torch.no_grad():
            return self._prepare(rollout)

    def _prepare(self, rollout: Batch) -> Batch:
        """Complete a rollout, whose ``obs`` has one row more than the rest, and leave what batches are made of."""
        rollout["next_obs"] = following(rollout, mapped(lambda x: x[1:], rollout["obs"]))
        if self.spec.clip_reward:
            rollout["reward"] = rollout["reward"].sign()
        if self.reward:
            rows = {name: value for name, value in rollout.items() if name != "carry"}
            raw = rows | {"obs": mapped(lambda x: x[:-1], rollout["obs"])}
            rollout["reward"] = self.reward(raw)
            with torch.enable_grad():
                self.reward.learn(self.rows, lambda count: _rows_of(raw, count))
        if self.stream.normaliser is not None:
            rollout = self.stream.normaliser.rollout(rollout)
        if self.phase.prepare is not None:
            rollout = self.phase.prepare(rollout)
        for name in {"obs", "carry"} & rollout.keys():
            rollout[name] = mapped(lambda x: x[:-1], rollout[name])
        return {name: value for name, value in rollout.items() if name not in ("next_obs", "final_obs")}

    def _prepared(self, pieces: list[Batch]) -> Batch:
        """One prepared rollout from its pieces, flat: (rows, ...)."""
        rollout = {
            name: mapped(lambda *parts: torch.cat(parts), *(piece[name] for piece in pieces))
            for name in pieces[0]
            if name != "obs"
        }
        seen = [mapped(lambda x: x[:-1], piece["obs"]) for piece in pieces[:-1]]
        rollout["obs"] = mapped(lambda *parts: torch.cat(parts), *seen, pieces[-1]["obs"])
        with torch.no_grad():
            return whole(self._prepare(rollout))

    def _gather(self, flat: Batch, index: Tensor | None) -> dict[str, Tensor]:
        batch = flat if index is None else gathered(flat, index)
        return self.phase.update({**batch, "step": self.stream.step})

    def _iteration(self) -> dict[str, Tensor]:
        return self._gather(self._prepared([self.stream.collect(self.spec.horizon)]), None)


def _named(carry: Any) -> dict[str, Tensor]:
    """A carry as part of a batch."""
    return {str(i): part for i, part in enumerate(carry)}


def _rows_of(rollout: Batch, count: int) -> Batch:
    """Draw rows of a rollout (T, N, ...) with replacement, as (1, count, ...)."""
    index = torch.randint(rollout["reward"].numel(), (count,), device=rollout["reward"].device)
    rows = mapped(lambda x: x.flatten(0, 1).index_select(0, index)[None], rollout)
    return rows | {"weight": rows["valid"].to(rows["reward"].dtype)}
