"""What a loop of stable-baselines3 goes on with, as arrays and numbers without code; and games to be played again."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from rlgan.core.seeding import derive
from rlgan.errors import UsageError

COUNTS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate", "_current_progress_remaining")
"""Numbers that a model counts with, where it has them."""
BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Repeatable(gymnasium.Wrapper):
    """Seeds each game by its number, so that where it stands follows from the number and the actions since."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.root, self.number, self.actions = 0, 0, list[Any]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next game; a seed begins the numbers anew."""
        if seed is not None:
            self.root, self.number = seed, 0
        self.number, self.actions = self.number + 1, []
        return self.env.reset(seed=derive(self.root, self.number), options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, which is remembered."""
        self.actions.append(np.array(action))
        return self.env.step(action)


def saved(model: BaseAlgorithm) -> dict[str, Any]:
    """All but the policy's networks."""
    _, variables = model._get_torch_save_params()
    name, keys, *rest = np.random.get_state()
    tree = {
        "parameters": {name: value for name, value in model.get_parameters().items() if name != "policy"},
        "variables": {name: getattr(model, name).detach() for name in variables},
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
        held = buffer.buffer_size if buffer.full else buffer.pos
        rows = {name: _tensors(getattr(buffer, name), held) for name in BUFFER}
        tree["buffer"] = {"pos": buffer.pos, "full": buffer.full, "rows": rows}
    return tree


def restore(model: BaseAlgorithm, tree: dict[str, Any]) -> None:
    """Let a model that has begun go on from there, and play its games up to where they were.

    Raises:
        UsageError: a game goes another way than before.
    """
    model.set_parameters({**tree["parameters"], "policy": model.policy.state_dict()})
    with torch.no_grad():
        for name, value in tree["variables"].items():
            getattr(model, name).copy_(value)
    for name, value in tree["counts"].items():
        setattr(model, name, value)
    model.logger.name_to_value.update(tree["logged"])
    model._last_obs, model._last_episode_starts = _arrays(tree["obs"]), _arrays(tree["starts"])
    if "buffer" in tree:
        buffer = model.replay_buffer
        buffer.pos, buffer.full = tree["buffer"]["pos"], tree["buffer"]["full"]
        for name, value in tree["buffer"]["rows"].items():
            _fill(getattr(buffer, name), value)
    for i, (monitor, game) in enumerate(zip(model.env.envs, tree["games"], strict=True)):
        monitor.env.root, monitor.env.number = game["root"], game["number"] - 1
        obs = monitor.reset()[0]
        for action in _arrays(game["actions"]):
            obs = monitor.step(action)[0]
        seen = model._last_obs
        parts = [(obs, seen)] if isinstance(seen, np.ndarray) else [(obs[name], seen[name]) for name in seen]
        if not all(np.array_equal(part, before[i]) for part, before in parts):
            raise UsageError(
                "the env does not repeat a game from the same seed and actions, so this run cannot go on: start again"
            )
    numbers = tree["numpy"]
    np.random.set_state((numbers["name"], numbers["keys"].numpy().astype(np.uint32), *numbers["rest"]))
    model.action_space.np_random.bit_generator.state = tree["actions"]


def _game(env: Repeatable) -> dict[str, Any]:
    actions = np.stack(env.actions) if env.actions else np.empty((0, *env.action_space.shape))
    return {"root": env.root, "number": env.number, "actions": torch.from_numpy(actions)}


def _tensors(value: Any, rows: int | None = None) -> Any:
    """The first rows of an array, or of a dict of them."""
    if isinstance(value, dict):
        return {name: _tensors(part, rows) for name, part in value.items()}
    return torch.from_numpy(value[:rows])


def _arrays(value: Any) -> Any:
    return {name: _arrays(part) for name, part in value.items()} if isinstance(value, dict) else value.cpu().numpy()


def _fill(target: Any, value: Any) -> None:
    if isinstance(target, dict):
        for name, part in target.items():
            _fill(part, value[name])
    else:
        target[: len(value)] = value.cpu().numpy()
