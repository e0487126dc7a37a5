"""Every rlgan env in Gymnasium, as NumPy: ``gymnasium.make("rlgan.gym:rlgan/cartpole-v0")``.

Importing this registers ``rlgan/<name>-v0`` for each installed env, from metadata alone; its plugin is imported when it
is made. Families take ``argument="pong"`` for what follows the colon.

Seeds. Copy i of ``make_vec`` under ``reset(seed=s)`` starts each episode as the single env under ``seed=s + i`` does,
bit for bit. Random numbers within steps come from one generator per vector, seeded from the first copy's seed: they are
the single env's for one copy, and for more copies other draws from the same distribution. So where steps are
deterministic the vector equals ``SyncVectorEnv`` of the single env. Simulators on the CPU seed themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate
from torch import Generator, Tensor

from rlgan.assembly import pick_device
from rlgan.core import seeding
from rlgan.core.protocols import State
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.library import device_env, find_env
from rlgan.registry import Registry

STEPS = 1
"""Role of the random numbers within steps, beside those of the starts."""
Array = np.ndarray[Any, np.dtype[Any]]
Rows = tuple[Any, Array, Array, Array, dict[str, Any]]


def make_env(name: str, *, render_mode: str | None = None, **settings: Any) -> gymnasium.Env:
    """The single env that ``gymnasium.make`` gives; arguments as for `make_vector`."""
    return Single(make_vector(name, 1, render_mode=render_mode, **settings), render_mode)


def make_vector(
    name: str,
    num_envs: int = 1,
    *,
    argument: str = "",
    render_mode: str | None = None,
    device: str = "cpu",
    max_episode_steps: int | None = None,
    **settings: Any,
) -> VectorEnv:
    """The NumPy VectorEnv that ``gymnasium.make_vec`` gives.

    Args:
        name: Of the env.
        num_envs: Copies.
        argument: Of a family: ``atari`` takes a ROM.
        render_mode: None or ``rgb_array``.
        device: Where the tensors behind the arrays are.
        max_episode_steps: A time limit below the env's own; not for simulators on the CPU, which have their own.
        settings: Of the env.
    """
    if render_mode not in (None, "rgb_array"):
        raise UsageError(f"render_mode={render_mode!r}: rlgan's envs draw with render_mode='rgb_array' only")
    full = f"{name}:{argument}" if argument else name
    spec, argument, chosen = find_env(full, num_envs, device, settings)
    if spec.host:
        if max_episode_steps is not None:
            raise UsageError(f"env {full} keeps its own time limit: leave max_episode_steps out")
        return HostVector(spec.factory(chosen, argument, num_envs, render_mode is not None), render_mode)
    where = pick_device(device)
    env = device_env(full, spec, chosen, num_envs, where)
    if render_mode and not hasattr(env, "render"):
        raise UsageError(f"env {full} draws no pictures: leave render_mode out")
    return DeviceVector(Seeded(env, num_envs, where, full), render_mode, max_episode_steps)


class Seeded(VecEnv):
    """A VecEnv each of whose copies starts its episodes from random numbers of its own."""

    def __init__(self, env: Any, copies: int, device: torch.device, name: str) -> None:
        with seeding.fork(0, device):
            super().__init__(env, copies, device, name=name)
        self.rng = Generator(device)
        self.own = [Generator(device) for _ in range(copies)]
        for generator in (self.rng, *self.own):
            generator.seed()

    def seed(self, seeds: Sequence[int | None]) -> None:
        """Seed the starts of the copies that are given a seed, and with the first copy's the steps of all."""
        for generator, seed in zip(self.own, seeds, strict=True):
            if seed is not None:
                generator.manual_seed(seed)
        if seeds[0] is not None:
            assert self.rng is not None
            self.rng.manual_seed(seeding.derive(seeds[0], STEPS))

    def starts(self, fresh: Tensor) -> State:
        """Draw starting states for the copies at ``fresh`` alone, each from its own generator."""
        index = fresh.nonzero().flatten()
        if not len(index):
            return self.state
        drawn = [self.env.reset(1, self.own[i]) for i in index.tolist()]
        return {
            key: value.index_copy(0, index, torch.cat([start[key] for start in drawn]))
            for key, value in self.state.items()
        }


