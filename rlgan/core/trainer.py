"""The loop that runs every learner.

Glossary. Step: one decision of the agent in one copy. Row: one line of one copy, a step or the invalid line after an
end; the host counts rows exactly, the device counts steps. Iteration: what a source collects between two bursts.
Boundary: the moment between iterations, the only one at which a run is recorded, evaluated or saved. Update: one
minibatch. Phase: a stretch of work that a learner declares.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlgan.core import replayed, seeding
from rlgan.core.capture import Captured, capture, uncompiled
from rlgan.core.protocols import Learner, Phase, RewardModel
from rlgan.core.reward import RewardStage
from rlgan.core.source import ReplaySource, make_source
from rlgan.core.stream import DataStream, Stream
from rlgan.errors import NonFiniteError, UsageError
from rlgan.report.record import LiveLine, Record, free
from rlgan.report.trackers import Trackers
from rlgan.store import checkpoint, tree
from rlgan.store.state import Saved, saved, whole

COUNTS = ("phase", "updates", "marks", "at", "began", "target", "best", "finished", "summed")
MEND = "Lower the learning rate or the gradient norm and start again"
RARE = 100
"""Delayed work with more updates between is not compiled: SeqGAN's rollouts, once in 4,680, took over 5 minutes."""


class Interrupted(Exception):
    """A signal ended the run at a boundary, after saving it."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(frozen=True)
class Intervals:
    """When things happen, in rows; and the length of the run in steps."""

    steps: int
    record: int
    evaluate: int
    checkpoint: int
    keep: int


@dataclass
class Output:
    """Where a run leaves its traces."""

    checkpoints: Path
    record: Record
    live: LiveLine
    trackers: Trackers

    def show(self, row: dict[str, Any]) -> None:
        """Hand a row of the record to all."""
        self.record.write(row)
        self.live.show(row)
        self.trackers.metrics(row)


class Trainer(Saved):
    """Runs a learner's phases on one stream, and saves everything that decides how the run goes on.

    ``evaluate`` gives a row for the record; the run's best checkpoint is the one with the highest ``rank(row)``.
    """

    kept = (*COUNTS, "sums", "learner", "reward", "stream", "source")

    def __init__(
        self,
        learner: Learner,
        stream: Stream | DataStream,
        reward: RewardModel | None,
        intervals: Intervals,
        mode: Captured,
        evaluate: Callable[[], dict[str, Any]],
        rank: Callable[[dict[str, Any]], float],
        info: dict[str, Any],
    ) -> None:
        self.learner, self.stream, self.intervals = learner, stream, intervals
        self.mode, self.evaluate, self.rank, self.info = mode, evaluate, rank, info
        self.device = stream.device
        self.reward = RewardStage(reward, learner, mode) if reward else None
        self.phases: list[Phase] = learner.phases()
        """None for what learns nothing: the run is an evaluation."""
        if (reward or stream.normaliser) and not self.phases:
            raise UsageError("an agent that learns nothing needs neither reward= nor normalise.*: leave them out")
        self.phase = 0
        self.source: Any = make_source(self.phases[0], stream, self.reward, mode) if self.phases else None
        self.updates = 0
        """Updates in this phase."""
        self.began = 0
        """Steps at which this phase began."""
        self.target = 0
        """Rows at which the true number of steps is read next."""
        self.marks = {"record": intervals.record, "evaluate": intervals.evaluate, "checkpoint": intervals.checkpoint}
        self.at = {"record": 0, "evaluate": 0}
        """Rows at the last record and the last evaluation."""
        self.best = -math.inf
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.segments: replayed.Segments = []
        self.improved = False
        self.finished = False
        self.clock = {"start": time.perf_counter(), "last": time.perf_counter(), "busy": 0.0}
        self.last = (0, 0)
        self.signal = 0

    def run(self, output: Output) -> None:
        """Train to the end of the last phase; at the end the run is recorded, evaluated and saved.

        Raises:
            Interrupted: a first SIGINT or SIGTERM, after saving. A second one ends the process at once.
            NonFiniteError: a metric or parameter is NaN or infinite; the last checkpoint is from before.
        """
        if self.finished:
            return
        self.output = output
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.stream.begin()
            if self.phases:
                self._run_phase(self.phases[self.phase])
            while self.phase + 1 < len(self.phases):
                self._run_phase(self._next_phase())
            # saved before the last evaluation, which may take long, and after it
            self._save()
            if self.at["record"] < self.stream.rows:
                self._record()
            if self.at["evaluate"] < self.stream.rows or self.best == -math.inf:
                self._evaluate()
            self.finished = True
            self._save()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _next_phase(self) -> Phase:
        self._record()
        self.phase += 1
        phase, self.began = self.phases[self.phase], int(self.stream.step)
        self.updates, self.last = 0, (self.began, 0)
        self.target = self.stream.rows
        self.source, self.segments = make_source(phase, self.stream, self.reward, self.mode), []
        return phase

    def _run_phase(self, phase: Phase) -> None:
        modes = (self.mode if every <= RARE else uncompiled(self.mode) for every, _ in phase.delayed)
        delayed = [(every, capture(call, mode)) for mode, (every, call) in zip(modes, phase.delayed, strict=True)]
        while not self._done(phase):
            began = time.perf_counter()
            metrics = self.source.learn()
            if metrics is not None:
                self._add({**metrics, **self.reward.metrics} if self.reward else metrics)
                self.updates += 1
                for every, learn in delayed:
                    if self.updates % every == 0:
                        learn(self.source.batch)
                for every, call in phase.periodic:
                    if self.updates % every == 0:
                        call()
            self.clock["busy"] += time.perf_counter() - began
            if self.source.boundary:
                self._boundary()

    def _done(self, phase: Phase) -> bool:
        if not self.source.boundary:
            return False
        if phase.done is not None and phase.done():
            return True
        steps, until = self.intervals.steps, phase.until
        if phase.unit == "updates":
            made = until is not None and self.updates >= until
            return made or (self.stream.rows >= steps and int(self.stream.step) >= steps)
        if self.stream.rows < self.target:
            return False
        missing = (steps if until is None else self.began + until) - int(self.stream.step)
        self.target = self.stream.rows + missing
        return missing <= 0

    def _boundary(self) -> None:
        if self._due("record", self.intervals.record):
            self._record()
        if self._due("evaluate", self.intervals.evaluate):
            self._evaluate()
        if self.signal:
            self._save()
            raise Interrupted(self.signal)
        if self._due("checkpoint", self.intervals.checkpoint) or self.improved:
            self._save()

    def _due(self, name: str, every: int) -> bool:
        if not every or self.stream.rows < self.marks[name]:
            return False
        self.marks[name] = (self.stream.rows // every + 1) * every
        return True

    def _add(self, metrics: dict[str, Tensor]) -> None:
        # a NaN anywhere stays in the sum, so that one read per record finds it
        for name, value in metrics.items():
            if name in self.sums:
                self.sums[name].add_(value)
            else:
                self.sums[free(name)] = value.detach().to(self.device, copy=True)
        self.summed += 1

    def _record(self) -> None:
        means = self._means()
        now, step = time.perf_counter(), int(self.stream.step)
        row: dict[str, Any] = {"kind": "train", "phase": self.phases[self.phase].name, "step": step}
        row |= {"rows": self.stream.rows, "updates": self.updates, **self.stream.take(), **means}
        passed = max(now - self.clock["last"], 1e-9)
        row["time"] = {
            "wall": now - self.clock["start"],
            "steps_per_s": (step - self.last[0]) / passed,
            "updates_per_s": (self.updates - self.last[1]) / passed,
            f"{self.stream.name}_share": self.stream.seconds / passed,
            "learner_share": (self.clock["busy"] - self.stream.seconds) / passed,
            "memory_mb": _memory_mb(self.device),
        }
        self.clock |= {"last": now, "busy": 0.0}
        self.stream.seconds = 0.0
        self.last, self.at["record"] = (step, self.updates), self.stream.rows
        self.sums, self.summed = {}, 0
        self.output.show(row)

    def _means(self) -> dict[str, float]:
        """Read the metrics since the last record as means. One copy to the host."""
        self.stream.check()
        names = list(self.sums)
        if not names:
            return {}
        values = torch.stack([self.sums[name].double() for name in names]).tolist()
        means = {name: value / self.summed for name, value in zip(names, values, strict=True)}
        if bad := [name for name, value in means.items() if not math.isfinite(value)]:
            broken = self._broken()
            where = f"the first bad tensor is {broken[0]}" if broken else "all tensors of the run are still finite"
            raise NonFiniteError(f"{bad[0]} is not finite at step {int(self.stream.step)}: {where}. {MEND}")
        return means

    def _broken(self) -> list[str]:
        """Name the tensors of learner and reward model that are not finite."""
        tensors: dict[str, Tensor] = {}
        tree.encode({"learner": saved(self.learner), "reward": saved(self.reward)}, tensors)
        return [name for name, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())]

    def _evaluate(self) -> None:
        began = time.perf_counter()
        row = {"kind": "eval", "step": int(self.stream.step), **self.evaluate()}
        now = time.perf_counter()
        row["time"] = {"wall": now - self.clock["start"], "seconds": now - began}
        self.clock["last"] += now - began
        if (rank := self.rank(row)) > self.best:
            self.best, self.improved = rank, True
        self.at["evaluate"] = self.stream.rows
        self.output.show(row)

    def _save(self) -> None:
        self._means()
        if broken := self._broken():
            raise NonFiniteError(f"the tensor {broken[0]} is not finite at step {int(self.stream.step)}. {MEND}")
        root = self.output.checkpoints
        if isinstance(self.source, ReplaySource):
            self.segments = replayed.write(root, self.source.ring, self.segments)
        step = int(self.stream.step)
        wall = time.perf_counter() - self.clock["start"]
        info = {**self.info, "record_length": self.output.record.length, "wall": wall}
        path = checkpoint.save(
            root, step, self.state_dict(), info, self.segments, self.intervals.keep, best=self.improved
        )
        self.improved = False
        self.output.trackers.checkpoint(path)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        # a signal may come in the middle of a print, so not through the stream that prints
        os.write(2, b"\nstopping after this iteration; once more to stop at once, unsaved\n")

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides how the run goes on, but the replay's rows, which lie in segments."""
        return {**super().state_dict(), "random": seeding.state_dict(self.device)}

    def load(self, saved: checkpoint.Checkpoint, root: Path) -> None:
        """Continue from a checkpoint under ``root``, bit for bit."""
        state = saved.tree
        self.phase = whole(state["phase"], "phase")
        if self.phase >= max(len(self.phases), 1):
            raise ValueError(f"it is in phase {self.phase} of {len(self.phases)}")
        for name, value in state["sums"].items():
            if not isinstance(value, Tensor) or value.dim() or not value.is_floating_point():
                raise ValueError(f"its sum of {name!r} is not a number")
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        if self.phases:
            self.source = make_source(self.phases[self.phase], self.stream, self.reward, self.mode)
        self.load_state_dict(state)
        if self.target > self.stream.rows + max([self.intervals.steps, *(phase.until or 0 for phase in self.phases)]):
            raise ValueError(f"it is to be read at row {self.target}, beyond the end of the run")
        self.segments = list(saved.segments)
        if isinstance(self.source, ReplaySource):
            replayed.read(root, self.source.ring, self.segments, self.source.stream)
        self.last = (int(self.stream.step), self.updates)
        self.clock["start"] -= saved.info["wall"]
        seeding.load_state_dict(state["random"], self.device)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
