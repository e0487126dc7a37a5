"""The run's one flow of experience, shared by its phases: an agent's rows, or a generator's real samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlgan.core.buffers import stacked
from rlgan.core.protocols import Batch, DataSet
from rlgan.core.rows import blank, renewed
from rlgan.nn.normalise import Normaliser
from rlgan.store.state import Saved


class Stream(Saved):
    """Acts in an env and gives complete rows ``obs, first, action, extras, reward, terminated, truncated, valid``.

    A fixed schedule makes overlap harmless: for each group of copies, `receive` the row in flight, store it, `launch`
    the next one; so one group's simulators step while the other acts and the learner updates.
    """

    name = "env"
    kept = ("step", "rows", "obs", "first", "carries", "flight", "env", "normaliser")

    def __init__(
        self, env: Any, act: Callable[..., Any], carry: Callable[[int], Any], normaliser: Normaliser | None = None
    ) -> None:
        self.env, self.act, self.fresh = env, act, carry
        self.normaliser = normaliser
        """By which ``act`` sees what is in the rows, which sources let it learn."""
        self.device = env.device
        self.columns = [env.columns(g) for g in range(env.groups)]
        self.sizes = [c.stop - c.start for c in self.columns]
        self.step = torch.zeros((), dtype=torch.int64, device=env.device)
        """Valid steps so far, summed over copies."""
        self.rows = 0
        """Rows so far, summed over copies: the host's exact count."""
        self.obs = [blank(env.single_observation_space, n, env.device) for n in self.sizes]
        self.first = [torch.ones(n, dtype=torch.bool, device=env.device) for n in self.sizes]
        self.carries = [carry(n) for n in self.sizes]
        self.flight: list[Batch | None] = [None] * env.groups
        """What act gave for the rows in flight."""
        self.seconds = 0.0
        """Spent in the env since somebody set it to 0."""
        self.over: Tensor
        """Where a game ended with the row that was received last."""
        self.fixed = False
        """Whether `collect` finds and leaves everything in the same memory."""

    def begin(self) -> None:
        """Reset the env, unless the run has begun: the first observations."""
        if self.rows == 0:
            self.obs = [self.env.start(g) for g in range(len(self.sizes))]

    def launch(self, g: int) -> None:
        """Act on a group's observation and send the action off."""
        carry = renewed(self.carries[g], self.first[g], self.fresh)
        with torch.no_grad():
            out, self.carries[g] = self.act(self.obs[g], carry, self.step, True)
        self.flight[g] = out
        began = time.perf_counter()
        self.env.send(g, out["action"])
        self.seconds += time.perf_counter() - began

    def receive(self, g: int) -> Batch:
        """Complete a group's row, launching it first if nothing is in flight."""
        if self.flight[g] is None:
            self.launch(g)
        out = self.flight[g]
        assert out is not None
        self.flight[g] = None
        began = time.perf_counter()
        step = self.env.receive(g)
        self.seconds += time.perf_counter() - began
        row = {"obs": self.obs[g], "first": self.first[g], **out}
        row |= {name: step[name] for name in ("reward", "terminated", "truncated", "valid")}
        if "final_obs" in step:
            row["final_obs"] = step["final_obs"]
        self.obs[g], self.first[g], self.over = step["obs"], step["first"], step["over"]
        self.step.add_(step["valid"].sum())
        self.rows += self.sizes[g]
        return row

    def fix(self) -> None:
        """Give all that `collect` changes memory of its own, where captured code finds it each time."""
        if not self.fixed:
            self.env.state, self.env.over = _copied(self.env.state), self.env.over.clone()
            self.obs, self.first, self.carries = _copied(self.obs), _copied(self.first), _copied(self.carries)
            self.fixed = True

    def collect(self, count: int) -> Batch:
        """Collect rows of a device env in one piece, which can be captured.

        They are (count, N, ...), and ``obs`` has one row more. The host's count of rows is left to the caller.
        """
        env = self.env
        state, over = env.state, env.over
        obs, first, carry = self.obs[0], self.first[0], self.carries[0]
        rows: list[Batch] = []
        with torch.no_grad():
            for _ in range(count):
                out, carry = self.act(obs, renewed(carry, first, self.fresh), self.step, True)
                following, reward, terminated, truncated, info = env.step(out["action"])
                row = {"obs": obs, "first": first, **out, "reward": reward, "valid": info["valid"]}
                rows.append({**row, "terminated": terminated, "truncated": truncated})
                obs, first = following, info["first"]
                self.step.add_(info["valid"].sum())
            collected = stacked([rows], [obs])
            # first before over, whose memory it is after a single row
            _write((state, self.first[0], over, self.obs[0], self.carries[0]), (env.state, first, env.over, obs, carry))
        env.state, env.over = state, over
        return collected

    def check(self) -> None:
        """Raise what went wrong in the env, as an EnvError."""
        self.env.check()

    def take(self) -> dict[str, Any]:
        """Statistics of the episodes that ended since the last call."""
        return self.env.statistics.take()

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Continue where state_dict was taken; host envs send the action in flight again."""
        # what acting gives beside the action is known to the agent alone
        self.flight = [out and {k: v.to(self.device) for k, v in out.items()} for out in tree["flight"]]
        super().load_state_dict(tree)
        if not 0 <= int(self.step) <= self.rows:
            raise ValueError(f"it counts {int(self.step)} steps in {self.rows} rows")


class DataStream(Saved):
    """Real samples on the device. A generator's step is one update, and so is its row."""

    name = "data"
    kept = ("step", "rows")
    normaliser = None

    def __init__(self, data: DataSet, device: torch.device) -> None:
        self.real, self.device = data.real.to(device), device
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.rows = 0
        self.seconds = 0.0

    def begin(self) -> None:
        """Nothing has to happen before the first batch."""

    def check(self) -> None:
        """Nothing can go wrong."""

    def take(self) -> dict[str, Any]:
        """No statistics."""
        return {}


def _copied(value: Any) -> Any:
    """The same structure with tensors of its own."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value.clone() if isinstance(value, Tensor) else value


def _write(into: Any, value: Any) -> None:
    """Copy the tensors of a structure into those of another one."""
    if isinstance(into, dict):
        for key, item in into.items():
            _write(item, value[key])
    elif isinstance(into, list | tuple):
        for item, new in zip(into, value, strict=True):
            _write(item, new)
    elif into is not None:
        into.copy_(value)
