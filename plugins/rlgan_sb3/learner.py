"""A model of stable-baselines3 as an agent: it collects and learns by its own code, in envs of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium.spaces import Box, Dict
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from rlgan import gym
from rlgan.core import seeding
from rlgan.core.protocols import Batch, Observation, Own, Phase, Spaces
from rlgan.errors import UsageError
from rlgan.store.state import MISFIT, reason
from rlgan_sb3 import loop

METRICS = {
    "dqn": ("loss",),
    "ppo": ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction"),
    "a2c": ("policy_loss", "value_loss", "entropy_loss"),
    "sac": ("actor_loss", "critic_loss", "ent_coef"),
    "td3": ("actor_loss", "critic_loss"),
    "ddpg": ("actor_loss", "critic_loss"),
}
"""What stable-baselines3 logs of each algorithm's updates and a run records."""
SMALLEST = 36
"""Side of the smallest images that its convolutions fit."""


class SB3:
    """Satisfies Agent; ``update`` makes one iteration of the model's own loop.

    It trains in single Gymnasium envs of the run's kind, one after the other, as its users run it.
    """

    def __init__(self, name: str, spaces: Spaces, config: Any, device: torch.device) -> None:
        self.name, self.spaces, self.config, self.device = name, spaces, config, device
        self.model = self._model(DummyVecEnv([lambda: Shown(spaces)] * spaces.copies), seed=None)
        if self.model.observation_space != spaces.observation:
            raise UsageError(
                f"agent=sb3.{name} wants the channels of images first, env={spaces.env} shows {spaces.observation}"
            )
        self.games = Games()
        self.begun = False
        self.left: dict[str, Any] | None = None
        """Where a loaded checkpoint left the loop, until it goes on; empty where the checkpoint is older than that."""

    def carry(self, n: int) -> None:
        """No recurrent state."""

    def act(self, obs: Observation, carry: None, step: Tensor, explore: bool) -> tuple[Batch, None]:
        """The policy's action; in evaluation without noise."""
        policy, space = self.model.policy, self.spaces.action
        action = policy._predict(obs, deterministic=not explore)
        if isinstance(space, Box):
            low, high = (torch.as_tensor(bound, device=self.device) for bound in (space.low, space.high))
            if policy.squash_output:  # in -1 to 1
                action = low + 0.5 * (action + 1) * (high - low)
            action = torch.minimum(torch.maximum(action, low), high)
        return {"action": action}, None

    def phases(self) -> list[Phase]:
        """One phase, by the model's own loop."""
        return [Phase("train", Own(), self.update)]

    def update(self, batch: Batch) -> dict[str, Any]:
        """Collect as much as the model does at a time, and let it learn from it: one round of its ``learn``."""
        model, games = self.model, self.games
        if not self.begun:
            model = self._begin()
            self.begun = True
        before, games.ended = model.num_timesteps, []
        if isinstance(model, OnPolicyAlgorithm):
            model.collect_rollouts(model.env, games, model.rollout_buffer, model.n_steps)
            model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
            model.train()
        else:
            collected = model.collect_rollouts(
                model.env,
                train_freq=model.train_freq,
                action_noise=model.action_noise,
                callback=games,
                learning_starts=model.learning_starts,
                replay_buffer=model.replay_buffer,
            )
            updates = collected.episode_timesteps if model.gradient_steps < 0 else model.gradient_steps
            if model.num_timesteps > model.learning_starts and updates:
                model.train(batch_size=model.batch_size, gradient_steps=updates)
        return {"steps": model.num_timesteps - before, "games": games.ended, **self._metrics()}

    def _metrics(self) -> dict[str, Tensor]:
        """What the model logged, once it has logged all of it."""
        logged = self.model.logger.name_to_value
        names = METRICS[self.name]
        if any(f"train/{name}" not in logged for name in names):
            return {}
        return {name: torch.tensor(float(logged[f"train/{name}"]), device=self.device) for name in names}

    def _begin(self) -> BaseAlgorithm:
        """Make the envs and the model that learns in them, from a seed that the run's random numbers give, or go on."""
        if self.left is None:
            return self._made(int(torch.randint(2**31, ())))
        if not self.left:
            raise UsageError(
                "this run's checkpoint is from before stable-baselines3's loops were saved: start it again, or take "
                "what it has learned with `rlgan eval`"
            )
        policy = self.model.policy.state_dict()
        before = seeding.state_dict(self.device)
        model = self._made(0)
        model.policy.load_state_dict(policy)
        try:
            loop.restore(model, self.left)
        except MISFIT as error:
            raise UsageError(
                f"the loop of stable-baselines3 that was saved does not fit the run's settings ({reason(error)}): put "
                "back those that it was made with"
            ) from error
        seeding.load_state_dict(before, self.device)
        self.left = None
        return model

    def _made(self, seed: int) -> BaseAlgorithm:
        self.model = model = self._model(DummyVecEnv([self._env] * self.spaces.copies), seed)
        model.set_logger(Logger(None, []))
        _, callback = model._setup_learn(self.spaces.steps, self.games)
        callback.on_training_start({}, {})
        return model

    def _env(self) -> gymnasium.Env:
        return Monitor(loop.Repeatable(self.spaces.env, gym.make_env(self.spaces.env, **self.spaces.settings)))

    def _model(self, envs: DummyVecEnv, seed: int | None) -> BaseAlgorithm:
        arguments = asdict(self.config)
        for name in ("learning_rate", "clip_range"):
            if (end := arguments.pop(f"{name}_end", 1.0)) < 1.0:
                arguments[name] = falling(arguments[name], end)
        widths, noise = list(arguments.pop("net_arch")), arguments.pop("action_noise", 0.0)
        if widths:
            arguments["policy_kwargs"] = {"net_arch": widths}
        if noise:
            size = self.spaces.action.shape
            arguments["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, noise))
        if arguments.get("ent_coef", 0.0) is None:
            arguments["ent_coef"] = "auto"
        if seed is None and "buffer_size" in arguments:
            arguments["buffer_size"] = 1  # it only plays
        algorithm = getattr(stable_baselines3, self.name.upper())
        return algorithm(policy_of(self.spaces.observation), envs, seed=seed, device=self.device, **arguments)

    def state_dict(self) -> dict[str, Any]:
        """The networks, and what the loop goes on with once it has begun."""
        return {
            "policy": dict(self.model.policy.state_dict()),
            "loop": loop.saved(self.model) if self.begun else self.left,
        }

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy saved networks in; the loop goes on from there at its next round."""
        self.model.policy.load_state_dict(tree["policy"])
        self.left, self.begun = tree.get("loop", {}), False


class Shown(gymnasium.Env):
    """An env of which a model sees nothing but the spaces."""

    def __init__(self, spaces: Spaces) -> None:
        self.observation_space, self.action_space = spaces.observation, spaces.action


class Games(BaseCallback):
    """Notes the return and the length of each game that ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[float, int]] = []

    def _on_step(self) -> bool:
        self.ended += [
            (info["episode"]["r"], info["episode"]["l"]) for info in self.locals["infos"] if "episode" in info
        ]
        return True


def policy_of(space: gymnasium.Space) -> str:
    """Which networks fit the observations."""
    if isinstance(space, Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(space) and min(space.shape[1:]) >= SMALLEST else "MlpPolicy"


def falling(start: float, end: float) -> Callable[[float], float]:
    """From ``start`` to its fraction ``end``, linearly in the share of the run that is left."""
    return lambda left: start * (end + left * (1 - end))
