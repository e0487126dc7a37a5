"""The run's one flow of experience, shared by its phases: an agent's rows, or a generator's real samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlgan.core.protocols import Batch, DataSet
from rlgan.errors import PluginError
from rlgan.store.tree import tensor


class Stream:
    """Acts in an env and gives complete rows ``obs, first, action, extras, reward, terminated, truncated, valid``.

    A fixed schedule makes overlap harmless: for each group of copies, `receive` the row in flight, store it, `launch`
    the next one; so one group's simulators step while the other acts and the learner updates.
    """

    name = "env"

    def __init__(self, env: Any, act: Callable[..., Any], carry: Callable[[int], Any]) -> None:
        self.env, self.act, self._fresh = env, act, carry
        self.device = env.device
        self.columns = [env.columns(g) for g in range(env.groups)]
        self.sizes = [c.stop - c.start for c in self.columns]
        self.step = torch.zeros((), dtype=torch.int64, device=env.device)
        """Valid steps so far, summed over copies."""
        self.rows = 0
        """Rows so far, summed over copies: the host's exact count."""
        self.obs: list[Tensor] = []
        self.first: list[Tensor] = []
        self.carries: list[Any] = []
        self.flight: list[Batch | None] = [None] * env.groups
        """What act gave for the rows in flight."""
        self.seconds = 0.0
        """Spent in the env since somebody set it to 0."""

    def begin(self) -> None:
        """Reset the env, unless the run has begun: the first observations."""
        if self.obs:
            return
        for g, n in enumerate(self.sizes):
            self.obs.append(self.env.start(g))
            self.first.append(torch.ones(n, dtype=torch.bool, device=self.env.device))
            self.carries.append(self._fresh(n))

    def launch(self, g: int) -> None:
        """Act on a group's observation and send the action off."""
        n = self.sizes[g]
        if self.carries[g] is not None:
            mask = self.first[g]
            fresh = self._fresh(n)
            self.carries[g] = tuple(
                torch.where(mask.view(-1, *[1] * (c.dim() - 1)), f, c)
                for f, c in zip(fresh, self.carries[g], strict=True)
            )
        with torch.no_grad():
            out, self.carries[g] = self.act(self.obs[g], self.carries[g], self.step, True)
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
        self.obs[g], self.first[g] = step["obs"], step["first"]
        self.step.add_(step["valid"].sum())
        self.rows += self.sizes[g]
        return row

    def take(self) -> dict[str, Any]:
        """Statistics of the episodes that ended since the last call."""
        return self.env.statistics.take()

    def state_dict(self) -> dict[str, Any]:
        """Return everything, the env included."""
        return {
            "step": self.step,
            "rows": self.rows,
            "obs": dict(enumerate_names(self.obs)),
            "first": dict(enumerate_names(self.first)),
            "carries": dict(enumerate_names([_tree(c) for c in self.carries])),
            "flight": dict(enumerate_names([out or {} for out in self.flight])),
            "env": self.env.state_dict(),
        }

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Continue where state_dict was taken; host envs send the action in flight again."""
        device, space = self.env.device, self.env.single_observation_space
        self.rows = whole(tree["rows"], "rows")
        self.step.copy_(tensor(tree["step"], (), torch.int64, "step"))
        if not 0 <= int(self.step) <= self.rows:
            raise ValueError(f"it counts {int(self.step)} steps in {self.rows} rows")
        names = [str(g) for g in range(len(self.columns))]
        dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype
        self.obs, self.first = [], []
        for g, n in zip(names, self.sizes, strict=True):
            self.obs.append(tensor(tree["obs"][g], (n, *space.shape), dtype, "observation").to(device))
            self.first.append(tensor(tree["first"][g], (n,), torch.bool, "first").to(device))
        self.carries = [tuple(x.to(device) for x in c.values()) if (c := tree["carries"][g]) else None for g in names]
        self.flight = [{k: v.to(device) for k, v in tree["flight"][g].items()} or None for g in names]
        self.env.load_state_dict(tree["env"])


def check_samples(data: Any, who: str) -> None:
    """Compare what a data set gives with its contract; ``who`` begins the sentence.

    Raises:
        PluginError: the first thing that is wrong.
    """
    if not isinstance(data, DataSet):
        raise PluginError(f"{who} gives {about(data)}; it must be a DataSet")
    real, labels = data.real, data.labels
    if not isinstance(real, Tensor) or real.dim() < 2 or len(real) == 0 or real.device.type != "cpu":
        raise PluginError(f"{who} has real={about(real)}; it must be a tensor (M, ...) on the CPU with M of at least 1")
    if real.dim() == 4 and real.dtype is not torch.uint8:
        raise PluginError(f"{who} has images as {about(real)}; they must be uint8 of (M, C, H, W), from 0 to 255")
    if bool((broken := ~real.flatten(1).isfinite().all(1)).any()):
        raise PluginError(f"{who} has a sample that is not finite: number {int(broken.nonzero()[0])} of {len(real)}")
    if labels is None:
        return
    if not isinstance(labels, Tensor) or (labels.dtype, labels.shape) != (torch.int64, real.shape[:1]):
        raise PluginError(f"{who} has labels as {about(labels)}; they must be int64 of ({len(real)},)")
    if int(labels.min()) < 0:
        raise PluginError(f"{who} has the label {int(labels.min())}; labels are numbered from 0")


class DataStream:
    """Real samples on the device. A generator's step is one update, and so is its row."""

    name = "data"

    def __init__(self, data: DataSet, device: torch.device) -> None:
        self.real, self.device = data.real.to(device), device
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.rows = 0
        self.seconds = 0.0

    def begin(self) -> None:
        """Nothing has to happen before the first batch."""

    def take(self) -> dict[str, Any]:
        """No statistics."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the count of steps."""
        return {"step": self.step, "rows": self.rows}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Set the count of steps."""
        self.step.copy_(tree["step"])
        self.rows = whole(tree["rows"], "rows")


def whole(value: Any, name: str) -> int:
    """A saved count; ValueError if it is not a whole number, or below 0."""
    if type(value) is not int or value < 0:
        raise ValueError(f"its {name} is {value!r:.40} and must be a whole number")
    return value


def enumerate_names(items: list[Any]) -> list[tuple[str, Any]]:
    """Pair list items with their index as text: trees have text keys."""
    return [(str(i), item) for i, item in enumerate(items)]


def _tree(carry: Any) -> dict[str, Tensor]:
    return {} if carry is None else dict(enumerate_names(list(carry)))


def about(value: Any) -> str:
    """A value in a sentence: dtype, shape and device of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)} on {value.device.type}"
    return type(value).__name__
