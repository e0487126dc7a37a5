"""Sources turn a phase's description into batches: collect rows, draw or cut minibatches, count what is owed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlgan.core.buffers import Ring
from rlgan.core.capture import Captured, capture
from rlgan.core.protocols import Batch, Own, Phase, Replay, Samples, Sweeps
from rlgan.core.reward import RewardStage
from rlgan.core.rollouts import RolloutSource
from rlgan.core.rows import following
from rlgan.core.stream import DataStream, Stream
from rlgan.errors import PluginError, UsageError
from rlgan.nn.schedule import linear
from rlgan.priorities import PrioritisedRing
from rlgan.rowless import OwnSource, SampleSource, SweepSource
from rlgan.store.state import Saved

CHUNK_BYTES = 32 << 20
"""Batches drawn in one go are limited to about this size."""


class ReplaySource(Saved):
    """Rows go into a ring; ``updates`` batches are drawn for every ``every`` rows collected."""

    kept = ("credit", "ring")  # at a boundary nothing is pending

    def __init__(
        self, spec: Replay, stream: Stream, phase: Phase, reward: RewardStage | None = None, mode: Captured = "eager"
    ) -> None:
        env = stream.env
        if stream.fresh(1) is not None and not spec.acting_carry:
            raise UsageError(
                "a replay keeps no recurrent state: an agent with a carry learns from Rollouts(sequence=...), or says "
                "Replay(acting_carry=True) where its updates do not need it"
            )
        if reward and reward.model.when == "sample" and stream.normaliser and stream.normaliser.gamma is not None:
            raise UsageError(
                "this reward= judges rows when they are drawn, so there are no returns to scale by: leave "
                "normalise.reward out"
            )
        self.spec, self.stream, self.reward = spec, stream, reward
        self.update = capture(phase.update, mode)
        self.batch: Batch | None = None
        """The last one."""
        shape = (spec.capacity, env.num_envs, stream.columns, env.stack, env.device)
        by = spec.priorities
        self.ring = PrioritisedRing(*shape, spec.n_step, by.alpha) if by else Ring(*shape)
        if self.ring.capacity <= (needed := spec.n_step + env.stack):
            raise UsageError(
                f"a replay of {spec.capacity} rows leaves {self.ring.capacity} to each of {env.num_envs} copies, and "
                f"windows need {needed + 1}: raise agent.capacity above {needed * env.num_envs} or lower copies"
            )
        if spec.batch_size > spec.capacity:
            raise UsageError(
                f"a batch of {spec.batch_size} rows is more than the {spec.capacity} that the replay holds: lower "
                "agent.batch_size or raise agent.capacity"
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

    def learn(self) -> dict[str, Tensor] | None:
        """Make the next update that is owed."""
        self.batch = self.next()
        if self.batch is None:
            return None
        out = self.update(self.batch)
        if isinstance(self.ring, PrioritisedRing):
            if "priority" not in out:
                raise PluginError("an agent that asks for priorities returns 'priority' (B,) from its update")
            self.ring.reprioritise(self.batch["index"], out["priority"])
            out = {name: value for name, value in out.items() if name != "priority"}
        return out

    def _collect(self) -> None:
        stream = self.stream
        for _ in range(self.iterations):
            for g in range(len(stream.columns)):
                row = stream.receive(g)
                if self.spec.clip_reward:
                    row["reward"] = row["reward"].sign()
                if self.reward and self.reward.model.when == "collect":
                    rows = {**row, "next_obs": following(row, stream.obs[g])}
                    row["reward"] = self.reward({k: v[None] for k, v in rows.items()})[0]
                self.ring.write(g, row)
                if stream.normaliser is not None:
                    stream.normaliser.learn(row, stream.columns[g])
                if stream.env.flies:
                    stream.launch(g)
        learning = stream.rows >= self.spec.start and self.ring.ready(self.spec.n_step)
        if learning:
            rows = self.iterations * stream.env.num_envs
            self.credit += rows * self.spec.updates
            if self.reward:
                self.reward.learn(rows, lambda count: self.ring.draw(1, count, 1, 1.0))

    def _seen(self, batch: Batch) -> Batch:
        """Raw rows as the agent sees them."""
        return batch if self.stream.normaliser is None else self.stream.normaliser.batch(batch)

    def _draw(self, owed: int) -> None:
        spec, ring = self.spec, self.ring
        reward = self.reward if self.reward and self.reward.model.when == "sample" else None
        if isinstance(ring, PrioritisedRing) and (by := spec.priorities):
            # one by one: each update changes what the next one draws
            beta = linear(self.stream.step, by.beta, 1.0, by.steps)
            self.pending = [self._seen(ring.draw_by_priority(spec.batch_size, spec.gamma, beta, reward))]
            self.credit -= spec.every
            return
        size = sum(f[0, 0].nbytes for f in ring.fields.values()) * (ring.stack + 1) * 2 * spec.batch_size
        count = max(1, min(owed, CHUNK_BYTES // size))
        chunk = self._seen(ring.draw(count, spec.batch_size, spec.n_step, spec.gamma, reward))
        self.pending = [dict(zip(chunk, row, strict=True)) for row in zip(*chunk.values(), strict=True)]
        self.credit -= count * spec.every

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Set the counters."""
        super().load_state_dict(tree)
        if self.credit >= self.spec.every:
            raise ValueError(f"it owes {self.credit} updates at a boundary, where fewer than {self.spec.every} can be")


Source = ReplaySource | RolloutSource | SampleSource | SweepSource | OwnSource
"""``next()`` gives a minibatch, or None when this iteration owes no update; ``learn()`` makes the update besides and
returns its metrics. At a ``boundary`` the last one closed an iteration: the only moments at which a run is saved."""


def make_source(
    phase: Phase, stream: Stream | DataStream, reward: RewardStage | None = None, mode: Captured = "eager"
) -> Source:
    """Build the source that a phase describes; ``mode`` is how its updates are captured.

    Raises:
        UsageError: the phase wants rows and the run has data, or the other way round; or it plans under a reward model.
    """
    spec = phase.source
    if isinstance(spec, Samples) and isinstance(stream, DataStream):
        return SampleSource(spec, stream, phase, mode)
    if isinstance(spec, Samples) or isinstance(stream, DataStream):
        wanted = type(spec).__name__
        raise UsageError(f"phase '{phase.name}' wants {wanted}, which a run with {stream.name}= does not have")
    if isinstance(spec, Sweeps):
        if reward or stream.normaliser:
            raise UsageError(
                "an agent that plans with the env's model plans for the env's own states and reward: leave reward= and "
                "normalise.* out"
            )
        return SweepSource(stream, phase, mode)
    if isinstance(spec, Own):
        return OwnSource(stream, phase, reward)
    if isinstance(spec, Replay):
        return ReplaySource(spec, stream, phase, reward, mode)
    return RolloutSource(spec, stream, phase, reward, mode)
