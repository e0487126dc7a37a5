"""Sources turn a phase's description into batches: collect rows, draw or cut minibatches, count what is owed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from rlgan.core.buffers import Ring, RolloutBuffer, minibatches
from rlgan.core.protocols import Batch, Phase, Replay, Rollouts
from rlgan.core.stream import Stream, whole
from rlgan.errors import UsageError

CHUNK_BYTES = 32 << 20
"""Batches drawn in one go are limited to about this size."""


class Source(Protocol):
    """What the trainer asks of every source."""

    boundary: bool
    """Whether the last batch closed an iteration: the only moments at which a run is recorded or saved."""

    def next(self) -> Batch | None:
        """Return the next minibatch, collecting rows as needed; None when this iteration owes no update."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what decides the next batches; taken at a boundary."""
        ...

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in."""
        ...


class ReplaySource:
    """Rows go into a ring; ``updates`` batches are drawn for every ``every`` rows collected."""

    def __init__(self, spec: Replay, stream: Stream) -> None:
        env = stream.env
        self.spec, self.stream = spec, stream
        self.ring = Ring(spec.capacity, env.num_envs, stream.columns, env.stack, env.device)
        if self.ring.capacity <= (needed := spec.n_step + env.stack):
            raise UsageError(
                f"a replay of {spec.capacity} rows leaves {self.ring.capacity} to each of {env.num_envs} copies, and "
                f"windows need {needed + 1}: raise agent.capacity above {needed * env.num_envs} or lower copies"
            )
        self.iterations = -(-spec.every // env.num_envs)
        """Vector steps between bursts of updates."""
        self.credit = 0
        """Rows x updates not yet paid back by batches, in units of 1 / every."""
        self.pending: list[Batch] = []
        self.boundary = True

    def next(self) -> Batch | None:
        """Collect until updates are owed, then hand out their batches one by one."""
        spec = self.spec
        if not self.pending:
            if self.boundary:
                self._collect()
            owed = self.credit // spec.every
            if owed == 0:
                self.boundary = True
                return None
            self._draw(owed)
        batch = self.pending.pop(0)
        batch["step"] = self.stream.step
        self.boundary = not self.pending and self.credit < spec.every
        return batch

    def _collect(self) -> None:
        stream = self.stream
        for _ in range(self.iterations):
            for g in range(len(stream.columns)):
                row = stream.receive(g)
                if self.spec.clip_reward:
                    row["reward"] = row["reward"].sign()
                self.ring.write(g, row)
                if stream.env.flies:
                    stream.launch(g)
        learning = stream.rows >= self.spec.start and self.ring.ready(self.spec.n_step)
        if learning:
            self.credit += self.iterations * stream.env.num_envs * self.spec.updates

    def _draw(self, owed: int) -> None:
        spec = self.spec
        size = sum(f[0, 0].nbytes for f in self.ring.fields.values()) * (self.ring.stack + 1) * 2 * spec.batch_size
        count = max(1, min(owed, CHUNK_BYTES // size))
        chunk = self.ring.draw(count, spec.batch_size, spec.n_step, spec.gamma)
        self.pending = [dict(zip(chunk, row, strict=True)) for row in zip(*chunk.values(), strict=True)]
        self.credit -= count * spec.every

    def state_dict(self) -> dict[str, Any]:
        """Return counters; taken at a boundary, so nothing is pending. The rows themselves go into segments."""
        return {"credit": self.credit, "ring": self.ring.state_dict()}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Set the counters."""
        self.credit = whole(tree["credit"], "credit")
        if self.credit >= self.spec.every:
            raise ValueError(f"it owes {self.credit} updates at a boundary, where fewer than {self.spec.every} can be")
        self.ring.load_state_dict(tree["ring"])


class RolloutSource:
    """Collect a horizon, prepare it once, then pass over it in shuffled minibatches."""

    def __init__(self, spec: Rollouts, stream: Stream, phase: Phase) -> None:
        count = spec.horizon * stream.env.num_envs
        if count % spec.minibatch:
            raise UsageError(f"minibatch {spec.minibatch} does not divide {count} rows (horizon x copies)")
        self.spec, self.stream, self.prepare = spec, stream, phase.prepare
        self.buffer = RolloutBuffer(spec.horizon, stream.env.num_envs)
        self.remaining = 0
        self.batches: Iterator[Batch] = iter(())
        self.boundary = True

    def next(self) -> Batch | None:
        """Collect a rollout when the last one is used up, and hand out its minibatches."""
        if self.boundary:
            self._collect()
        batch = next(self.batches)
        batch["step"] = self.stream.step
        self.remaining -= 1
        self.boundary = self.remaining == 0
        return batch

    def _collect(self) -> None:
        spec, stream = self.spec, self.stream
        last = spec.horizon - 1
        for t in range(spec.horizon):
            for g, columns in enumerate(stream.columns):
                self.buffer.write(t, columns, stream.receive(g))
                if t < last and stream.env.flies:
                    stream.launch(g)
        fields = self.buffer.fields
        for g, columns in enumerate(stream.columns):
            fields["obs"][spec.horizon, columns].copy_(stream.obs[g])
        rollout = dict(fields)
        following = rollout["obs"][1:]
        if (final := rollout.pop("final_obs", None)) is not None:
            ended = rollout["terminated"] | rollout["truncated"]
            following = torch.where(ended.view(*ended.shape, *[1] * (final.dim() - 2)), final, following)
        rollout["next_obs"] = following
        if self.prepare is not None:
            with torch.no_grad():
                rollout = self.prepare(rollout)
        rollout["obs"] = rollout["obs"][: spec.horizon]
        del rollout["next_obs"]
        self.batches = minibatches(rollout, spec.minibatch, spec.epochs)
        self.remaining = spec.epochs * spec.horizon * stream.env.num_envs // spec.minibatch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: at a boundary a rollout is used up."""
        return {}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Nothing to set."""


def make_source(phase: Phase, stream: Stream) -> ReplaySource | RolloutSource:
    """Build the source that a phase describes."""
    if isinstance(phase.source, Replay):
        return ReplaySource(phase.source, stream)
    return RolloutSource(phase.source, stream, phase)
