"""The loop that runs every learner.

Glossary. Step: one decision of the agent in one copy. Row: one line of one copy, a step or the invalid line after an
end; the host counts rows exactly, the device counts steps. Iteration: what a source collects between two bursts.
Boundary: the moment between iterations, the only one at which a run is recorded, evaluated or saved. Update: one
minibatch. Phase: a stretch of work that a learner declares.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlgan.core import seeding
from rlgan.core.capture import Captured, capture
from rlgan.core.protocols import Learner, Phase, RewardModel
from rlgan.core.reward import RewardStage
from rlgan.core.saved import check_heads, check_progress, check_rows
from rlgan.core.source import ReplaySource, make_source
from rlgan.core.stream import DataStream, Stream
from rlgan.errors import NonFiniteError
from rlgan.report.record import LiveLine, Record
from rlgan.report.trackers import Trackers
from rlgan.store import checkpoint, tree
from rlgan.store.segments import read_segment, write_segment

PIECE_BYTES = 8 << 20
"""Size before compression of one segment of replay rows."""
MEND = "Lower the learning rate or the gradient norm and start again"


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


class Trainer:
    """Runs a learner's phases on one stream, and saves everything that decides how the run goes on.

    ``evaluate`` gives a row for the record; the run's best checkpoint is the one with the highest ``row[best_by]``.
    """

    def __init__(
        self,
        learner: Learner,
        stream: Stream | DataStream,
        reward: RewardModel | None,
        intervals: Intervals,
        output: Output,
        mode: Captured,
        evaluate: Callable[[], dict[str, Any]],
        best_by: str,
        info: dict[str, Any],
    ) -> None:
        self.learner, self.stream, self.intervals, self.output = learner, stream, intervals, output
        self.mode, self.evaluate, self.best_by, self.info = mode, evaluate, best_by, info
        self.device = stream.device
        self.reward = RewardStage(reward, learner, mode) if reward else None
        self.phases: list[Phase] = learner.phases()
        self.phase = 0
        self.source = make_source(self.phases[0], stream, self.reward)
        self.updates = 0
        """Updates in this phase."""
        self.began = 0
        """Steps at which this phase began."""
        self.target = self.phases[0].until or intervals.steps
        """Rows at which the true number of steps is read next."""
        self.marks = {"record": intervals.record, "evaluate": intervals.evaluate, "checkpoint": intervals.checkpoint}
        self.at = {"record": -1, "evaluate": -1}
        """Rows at the last record and the last evaluation."""
        self.best: float | None = None
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.segments: list[dict[str, Any]] = []
        self.saved_rows = 0
        self.improved = False
        self.finished = False
        self.clock = {"start": time.perf_counter(), "last": time.perf_counter(), "busy": 0.0}
        self.last = (0, 0)
        self.signal = 0

    def run(self) -> None:
        """Train to the end of the last phase; at the end the run is recorded, evaluated and saved.

        Raises:
            Interrupted: a first SIGINT or SIGTERM, after saving. A second one ends the process at once.
            NonFiniteError: a metric or parameter is NaN or infinite; the last checkpoint is from before.
        """
        if self.finished:
            return
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.stream.begin()
            self._run_phase(self.phases[self.phase])
            while self.phase + 1 < len(self.phases):
                self._next_phase()
                self._run_phase(self.phases[self.phase])
            # saved before the last evaluation, which may take long, and after it
            self._save()
            if self.at["record"] < self.stream.rows:
                self._record()
            if self.at["evaluate"] < self.stream.rows:
                self._evaluate()
            self.finished = True
            self._save()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _next_phase(self) -> None:
        self._record()
        self.phase += 1
        phase, self.began = self.phases[self.phase], int(self.stream.step)
        self.updates, self.last = 0, (self.began, 0)
        self.target = self.stream.rows + (phase.until or self.intervals.steps - self.began)
        self.source, self.segments, self.saved_rows = make_source(phase, self.stream, self.reward), [], 0

    def _run_phase(self, phase: Phase) -> None:
        update = capture(phase.update, self.mode)
        while not self._done(phase):
            began = time.perf_counter()
            batch = self.source.next()
            if batch is not None:
                metrics = update(batch)
                self._add({**metrics, **self.reward.metrics} if self.reward else metrics)
                self.updates += 1
                for every, call in phase.periodic:
                    if self.updates % every == 0:
                        call()
            self.clock["busy"] += time.perf_counter() - began
            if self.source.boundary:
                self._boundary()

    def _done(self, phase: Phase) -> bool:
        if not self.source.boundary:
            return False
        if phase.unit == "updates":
            return self.updates >= (phase.until or 0)
        budget = self.began + phase.until if phase.until else self.intervals.steps
        if self.stream.rows < self.target:
            return False
        missing = budget - int(self.stream.step)
        if missing <= 0:
            return True
        self.target = self.stream.rows + missing
        return False

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
                self.sums[name] = value.detach().clone()
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
        self.output.record.write(row)
        self.output.live.show(row)
        self.output.trackers.metrics(row)

    def _means(self) -> dict[str, float]:
        """Read the metrics since the last record as means. One copy to the host."""
        names = list(self.sums)
        if not names:
            return {}
        values = torch.stack([self.sums[name].double() for name in names]).tolist()
        means = {name: value / self.summed for name, value in zip(names, values, strict=True)}
        bad = [name for name, value in means.items() if value != value or abs(value) == float("inf")]
        if bad:
            raise NonFiniteError(self._diagnosis(bad[0]))
        return means

    def _diagnosis(self, metric: str) -> str:
        broken = self._broken()
        where = f"the first bad tensor is {broken[0]}" if broken else "all tensors of the run are still finite"
        return f"{metric} is not finite at step {int(self.stream.step)}: {where}. {MEND}"

    def _broken(self) -> list[str]:
        """Name the tensors of learner and reward model that are not finite."""
        tensors: dict[str, Tensor] = {}
        tree.encode(self._learned(), tensors)
        return [name for name, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())]

    def _learned(self) -> dict[str, Any]:
        state = {"learner": self.learner.state_dict()}
        return {**state, "reward": self.reward.state_dict()} if self.reward else state

    def _evaluate(self) -> None:
        row: dict[str, Any] = {"kind": "eval", "step": int(self.stream.step)}
        began = time.perf_counter()
        row |= self.evaluate()
        now = time.perf_counter()
        row["time"] = {"wall": now - self.clock["start"], "seconds": now - began}
        self.clock["last"] += now - began
        if self.best is None or row[self.best_by] > self.best:
            self.best, self.improved = row[self.best_by], True
        self.at["evaluate"] = self.stream.rows
        self.output.record.write(row)
        self.output.live.show(row)
        self.output.trackers.metrics(row)

    def _save(self) -> None:
        self._means()
        if broken := self._broken():
            raise NonFiniteError(f"the tensor {broken[0]} is not finite at step {int(self.stream.step)}. {MEND}")
        root = self.output.checkpoints
        if isinstance(self.source, ReplaySource):
            ring = self.source.ring
            oldest = ring.written[0] - ring.capacity
            self.segments = [s for s in self.segments if s["first"] + s["rows"] > oldest]
            for first, rows in ring.pieces(self.saved_rows, PIECE_BYTES):
                self.segments.append(write_segment(root, first, rows))
            self.saved_rows = ring.written[0]
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
        return {
            **self._learned(),
            "stream": self.stream.state_dict(),
            "source": self.source.state_dict(),
            "random": seeding.state_dict(self.device),
            "phase": self.phase,
            "updates": self.updates,
            "marks": self.marks,
            "at": self.at,
            "began": self.began,
            "target": self.target,
            "best": self.best,
            "finished": self.finished,
            "sums": self.sums,
            "summed": self.summed,
        }

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Continue from a checkpoint, bit for bit."""
        state = saved.tree
        check_progress(state, self.phases, self.intervals.steps)
        self.phase, self.updates = state["phase"], state["updates"]
        self.source = make_source(self.phases[self.phase], self.stream, self.reward)
        self.learner.load_state_dict(state["learner"])
        if self.reward:
            self.reward.load_state_dict(state["reward"])
        self.stream.load_state_dict(state["stream"])
        self.source.load_state_dict(state["source"])
        self.segments = list(saved.segments)
        if isinstance(self.source, ReplaySource):
            check_heads(self.source.ring, self.segments, self.source.stream)
            for ref in self.segments:
                self.source.ring.restore(ref["first"], read_segment(self.output.checkpoints, ref))
            check_rows(self.source.ring, self.source.stream)
            self.saved_rows = self.source.ring.written[0]
        self.marks = {name: state["marks"][name] for name in self.marks}
        self.at = {name: state["at"][name] for name in self.at}
        self.began, self.target = state["began"], state["target"]
        self.best, self.finished = state["best"], state["finished"]
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self.summed = state["summed"]
        self.last = (int(self.stream.step), self.updates)
        self.clock["start"] -= saved.info["wall"]
        seeding.load_state_dict(state["random"], self.device)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
