"""Many copies of a pure env: automatic reset, time limit and statistics, once for all envs.

Rows follow Gymnasium's NEXT_STEP: the row after an end shows the final observation, ignores its action, has reward 0
and ``valid=False``, and leads to the reset observation. So the true next observation of row t is that of row t+1.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Generator, Tensor

from rlgan.core.protocols import Env, State, Step
from rlgan.core.statistics import Statistics
from rlgan.errors import EnvError, RlganError


class VecEnv(VectorEnv):
    """A Gymnasium VectorEnv whose arrays are tensors on the device. ``step`` compiles with fullgraph.

    Outside a run, ``reset(seed=s)`` gives it a random generator of its own; inside, it draws from the device's default
    one (``rng`` is None), which is the only one that compiled and captured code can use.
    """

    groups = 1
    flies = False
    """Whether a row can be in flight while the learner works."""

    def __init__(self, env: Env, copies: int, device: torch.device | str) -> None:
        self.env = env
        self.num_envs = copies
        self.device = torch.device(device)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": ["rgb_array"]}
        self.fps = getattr(env, "fps", 30)
        self.render_mode = "rgb_array" if hasattr(env, "render") else None
        self.stack = getattr(env, "stack", 1)
        self.max_steps = env.max_steps
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, copies)
        self.action_space = batch_space(env.action_space, copies)
        self.rng: Generator | None = None
        with torch.no_grad():
            self.state: State = env.reset(copies, None)
            names = tuple(env.metrics(self.state)) if hasattr(env, "metrics") else ()
        self.over = torch.zeros(copies, dtype=torch.bool, device=self.device)
        self.statistics = Statistics(copies, self.device, names)
        self._has_metrics = bool(names)
        self._action: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict]:
        """Start all copies anew and return their observations (N, ...)."""
        if seed is not None:
            self.rng = Generator(self.device).manual_seed(seed)
        for name, value in self.env.reset(self.num_envs, self.rng).items():
            self.state[name].copy_(value)
        self.over.zero_()
        self.statistics.running.zero_()
        self.statistics.length.zero_()
        return self.env.observe(self.state), {"first": torch.ones_like(self.over)}

    @torch.no_grad()
    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Advance every copy by one row.

        ``info`` has ``valid`` and ``over`` (the game ended) of this row, and ``first`` of the next one.
        """
        fresh = self.over.clone()
        valid = ~fresh
        state, reward, terminated = self.env.step(self.state, action, self.rng)
        start = self.env.reset(self.num_envs, self.rng)
        for name, value in self.state.items():
            mask = fresh.view(-1, *[1] * (value.dim() - 1))
            torch.where(mask, start[name], state[name], out=value)
        reward = reward.masked_fill(fresh, 0.0)
        terminated = terminated & valid
        truncated = (self.statistics.advance(reward, valid) >= self.max_steps) & ~terminated
        over = terminated | truncated
        self.over.copy_(over)
        self.statistics.finish(over, metrics=self.env.metrics(self.state) if self._has_metrics else None)  # type: ignore[attr-defined]
        info = {"valid": valid, "first": fresh, "over": over}
        return self.env.observe(self.state), reward, terminated, truncated, info

    def start(self, group: int = 0) -> Tensor:
        """First observations of a run, drawn from the default generator."""
        return self.reset()[0]

    def send(self, group: int, action: Tensor) -> None:
        """Take the actions of the next `receive`. Nothing is in flight on a device."""
        self._action = action

    def receive(self, group: int = 0) -> Step:
        """Step with the actions sent, and return the row."""
        assert self._action is not None
        try:
            obs, reward, terminated, truncated, info = self.step(self._action)
        except RlganError:
            raise
        except Exception as error:
            name = type(self.env).__name__
            raise EnvError(f"env {name} raised {type(error).__name__} in its step: {error}") from error
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
        """Return everything that a step changes."""
        return {"state": self.state, "over": self.over, "statistics": self.statistics.state_dict()}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in."""
        for name, value in self.state.items():
            value.copy_(tree["state"][name])
        self.over.copy_(tree["over"])
        self.statistics.load_state_dict(tree["statistics"])
