"""What a loop of stable-baselines3 goes on with, as arrays and numbers without code; and games to be played again."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.monitor import Monitor
from torch import Tensor

from rlgan.core.seeding import derive
from rlgan.errors import EnvError, UsageError
from rlgan.report.statistics import NOT_FINITE
from rlgan.store.state import restored, tensor, whole

COUNTS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate", "_current_progress_remaining")
"""Numbers that a model counts with, where it has them."""
BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Repeatable(gymnasium.Wrapper):
    """Seeds each game by its number, so that where it stands follows from the number and the actions since."""

    def __init__(self, name: str, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.name = name
        self.root, self.number, self.actions = 0, 0, list[Any]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next game; a seed begins the numbers anew."""
        if seed is not None:
            self.root, self.number = seed, 0
        self.number, self.actions = self.number + 1, []
        return self.env.reset(seed=derive(self.root, self.number), options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, which is remembered. EnvError: its reward is not finite, before a model learns from it."""
        self.actions.append(np.array(action))
        step = self.env.step(action)
        if not math.isfinite(step[1]):
            raise EnvError(f"env {self.name} {NOT_FINITE}")
        return step


def saved(model: BaseAlgorithm) -> dict[str, Any]:
    """All but the policy's networks."""
    name, keys, *rest = np.random.get_state()
    tree = {
        "parameters": {name: value for name, value in model.get_parameters().items() if name != "policy"},
        "variables": {name: getattr(model, name).detach() for name in _variables(model)},
        "counts": {name: getattr(model, name) for name in COUNTS if hasattr(model, name)},
        # TD3 logs of its actor at every second update alone, and a record shows the last that was logged
        "logged": [(name, float(value)) for name, value in model.logger.name_to_value.items() if "train/" in name],
        "obs": _tensors(model._last_obs),
        "starts": _tensors(model._last_episode_starts),
        "games": [_game(monitor.env) for monitor in model.env.envs],
        "numpy": {"name": name, "keys": torch.from_numpy(keys.astype(np.int64)), "rest": rest},
        "actions": model.action_space.np_random.bit_generator.state,
    }
    if buffer := getattr(model, "replay_buffer", None):
        rows = {name: _tensors(getattr(buffer, name), _held(buffer)) for name in BUFFER}
        tree["buffer"] = {"size": buffer.buffer_size, "pos": buffer.pos, "full": buffer.full, "rows": rows}
    return tree


def restore(model: BaseAlgorithm, tree: dict[str, Any]) -> None:
    """Let a model that has begun go on from there, and play its games up to where they were.

    Raises:
        UsageError: a game goes another way than before.
        ValueError and others of `rlgan.store.state.MISFIT`: the state is not one of this model.
    """
    model.set_parameters({**tree["parameters"], "policy": model.policy.state_dict()})
    for name in tree["parameters"]:
        _check_moments(name, attrgetter(name)(model))
    restored({name: getattr(model, name).detach() for name in _variables(model)}, tree["variables"], "variables")
    for name in COUNTS:
        if hasattr(model, name):
            setattr(model, name, restored(getattr(model, name), tree["counts"][name], name))
    model.logger.name_to_value.update((str(name), float(value)) for name, value in tree["logged"])
    # these tensors are the memory of the model's arrays
    restored(_tensors(model._last_obs), tree["obs"], "observation")
    restored(_tensors(model._last_episode_starts), tree["starts"], "starts")
    if buffer := getattr(model, "replay_buffer", None):
        _refill(buffer, tree["buffer"])
    for i, (monitor, game) in enumerate(zip(model.env.envs, tree["games"], strict=True)):
        _play(monitor, game, model._last_obs, i)
    numbers = tree["numpy"]
    np.random.set_state((numbers["name"], numbers["keys"].numpy().astype(np.uint32), *numbers["rest"]))
    model.action_space.np_random.bit_generator.state = tree["actions"]


def _variables(model: BaseAlgorithm) -> list[str]:
    """Tensors that learn outside of the networks, such as a temperature."""
    return model._get_torch_save_params()[1]


def _check_moments(name: str, optimiser: torch.optim.Optimizer) -> None:
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"its {name} has a {key} of {tuple(value.shape)} for {tuple(parameter.shape)} weights")


def _held(buffer: ReplayBuffer) -> int:
    return buffer.buffer_size if buffer.full else buffer.pos


def _refill(buffer: ReplayBuffer, tree: dict[str, Any]) -> None:
    if tree["size"] != buffer.buffer_size:
        raise ValueError(
            f"its replay held {tree['size']} rows of each env, and agent.buffer_size gives {buffer.buffer_size}"
        )
    buffer.pos, buffer.full = whole(tree["pos"], "pos"), restored(buffer.full, tree["full"], "full")
    if buffer.pos >= buffer.buffer_size:
        raise ValueError(f"its pos is {buffer.pos}, beyond a replay of {buffer.buffer_size} rows")
    for name in BUFFER:
        restored(_tensors(getattr(buffer, name), _held(buffer)), tree["rows"][name], name)


def _play(monitor: Monitor, game: dict[str, Any], seen: Any, i: int) -> None:
    """Repeat a game up to the observation that was seen of env i."""
    env, actions = monitor.env, game["actions"]
    env.root, env.number = whole(game["root"], "root"), whole(game["number"], "number") - 1
    tensor(actions, (len(actions), *(env.action_space.shape or ())), actions.dtype, "actions")
    obs, over = monitor.reset()[0], False
    for action in actions.numpy():
        if over:
            break
        obs, _, terminated, truncated, _ = monitor.step(action)
        over = terminated or truncated
    parts = [(obs, seen)] if isinstance(seen, np.ndarray) else [(obs[name], seen[name]) for name in seen]
    if over or not all(np.array_equal(part, before[i]) for part, before in parts):
        raise UsageError(
            "the env does not repeat a game from the same seed and actions, so this run cannot go on: start again"
        )


def _game(env: Repeatable) -> dict[str, Any]:
    actions = np.stack(env.actions) if env.actions else np.empty((0, *env.action_space.shape))
    return {"root": env.root, "number": env.number, "actions": torch.from_numpy(actions)}


def _tensors(value: Any, rows: int | None = None) -> Any:
    """The first rows of an array, or of a dict of them."""
    if isinstance(value, dict):
        return {name: _tensors(part, rows) for name, part in value.items()}
    return torch.from_numpy(value[:rows])