class DeviceVector(VectorEnv):
    """The rows of a device env as NumPy arrays; an end is followed by a row that resets (NEXT_STEP)."""

    def __init__(self, vec: Seeded, render_mode: str | None, max_episode_steps: int | None) -> None:
        self.vec, self.render_mode, self.num_envs = vec, render_mode, vec.num_envs
        if max_episode_steps is not None:
            vec.max_steps = min(vec.max_steps, max_episode_steps)
        modes = ["rgb_array"] if hasattr(vec.env, "render") else []
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": modes, "render_fps": vec.fps}
        self.single_observation_space, self.single_action_space = vec.single_observation_space, vec.single_action_space
        self.observation_space, self.action_space = vec.observation_space, vec.action_space

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start all copies anew; an int seeds them with ``seed``, ``seed + 1`` and so on."""
        if options and "reset_mask" in options:
            raise UsageError("this env resets ended copies by itself, at their next step: leave out reset_mask")
        if seed is not None:
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else list(seed)
            if len(seeds) != self.num_envs:
                raise UsageError(f"{len(seeds)} seeds for {self.num_envs} copies: give one for each, or an int")
            self.vec.seed(seeds)
        return _arrays(self.vec.reset()[0]), {}

    def step(self, actions: Any) -> Rows:
        """Advance every copy by one row."""
        actions = np.asarray(actions)
        space = self.action_space
        if actions.shape != space.shape or not (isinstance(space, Box) or space.contains(actions)):
            raise UsageError(f"the actions {actions!r} are none of {space}")
        actions = actions.astype(space.dtype, copy=False)
        obs, reward, terminated, truncated, _ = self.vec.step(torch.as_tensor(actions, device=self.vec.device))
        flags = (terminated.cpu().numpy(), truncated.cpu().numpy())
        return _arrays(obs), reward.cpu().numpy().astype(np.float64), *flags, {}

    def render(self) -> tuple[Array, ...] | None:
        """Pictures (H, W, 3) of all copies, uint8."""
        return self.vec.render() if self.render_mode else None


class HostVector(VectorWrapper):
    """A simulator whose ``terminated`` marks ends alone: other libraries reset wherever it is true.

    ``env.life_loss=terminal`` of Atari marks lost lives too, after which the game goes on.
    """

    def __init__(self, env: VectorEnv, render_mode: str | None) -> None:
        super().__init__(env)
        self.draws = render_mode
        modes = ["rgb_array"] if hasattr(env, "frame") else []
        self.metadata = {"render_fps": 30, **env.metadata, "render_modes": modes}

    def step(self, actions: Any) -> Rows:
        """One step of all copies."""
        obs, reward, terminated, truncated, info = self.env.step(np.asarray(actions))
        ended = terminated & info["over"] if "over" in info else terminated
        return obs, np.asarray(reward, np.float64), ended, truncated, info

    def render(self) -> tuple[Array, ...] | None:
        """Pictures (H, W, 3) of all copies, uint8."""
        return tuple(self.env.frame(i) for i in range(self.num_envs)) if self.draws else None  # type: ignore[attr-defined]


class Single(gymnasium.Env):
    """The one copy of a NumPy VectorEnv as a Gymnasium Env."""

    def __init__(self, vector: VectorEnv, render_mode: str | None) -> None:
        self.vector, self.render_mode = vector, render_mode
        self.metadata = {key: value for key, value in vector.metadata.items() if key != "autoreset_mode"}
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        self._mode = AutoresetMode(vector.metadata["autoreset_mode"])
        self._last: Array | None = None
        """The action that ended the episode, if one did."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. After an end it is the row that resets, so that random numbers come as in the vector."""
        super().reset(seed=seed)
        last, self._last = self._last, None
        if last is not None and seed is None and self._mode == AutoresetMode.NEXT_STEP:
            return self._only(self.vector.step(last)[0]), {}
        return self._only(self.vector.reset(seed=seed, options=options)[0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step."""
        actions = np.asarray(action)[None]
        obs, reward, terminated, truncated, info = self.vector.step(actions)
        ended = bool(terminated[0]), bool(truncated[0])
        self._last = actions if any(ended) else None
        within = self._mode == AutoresetMode.SAME_STEP and any(ended)
        only = info["final_obs"][0] if within else self._only(obs)
        return only, float(reward[0]), *ended, {}

    def render(self) -> Any:
        """Picture (H, W, 3), uint8."""
        frames = self.vector.render()
        return frames[0] if frames else None

    def close(self) -> None:
        """Close the env."""
        self.vector.close()

    def _only(self, obs: Any) -> Any:
        return next(iter(iterate(self.vector.observation_space, obs)))


def _arrays(obs: Any) -> Any:
    """Copies as NumPy: an observation may be a part of the state."""
    return {key: _arrays(part) for key, part in obs.items()} if isinstance(obs, dict) else obs.cpu().numpy().copy()


def _register() -> None:
    for name in sorted({entry.name for entry in Registry().names("envs") if entry.status != "blocked"}):
        if not re.fullmatch(r"[\w.-]+", name):
            gymnasium.logger.warn(f"rlgan's env {name!r} is not registered: Gymnasium's ids cannot hold its name")
            continue
        gymnasium.register(
            id=f"rlgan/{name}-v0",
            entry_point="rlgan.gym:make_env",
            vector_entry_point="rlgan.gym:make_vector",
            kwargs={"name": name},
        )


_register()
