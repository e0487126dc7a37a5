"""Tuned settings of DQN."""

from __future__ import annotations

from typing import Any

from rlgan.specs import Preset, tuned


def rainbow(preset: dict[str, Any], low: float, high: float, sigma: float) -> dict[str, Any]:
    """All flags at once, for returns from low to high; noise explores in place of random actions."""
    flags = dict.fromkeys(("agent.double", "agent.dueling", "agent.prioritised", "agent.noisy"), True)
    quiet = {"agent.epsilon_start": 0.0, "agent.epsilon_end": 0.0, "agent.noisy_sigma": sigma}
    return preset | flags | quiet | {"agent.n_step": 3, "agent.head": "c51", "agent.v_min": low, "agent.v_max": high}


CLASSIC = tuned(
    50_000, 8, lr=1e-3, lr_end=0.0, train_every=8, updates=4, sync_every=1, tau=0.01, epsilon_steps=5_000, double=True
)
# with one step 6 of 20 seeds ended below 475, four of them after 500
CARTPOLE = CLASSIC | {"agent.n_step": 3}
CARTPOLE_ZOO = tuned(
    steps=50_000,
    copies=64,
    lr=2.3e-3,
    capacity=100_000,
    train_every=256,
    updates=128,
    sync_every=128,
    epsilon_end=0.04,
    epsilon_steps=8_000,
    hidden=(256, 256),
)
BRICKS = tuned(
    steps=100_000,
    copies=32,
    lr=5e-4,
    lr_end=0.1,
    gamma=0.97,
    batch_size=32,
    capacity=100_000,
    learning_starts=2_000,
    epsilon_end=0.02,
    epsilon_steps=20_000,
    n_step=3,
    double=True,
)
MOUNTAINCAR = tuned(
    steps=120_000,
    copies=1,
    lr=4e-3,
    gamma=0.98,
    batch_size=128,
    capacity=10_000,
    train_every=16,
    updates=8,
    sync_every=300,
    epsilon_end=0.07,
    epsilon_steps=24_000,
    hidden=(256, 256),
)
LUNARLANDER = tuned(
    steps=100_000,
    copies=4,
    lr=6.3e-4,
    batch_size=128,
    updates=4,
    epsilon_end=0.1,
    epsilon_steps=12_000,
    hidden=(256, 256),
)
ACROBOT = CLASSIC | {"copies": 16, "agent.train_every": 16, "agent.updates": 8, "agent.hidden": (64, 64)}
ATARI = tuned(
    10_000_000, 16, lr=1e-4, batch_size=32, train_every=4, epsilon_end=0.01, epsilon_eval=0.01, clip_reward=True
)
BREAKOUT_1M = ATARI | tuned(
    steps=1_000_000,
    copies=16,
    adam_eps=1.5e-4,
    double=True,
    n_step=3,
    capacity=100_000,
    learning_starts=20_000,
    train_every=8,
    epsilon_steps=100_000,
)
CLEANRL = ATARI | tuned(
    10_000_000, 16, capacity=1_000_000, learning_starts=80_000, epsilon_steps=1_000_000, sync_every=250, loss="mse"
)
PRESETS = (
    Preset("cartpole", "cartpole", CARTPOLE, True, "expect 475 or more of 500 at the end, in about 20 seconds"),
    Preset("cartpole-zoo", "cartpole", CARTPOLE_ZOO, False, "the settings of RL-Zoo, for comparisons of speed"),
    Preset("bricks", "bricks", BRICKS, True, "random play scores 0.4; expect 10 bricks a game by 40k steps"),
    Preset("acrobot", "acrobot", ACROBOT, True, "random play scores -499; expect -92 to -79, in a minute or two"),
    Preset(
        "mountaincar", "mountaincar", MOUNTAINCAR, True, "the settings of RL-Zoo; expect -140 to -110, random play -200"
    ),
    Preset("lunarlander", "gym:LunarLander-v3", LUNARLANDER, True, "nearly RL-Zoo's settings, which score 154"),
    Preset("breakout-1m", "breakout", BREAKOUT_1M, True, "random play scores 1.7; expect 3 by 200k, 15 by 450k"),
    Preset("rainbow", "breakout", rainbow(BREAKOUT_1M, -10.0, 10.0, 0.5), False, "all flags, over 1M steps"),
    Preset("rainbow", "cartpole", rainbow(CARTPOLE, 0.0, 100.0, 0.1), False, "all flags; expect 475 or more"),
    Preset("cleanrl", "breakout", CLEANRL, False, "CleanRL's 10M-step protocol, 7.1 GB of replay; expect 367"),
)
