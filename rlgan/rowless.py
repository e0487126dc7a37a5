"""Sources that collect no rows: samples for generators, sweeps for planners, a loop of the learner's own."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from rlgan.core.capture import Captured, capture
from rlgan.core.protocols import Batch, Phase, Samples
from rlgan.core.reward import RewardStage
from rlgan.core.rows import where
from rlgan.core.stream import DataStream, Stream
from rlgan.errors import UsageError
from rlgan.store.state import Saved


class SampleSource(Saved):
    """Minibatches of samples; what is left of a pass below one batch is skipped."""

    kept = ("order", "place", "made", "passes")
    boundary = True

    def __init__(self, spec: Samples, stream: DataStream, phase: Phase, mode: Captured = "eager") -> None:
        count = len(stream.real)
        if spec.batch_size > count:
            smaller = f"write generator.batch_size={count} or less, or " if count > 1 else ""
            raise UsageError(
                f"a batch of {spec.batch_size} is more than the {count} sample{'s' * (count > 1)} of the data set: "
                f"{smaller}add samples"
            )
        self.spec, self.size, self.stream = spec, spec.batch_size, stream
        self.made = torch.zeros_like(stream.real if spec.against else stream.real[:0])
        """The learner's own samples."""
        self.passes = 0
        """Passes over these that are still to be made."""
        count += len(self.made)
        self.update = capture(phase.update, mode)
        self.batch: Batch | None = None
        """The last one."""
        self.order = torch.arange(count, device=stream.device)
        self.place = count
        """Where in the order the next batch begins."""

    def next(self) -> Batch:
        """Give the next batch, as ``real`` (B, ...), or as ``mixed`` with ``is_real``."""
        stream, began = self.stream, time.perf_counter()
        if self.place + self.size > len(self.order):
            self._renew()
        index = self.order[self.place : self.place + self.size]
        self.place += self.size
        count = len(stream.real)
        batch = {"real": stream.real.index_select(0, index % count), "step": stream.step}
        if self.spec.against:
            batch["is_real"] = index < count
            batch["mixed"] = where(batch["is_real"], batch.pop("real"), self.made.index_select(0, index % count))
        stream.step.add_(1)
        stream.rows += 1
        stream.seconds += time.perf_counter() - began
        return batch

    def _renew(self) -> None:
        """Begin another pass."""
        spec = self.spec
        if self.passes == 0:
            if spec.against:
                self.made.copy_(spec.against(len(self.made)))
            rank = torch.rand(len(self.order), device=self.stream.device)
            # unshuffled, what was left for no whole batch comes first, or it would be left out of every pass
            self.order = rank.argsort() if spec.shuffle else self.order.roll(-self.place)
            self.passes = spec.passes
        self.place = 0
        self.passes -= 1

    def learn(self) -> dict[str, Tensor]:
        """Make one update."""
        self.batch = self.next()
        return self.update(self.batch)


class SweepSource(Saved):
    """A clock for dynamic programming: each batch is one more step."""

    boundary = True

    def __init__(self, stream: Stream, phase: Phase, mode: Captured = "eager") -> None:
        self.stream = stream
        self.update = capture(phase.update, mode)
        self.batch: Batch | None = None
        """The last one."""

    def next(self) -> Batch:
        """Give the number of this sweep."""
        self.stream.step.add_(1)
        self.stream.rows += 1
        return {"step": self.stream.step}

    def learn(self) -> dict[str, Tensor]:
        """Make one update."""
        self.batch = self.next()
        return self.update(self.batch)


class OwnSource(Saved):
    """Rounds of a learner's own loop, whose steps and games are counted."""

    boundary = True

    def __init__(self, stream: Stream, phase: Phase, reward: RewardStage | None) -> None:
        if reward or stream.normaliser:
            raise UsageError("an agent with a loop of its own sees the env as it is: leave reward= and normalise.* out")
        self.stream, self.update = stream, phase.update
        self.batch: Batch | None = None
        """None: it hands nothing out."""

    def next(self) -> Batch:
        """What a round is told: the number of steps so far."""
        return {"step": self.stream.step}

    def learn(self) -> dict[str, Tensor] | None:
        """Make one round."""
        out: dict[str, Any] = self.update(self.next())
        steps = out.pop("steps")
        self.stream.step.add_(steps)
        self.stream.rows += steps
        self.stream.env.statistics.add(out.pop("games"))
        return out or None
