"""Any single env registered with Gymnasium: ``env=gym:CartPole-v1``, ``env=gym:ale_py:ALE/Breakout-v5``.

The part before the last colon is a package to import, which registers its ids. Dict and Tuple observations are
flattened; actions are clipped to the bounds of a Box, and what an agent stores stays its own.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from annotated_types import Gt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import FlattenObservation

from rlgan.errors import EnvError, PluginError, UsageError
from rlgan.hookspecs import hookimpl
from rlgan.runconfig import from_yaml
from rlgan.specs import EnvSpec

Array = np.ndarray[Any, np.dtype[Any]]
_EXTRAS = {"mujoco": "mujoco", "box2d": "box2d", "classic_control": "classic", "toy_text": "classic"}


@dataclass(frozen=True)
class GymConfig:
    """How the copies are run."""

    vectorization: Literal["sync", "async", "vector_entry_point"] = "sync"
    """sync: one after the other; async: a process each, for slow simulators; vector_entry_point: the env's own."""
    max_steps: Annotated[int, Gt(0)] | None = None
    """Steps after which a game is cut off; none = the id's own limit, if it has one."""
    kwargs: tuple[str, ...] = ()
    """What each copy is made with, as [is_slippery=false,map_name=8x8]; values are read as YAML."""


class Numbered(gymnasium.Wrapper):
    """Marks what a copy raises with its number (in async mode the mark stays behind in the other process)."""

    def __init__(self, env: gymnasium.Env, index: int) -> None:
        super().__init__(env)
        self._index = index

    def step(self, action: Any) -> Any:
        """Step the copy."""
        try:
            return self.env.step(action)
        except Exception as error:
            error.copy_index = self._index  # type: ignore[attr-defined]
            raise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Reset the copy."""
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:
            error.copy_index = self._index  # type: ignore[attr-defined]
            raise


class GymVector(VectorEnv):
    """``copies`` copies of a Gymnasium id, in NEXT_STEP mode unless the env's own vector class has another one."""

    def __init__(self, argument: str, copies: int, config: GymConfig, render: bool = False) -> None:
        spec = _find(argument)
        self.sim = _make(spec, copies, config, render)
        self._asynchronous = config.vectorization == "async"
        self.num_envs, self.metadata = copies, self.sim.metadata
        if render and "rgb_array" not in self.metadata.get("render_modes", ()):
            raise UsageError(f"env=gym:{argument} cannot be watched: it has no render mode rgb_array.")
        self.single_observation_space = self.sim.single_observation_space
        self.single_action_space = self.sim.single_action_space
        self.observation_space, self.action_space = self.sim.observation_space, self.sim.action_space
        self.max_steps = config.max_steps or spec.max_episode_steps
        self._actions: Array | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start new episodes."""
        return self.sim.reset(seed=seed, options=options)

    def send(self, actions: Array) -> None:
        """Begin a step."""
        if isinstance(self.single_action_space, spaces.Box):
            actions = np.clip(actions, self.single_action_space.low, self.single_action_space.high)
        self._actions = actions
        if self._asynchronous:
            self.sim.step_async(actions)

    def recv(self) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Finish it."""
        return self.sim.step_wait() if self._asynchronous else self.sim.step(self._actions)

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """One step of all copies."""
        self.send(actions)
        return self.recv()

    def frame(self, i: int) -> Array:
        """Picture of copy ``i``, uint8 (H, W, 3)."""
        return np.asarray(self.sim.envs[i].render() if hasattr(self.sim, "envs") else self.sim.render()[i])

    def close_extras(self, **kwargs: Any) -> None:
        """Close the copies."""
        self.sim.close()


def _find(argument: str) -> gymnasium.envs.registration.EnvSpec:
    package, _, name = argument.rpartition(":")
    if package:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f"env=gym:{argument} needs the package {package}, which fails to import: {error}."
            ) from error
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5)
        hint = f" Nearest: {', '.join(near)}." if near else ""
        raise UsageError(
            f"Gymnasium has no env {name!r} among its {len(gymnasium.registry)}.{hint} Where another package registers "
            "it, name that first, as in env=gym:ale_py:ALE/Breakout-v5."
        ) from error


def _make(spec: gymnasium.envs.registration.EnvSpec, copies: int, config: GymConfig, render: bool) -> Any:
    own = config.vectorization == "vector_entry_point"
    if own and spec.vector_entry_point is None:
        raise UsageError(f"{spec.id} has no vector class of its own: use env.vectorization=sync or async.")
    count = itertools.count()
    limit = {} if config.max_steps is None else {"max_episode_steps": config.max_steps}
    given = dict(_pair(text) for text in config.kwargs)

    def wrap(env: gymnasium.Env) -> gymnasium.Wrapper:
        if isinstance(env.observation_space, spaces.Dict | spaces.Tuple):
            env = FlattenObservation(env)
        return Numbered(env, next(count))

    try:
        return gymnasium.make_vec(
            spec.id,
            copies,
            vectorization_mode=config.vectorization,
            vector_kwargs=None if own else {"autoreset_mode": AutoresetMode.NEXT_STEP},
            wrappers=None if own else [wrap],
            # an env that draws nothing need not take the argument
            **({"render_mode": "rgb_array"} if render else {}),
            **limit,
            **given,
        )
    except gymnasium.error.DependencyNotInstalled as error:
        place = str(spec.entry_point)
        extra = next((extra for part, extra in _EXTRAS.items() if part in place), None)
        remedy = f'pip install "rlgan[{extra}]"' if extra else str(error)
        raise PluginError(f"env=gym:{spec.id} needs a simulator that is not installed: {remedy}") from error
    except Exception as error:
        raise EnvError(f"env=gym:{spec.id} cannot be made: {type(error).__name__}: {error}") from error


def _pair(text: str) -> tuple[str, Any]:
    """A name and a value of ``name=value``."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise UsageError(f"env.kwargs has {text!r}: write name=value, as in env.kwargs=[is_slippery=false]")
    return name, from_yaml(value, f"{text!r} in env.kwargs")


def make(config: GymConfig, argument: str, copies: int, render: bool = False) -> GymVector:
    """The env registered as ``argument``."""
    return GymVector(argument, copies, config, render)


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Yield the family."""
    summary = "any env registered with Gymnasium: env=gym:<id>"
    members = partial(sorted, gymnasium.registry)
    yield EnvSpec("gym", make, GymConfig, summary, host=True, family=True, members=members, tags=("gymnasium",))
