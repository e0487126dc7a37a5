"""Many copies of a pure env: automatic reset, time limit and statistics, once for all envs.

Rows follow Gymnasium's NEXT_STEP: the row after an end shows the final observation, ignores its action, has reward 0
and ``valid=False``, and leads to the reset observation. So the true next observation of row t is that of row t+1.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from gymnasium.spaces import Dict, Discrete, MultiBinary, MultiDiscrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Generator, Tensor

from rlgan.core.protocols import Env, Observation, State, Step
from rlgan.core.rows import where
from rlgan.errors import EnvError, guarded
from rlgan.report.statistics import Statistics
from rlgan.store.state import Saved, same_data
from rlgan.watchdog import Watchdog

STUCK = "forbids every action in some state: its action_mask(state) must leave at least one of each choice"


class VecEnv(Saved, VectorEnv):
    """A Gymnasium VectorEnv whose arrays are tensors on the device. ``step`` compiles with fullgraph.

    Outside a run, ``reset(seed=s)`` gives it a random generator of its own; inside, it draws from the device's default
    one (``rng`` is None), which is the only one that compiled and captured code can use.

    Args:
        env: The problem.
        copies: How many.
        device: Where its tensors are.
        name: Of the env, for messages.
        watchdog: Ends the process when ``start`` or ``receive`` hang; closed with the env.
    """

    kept = ("state", "over", "statistics")
    groups = 1
    flies = False
    """Whether a row can be in flight while the learner works."""

    def __init__(
        self, env: Env, copies: int, device: torch.device | str, *, name: str = "", watchdog: Watchdog | None = None
    ) -> None:
        self.env, self.name = env, name or type(env).__name__
        self._watchdog = watchdog
        self.num_envs = copies
        self.device = torch.device(device)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": ["rgb_array"]}
        self.fps, self.film_every = getattr(env, "fps", 30), getattr(env, "film_every", 1)
        self.render_mode = "rgb_array" if hasattr(env, "render") else None
        self.stack = getattr(env, "stack", 1)
        self.model = partial(called, self.name, "in its model", env.model) if hasattr(env, "model") else None
        self.references = (
            partial(called, self.name, "in its references", env.references) if hasattr(env, "references") else None
        )
        self.protocol = getattr(env, "protocol", "")
        self.max_steps = env.max_steps
        self.masked = hasattr(env, "action_mask")
        self.single_observation_space, self.single_action_space = shown_space(env), env.action_space
        self.observation_space = batch_space(self.single_observation_space, copies)
        self.action_space = batch_space(env.action_space, copies)
        self.rng: Generator | None = None
        with torch.no_grad():
            self.state: State = env.reset(copies, None)
            names = tuple(env.metrics(self.state)) if hasattr(env, "metrics") else ()
        self.over = torch.zeros(copies, dtype=torch.bool, device=self.device)
        self.stuck = torch.zeros((), dtype=torch.bool, device=self.device)
        """Whether a state that plays on ever forbade all actions."""
        self.statistics = Statistics(copies, self.device, names)
        self._has_metrics = bool(names)
        self._action: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict]:
        """Start all copies anew and return their observations (N, ...)."""
        if seed is not None:
            self.rng = Generator(self.device).manual_seed(seed)
        self.state = self.starts(torch.ones_like(self.over))
        self.over = torch.zeros_like(self.over)
        self.statistics.running.zero_()
        self.statistics.length.zero_()
        return self._observe(), {"first": torch.ones_like(self.over)}

    def starts(self, fresh: Tensor) -> State:
        """Starting states for the copies at ``fresh`` (N,); those of the others are not looked at."""
        return self.env.reset(self.num_envs, self.rng)

    @torch.no_grad()
    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Advance every copy by one row.

        ``info`` has ``valid`` and ``over`` (the game ended) of this row, and ``first`` of the next one.
        """
        fresh, valid = self.over, ~self.over
        state, reward, terminated = self.env.step(self.state, action, self.rng)
        start = self.starts(fresh)
        # never in place: an observation, or another part of the state, may be the same tensor
        self.state = {name: where(fresh, start[name], value) for name, value in state.items()}
        reward = reward.masked_fill(fresh, 0.0)
        terminated = terminated & valid
        self.over = over = terminated | (self.statistics.advance(reward, valid) >= self.max_steps)
        truncated = over ^ terminated
        self.statistics.finish(over, metrics=self.env.metrics(self.state) if self._has_metrics else None)  # type: ignore[attr-defined]
        info = {"valid": valid, "first": fresh, "over": over}
        return self._observe(), reward, terminated, truncated, info

    def _observe(self) -> Observation:
        """What the agent sees, with the actions that it may take where the env says so."""
        obs = self.env.observe(self.state)
        if not self.masked:
            return obs
        mask = self.env.action_mask(self.state)  # type: ignore[attr-defined]
        self.stuck.logical_or_((~choices(mask, self.single_action_space) & ~self.over).any())
        return {"obs": obs, "action_mask": mask.to(torch.int8)}

    def check(self) -> None:
        """Read what went wrong in the env since the run began.

        Raises:
            EnvError: it gave a reward that is not finite, or forbade every action.
        """
        self.statistics.check(self.name)
        if self.masked and bool(self.stuck):
            raise EnvError(f"env {self.name} {STUCK}")

    def start(self, group: int = 0) -> Tensor:
        """First observations of a run, drawn from the default generator."""
        return self._watched("in its reset", self.reset)[0]

    def send(self, group: int, action: Tensor) -> None:
        """Take the actions of the next `receive`. Nothing is in flight on a device."""
        self._action = action

    def receive(self, group: int = 0) -> Step:
        """Step with the actions sent, and return the row."""
        assert self._action is not None
        obs, reward, terminated, truncated, info = self._watched("in its step", self.step, self._action)
        return {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated, **info}

    def columns(self, group: int) -> slice:
        """All copies: a device env is one group."""
        return slice(0, self.num_envs)

    def render(self) -> Any:
        """Pictures of all copies, a tuple of (H, W, 3) uint8 arrays."""
        return tuple(self.frame(i) for i in range(self.num_envs))

    def frame(self, i: int) -> Any:
        """Picture of copy i, (H, W, 3) uint8."""
        return self.env.render(self.state, i)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The state, and what data it is of."""
        return {**super().state_dict(), "protocol": self.protocol}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in. OtherData: it is of other data."""
        same_data(tree["protocol"], self.protocol)
        # never in place, as in step
        self.state, self.over = {k: torch.empty_like(v) for k, v in self.state.items()}, torch.empty_like(self.over)
        super().load_state_dict(tree)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the watchdog."""
        if self._watchdog is not None:
            self._watchdog.close()

    def _watched(self, when: str, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._watchdog or nullcontext():
            return called(self.name, when, function, *arguments)


def called(name: str, when: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what an env's author wrote. EnvError says what it raised, and ``when``."""
    return guarded(EnvError, f"env {name}", when, function, *arguments)


def shown_space(env: Env) -> Space:
    """What agents see: the env's observations, and beside them the mask of allowed actions, if it has one.

    Raises:
        EnvError: it masks actions that are not numbered.
    """
    if not hasattr(env, "action_mask"):
        return env.observation_space
    return Dict({"obs": env.observation_space, "action_mask": MultiBinary(mask_width(env.action_space))})


def mask_width(actions: Space) -> int:
    """Entries of a mask: one for each number of each choice. EnvError: actions are not numbered."""
    if isinstance(actions, Discrete):
        return int(actions.n)
    if isinstance(actions, MultiDiscrete):
        return int(actions.nvec.sum())
    raise EnvError(f"an env with action_mask takes numbered actions (Discrete or MultiDiscrete), not {actions}")


def choices(mask: Tensor, actions: Space) -> Tensor:
    """Whether each copy (n,) has something to choose from in each of its choices; ``mask`` (n, width)."""
    if isinstance(actions, Discrete):
        return mask.any(-1)
    parts = mask.split(actions.nvec.tolist(), -1)  # type: ignore[attr-defined]
    return torch.stack([part.any(-1) for part in parts], -1).all(-1)
