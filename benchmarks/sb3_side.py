"""The peer's side of `vs_sb3.py`: one stable-baselines3 run in a process of its own, which prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import ale_py
import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    rows = {
        "dqn-cartpole": cartpole,
        "dqn-breakout": lambda: breakout(args.learning_starts, args.steps),
        "sac-pendulum": sac,
        "td3-pendulum": lambda: td3(args.learning_starts),
    }
    parser.add_argument("row", choices=[*rows, "process-cartpole"])
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True, help="steps before the slope is taken")
    parser.add_argument("--learning-starts", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row == "process-cartpole":
        model = cartpole().learn(args.steps)
        mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=20)
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model")
        print(json.dumps({"return_mean": mean}))
        return
    clock = Clock(256 if args.row == "dqn-cartpole" else 4)
    rows[args.row]().learn(args.steps, callback=clock)
    print(json.dumps({"steps_per_s": clock.slope(args.warm)}))


if __name__ == "__main__":
    main()
