"""The rows of VecEnv for simulators that live on the CPU.

Any ``gymnasium.vector.VectorEnv`` is stepped in one or two groups of copies, on a fixed schedule, so that one group can
step while the other acts and the learner updates. A simulator whose state cannot be saved comes back by replay: the
seeded reset of the last barrier and the actions since.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from rlgan.core.protocols import Step
from rlgan.errors import EnvError, UsageError
from rlgan.report.statistics import Statistics
from rlgan.simulators.simulator import FLAGS, Simulator
from rlgan.watchdog import Watchdog


class HostVecEnv:
    """Steps host simulators and hands out rows as tensors on ``device``.

    Args:
        make: ``make(n)`` gives a simulator of n copies, in any autoreset mode. It may have ``send`` and ``recv``,
            ``stack`` (frames stacked along axis 0 of an observation), ``max_steps``, ``references()`` (policies of
            observations), ``frame(i)`` (copy i as uint8 (H, W, 3)) and ``fresh_arrays`` (True: an array that it
            returned is never written again). Where its ``terminated`` says more than that a game ended,
            ``info["over"]`` says when one did.
        copies: All copies, over all groups.
        device: Where the tensors go.
        groups: 1, or 2 for overlap.
        seed: Of the run; a reset is seeded by (seed, row, group).
        barrier: Rows per copy between seeded resets of all copies; 0 = none, and then the state cannot be saved.
        timeout: Seconds that one call into a simulator may take.
        name: Of the env, for messages.
        saved: Says what is saved of a run that is ended because a simulator hangs.
    """

    flies = True
    """Whether a row can be in flight while the learner works."""
    model = None

    def __init__(
        self,
        make: Callable[[int], VectorEnv],
        copies: int,
        device: torch.device | str,
        *,
        groups: int = 1,
        seed: int,
        barrier: int,
        timeout: float,
        name: str = "",
        saved: Callable[[], str] = lambda: "nothing is saved",
    ) -> None:
        if groups < 1 or copies % groups:
            raise UsageError(f"copies={copies} cannot be split into groups={groups}: make copies a multiple of groups.")
        self.num_envs, self.groups, self.device = copies, groups, torch.device(device)
        self._identity = {"copies": copies, "groups": groups, "seed": seed, "barrier": barrier}
        self._watchdog = Watchdog(timeout, name, saved)
        self._size = copies // groups
        self._simulators: list[Simulator] = []
        for g in range(groups):
            with self._watchdog:
                sim = make(self._size)
            label = name or type(sim).__name__
            self._simulators.append(Simulator(sim, label, g, seed, barrier, self.device, self._watchdog))
        first = self._simulators[0]
        self.name, self.single_observation_space = first.name, first.space
        self.single_action_space = first.sim.single_action_space
        self.stack: int = getattr(first.sim, "stack", 1)
        self.max_steps: int | None = getattr(first.sim, "max_steps", None)
        self.references: Callable[[], Any] | None = getattr(first.sim, "references", None)
        self.fps: float = first.sim.metadata.get("render_fps") or 30
        self.statistics = Statistics(copies, self.device)
        self._views = [_columns_of(self.statistics, self.columns(g)) for g in range(groups)]

    def columns(self, g: int) -> slice:
        """The copies of group ``g``."""
        return slice(g * self._size, (g + 1) * self._size)

    def start(self, g: int) -> Tensor:
        """Reset group ``g`` with seeds and return its first observation (n, ...)."""
        self._simulators[g].restart(0)
        return self._simulators[g].upload()

    def send(self, g: int, action: Tensor) -> None:
        """Begin the step of group ``g`` with ``action`` (n, ...), which is ignored for invalid rows."""
        self._simulators[g].send(action.detach().cpu().numpy())

    def receive(self, g: int) -> Step:
        """Finish the step of group ``g``.

        Returns:
            ``obs`` and ``first`` of the next row; ``reward`` (float32), ``terminated``, ``truncated``, ``valid`` and
            ``over`` (the game ended) of the row just stepped. Simulators that reset within a step have no invalid rows
            but ``final_obs``, the true next observation.
        """
        simulator = self._simulators[g]
        reward, flags, final = simulator.receive()
        step = {"obs": simulator.upload(), "reward": torch.from_numpy(reward).to(self.device)}
        step.update(zip(FLAGS, torch.from_numpy(flags).to(self.device), strict=True))
        if final is not None:
            step["final_obs"] = torch.from_numpy(final).to(self.device)
        over, statistics = step["over"], self._views[g]
        statistics.advance(step["reward"], step["valid"])
        statistics.finish(over)
        if simulator.same_step:
            # Statistics clears its running sums on the invalid row after an end, and here there is none.
            statistics.running.masked_fill_(over, 0)
            statistics.length.masked_fill_(over, 0)
        return step

    def frame(self, i: int) -> np.ndarray:
        """Picture of copy ``i``, uint8 (H, W, 3), from simulators made with ``render=True``."""
        g, k = divmod(i, self._size)
        with self._watchdog:
            return self._simulators[g].sim.frame(k)  # type: ignore[attr-defined]

    def check(self) -> None:
        """Read what went wrong in the env. EnvError: a reward was not finite."""
        self.statistics.check(self.name)

    def state_dict(self) -> dict[str, Any]:
        """The last barrier and the actions since; a step in flight stays in flight.

        Raises:
            EnvError: Without a barrier.
        """
        if self._identity["barrier"] <= 0:
            raise EnvError(f"Env {self.name} without a reset barrier cannot be saved: set barrier.every above 0.")
        simulators = {str(g): simulator.state_dict() for g, simulator in enumerate(self._simulators)}
        return {**self._identity, "simulators": simulators, "statistics": self.statistics.state_dict()}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Reset, replay the actions, compare the observations with the saved ones, and send what was in flight.

        Raises:
            UsageError: When copies, groups, seed or barrier are not the saved ones.
            EnvError: When the simulator does not come back to the saved observations.
        """
        for key, value in self._identity.items():
            if tree[key] != value:
                raise UsageError(f"The checkpoint has {key}={tree[key]} but this run has {key}={value}: use the same.")
        for g, simulator in enumerate(self._simulators):
            saved = tree["simulators"][str(g)]
            rows = f"{len(saved['sent'])} rows of {self._size} copies since row {saved['barrier']}"
            print(f"{self.name}: replaying {rows}", file=sys.stderr)
            simulator.replay(saved)
        self.statistics.load_state_dict(tree["statistics"])

    def close(self) -> None:
        """Close the simulators."""
        for simulator in self._simulators:
            simulator.close()
        self._watchdog.close()


def _columns_of(statistics: Statistics, columns: slice) -> Statistics:
    """The same tensors, seen through the columns of one group."""
    view = copy.copy(statistics)
    view.running, view.length = statistics.running[columns], statistics.length[columns]
    view.sums = {name: total[columns] for name, total in statistics.sums.items()}
    return view
