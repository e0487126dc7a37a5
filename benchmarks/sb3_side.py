"""The peer's side of `vs_sb3.py`: one stable-baselines3 run in a process of its own, which prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ale_py
import gymnasium
import numpy as np
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecFrameStack


class Clock(BaseCallback):
    """Reads the time each time a round of ``period`` steps is complete, so that a slope covers whole rounds."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        self.marks: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps % self.period == 0:
            self.marks.append((self.num_timesteps, time.perf_counter()))
        return True

    def slope(self, warm: int) -> float:
        steady = [mark for mark in self.marks if mark[0] >= warm]
        (step, began), (last, ended) = steady[0], steady[-1]
        return (last - step) / (ended - began)


def cartpole() -> DQN:
    """The zoo's settings for CartPole-v1."""
    return DQN(
        "MlpPolicy",
        gymnasium.make("CartPole-v1"),
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1000,
        gamma=0.99,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs={"net_arch": [256, 256]},
        seed=0,
        device="cpu",
    )


def breakout(learning_starts: int, steps: int) -> DQN:
    """The zoo's settings for Atari games, but that exploration has ended when learning starts, as on the other side."""
    gymnasium.register_envs(ale_py)
    env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs=1, seed=0), n_stack=4)
    return DQN(
        "CnnPolicy",
        env,
        learning_rate=1e-4,
        batch_size=32,
        buffer_size=100_000,
        learning_starts=learning_starts,
        target_update_interval=1000,
        train_freq=4,
        gradient_steps=1,
        exploration_fraction=learning_starts / steps,
        exploration_final_eps=0.01,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
        seed=0,
        device="cpu",
    )


def sac() -> SAC:
    """The zoo's settings for Pendulum-v1."""
    return SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), learning_rate=1e-3, seed=0, device="cpu")


def halfcheetah(learning_starts: int) -> SAC:
    """The zoo's settings for HalfCheetah, which are the defaults, but for the start of learning."""
    env = gymnasium.make("HalfCheetah-v5")
    return SAC("MlpPolicy", env, learning_starts=learning_starts, seed=0, device="cpu")


def td3(learning_starts: int) -> TD3:
    """The zoo's settings for Pendulum-v1, but for the start of learning."""
    return TD3(
        "MlpPolicy",
        gymnasium.make("Pendulum-v1"),
        learning_rate=1e-3,
        gamma=0.98,
        buffer_size=200_000,
        learning_starts=learning_starts,
        train_freq=1,
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        policy_kwargs={"net_arch": [400, 300]},
        seed=0,
        device="cpu",
    )


def falling(start: float) -> Callable[[float], float]:
    """A schedule that falls linearly to 0: its argument is the share of the run that is left."""
    return lambda left: left * start


def ppo_cartpole() -> PPO:
    """The zoo's settings for CartPole-v1."""
    return PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=8, seed=0),
        n_steps=32,
        batch_size=256,
        gae_lambda=0.8,
        gamma=0.98,
        n_epochs=20,
        ent_coef=0.0,
        learning_rate=falling(1e-3),
        clip_range=falling(0.2),
        seed=0,
        device="cpu",
    )


def a2c_cartpole() -> A2C:
    """The zoo's settings for CartPole-v1, which are the defaults with 8 copies."""
    return A2C("MlpPolicy", make_vec_env("CartPole-v1", n_envs=8, seed=0), ent_coef=0.0, seed=0, device="cpu")


def ppo_breakout() -> PPO:
    """The zoo's settings for Atari games."""
    gymnasium.register_envs(ale_py)
    env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs=8, seed=0), n_stack=4)
    return PPO(
        "CnnPolicy",
        env,
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        learning_rate=falling(2.5e-4),
        clip_range=falling(0.1),
        vf_coef=0.5,
        ent_coef=0.01,
        seed=0,
        device="cpu",
    )


def whole_process(model: BaseAlgorithm, steps: int) -> None:
    """Learn, play 20 games, save the model."""
    model.learn(steps)
    mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
    print(json.dumps({"return_mean": mean}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    rows = {
        "dqn-cartpole": (cartpole, 256),
        "dqn-breakout": (lambda: breakout(args.learning_starts, args.steps), 4),
        "sac-pendulum": (sac, 4),
        "sac-halfcheetah": (lambda: halfcheetah(args.learning_starts), 4),
        "td3-pendulum": (lambda: td3(args.learning_starts), 4),
        "ppo-cartpole": (ppo_cartpole, 256),
        "a2c-cartpole": (a2c_cartpole, 40),
        "ppo-breakout": (ppo_breakout, 1024),
    }
    # how each is made, and after how many steps a round of collecting and learning is complete
    whole = {"process-cartpole": cartpole, "process-ppo-cartpole": ppo_cartpole}
    parser.add_argument("row", choices=[*rows, *whole])
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True, help="steps before the slope is taken")
    parser.add_argument("--learning-starts", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row in whole:
        whole_process(whole[args.row](), args.steps)
        return
    make, period = rows[args.row]
    clock = Clock(period)
    make().learn(args.steps, callback=clock)
    print(json.dumps({"steps_per_s": clock.slope(args.warm)}))


if __name__ == "__main__":
    main()
