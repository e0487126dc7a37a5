"""stable-baselines3's algorithms as agents: their settings under its own names, and those of RL-Zoo as presets.

It is imported when an agent is made, so that names and settings are judged without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from rlgan.core.protocols import Spaces
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.specs import AgentSpec, Preset

Fraction = Annotated[float, Interval(ge=0.0, le=1.0)]
Count = Annotated[int, Gt(0)]
Positive = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Common:
    """Settings that all have."""

    learning_rate: Positive = 3e-4
    """Step size of the optimiser."""
    learning_rate_end: Fraction = 1.0
    """Fraction of learning_rate that is left at the end of the run, reached linearly; 1 keeps it constant."""
    gamma: Fraction = 0.99
    """Discount per step."""
    net_arch: tuple[int, ...] = ()
    """Widths of the hidden layers; empty = stable-baselines3's own."""


@dataclass(frozen=True)
class OnPolicy(Common):
    """Settings of A2C and PPO."""

    n_steps: Count = 2048
    """Rows of each copy per rollout."""
    gae_lambda: Fraction = 0.95
    """How far advantages look ahead."""
    ent_coef: Weight = 0.0
    """Weight of the entropy bonus."""
    vf_coef: Weight = 0.5
    """Weight of the value's loss."""
    max_grad_norm: Positive = 0.5
    """Global norm to which gradients are clipped."""
    use_sde: bool = False
    """State-dependent exploration, for continuous actions."""
    sde_sample_freq: Annotated[int, Ge(-1)] = -1
    """Steps between new noise of it; -1 = once per rollout."""


@dataclass(frozen=True)
class PPOConfig(OnPolicy):
    """Settings of stable-baselines3's PPO."""

    batch_size: Annotated[int, Gt(1)] = 64
    """Rows per update."""
    n_epochs: Count = 10
    """Passes over each rollout."""
    clip_range: Positive = 0.2
    """How far the ratio of probabilities may move from 1."""
    clip_range_end: Fraction = 1.0
    """Fraction of clip_range that is left at the end of the run, reached linearly; 1 keeps it constant."""


@dataclass(frozen=True)
class A2CConfig(OnPolicy):
    """Settings of stable-baselines3's A2C."""

    learning_rate: Positive = 7e-4
    """Step size of RMSProp."""
    n_steps: Count = 5
    """Rows of each copy per rollout."""
    gae_lambda: Fraction = 1.0
    """How far advantages look ahead."""


@dataclass(frozen=True)
class OffPolicy(Common):
    """Settings of the agents with a replay."""

    buffer_size: Count = 1_000_000
    """Rows that the replay holds, summed over copies."""
    learning_starts: Annotated[int, Ge(0)] = 100
    """Steps before the first update."""
    batch_size: Count = 256
    """Rows per update."""
    tau: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.005
    """How far target networks move towards the online ones."""
    train_freq: Count = 1
    """Vector steps between bursts of updates."""
    gradient_steps: Annotated[int, Ge(-1)] = 1
    """Updates of one burst; -1 = as many as vector steps."""


@dataclass(frozen=True)
class DQNConfig(OffPolicy):
    """Settings of stable-baselines3's DQN."""

    learning_rate: Positive = 1e-4
    """Step size of Adam."""
    batch_size: Count = 32
    """Rows per update."""
    tau: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0
    """How far the target network moves towards the online one; 1 copies it."""
    train_freq: Count = 4
    """Vector steps between bursts of updates."""
    target_update_interval: Count = 10_000
    """Steps between moves of the target network."""
    exploration_fraction: Fraction = 0.1
    """Share of the run over which epsilon falls."""
    exploration_initial_eps: Fraction = 1.0
    """Share of random actions at the first step."""
    exploration_final_eps: Fraction = 0.05
    """Share of random actions at the end."""
    max_grad_norm: Positive = 10.0
    """Global norm to which gradients are clipped."""


@dataclass(frozen=True)
class SACConfig(OffPolicy):
    """Settings of stable-baselines3's SAC."""

    ent_coef: Positive | None = None
    """Temperature; none = learned."""


@dataclass(frozen=True)
class DDPGConfig(OffPolicy):
    """Settings of stable-baselines3's DDPG."""

    learning_rate: Positive = 1e-3
    """Step size of Adam."""
    action_noise: Weight = 0.1
    """Deviation of the normal noise in actions, whose range is -1 to 1."""


@dataclass(frozen=True)
class TD3Config(DDPGConfig):
    """Settings of stable-baselines3's TD3."""

    policy_delay: Count = 2
    """Updates of the critics for one of the actor."""
    target_policy_noise: Weight = 0.2
    """Deviation of the noise in the target's actions."""
    target_noise_clip: Weight = 0.5
    """What it is cut at."""


def make(name: str, spaces: Spaces, config: Any, device: Any) -> Any:
    """The agent of an algorithm, as stable-baselines3 has it. UsageError: its batch is larger than its replay."""
    if isinstance(config, OffPolicy) and config.batch_size > config.buffer_size:
        raise UsageError(
            f"a batch of {config.batch_size} rows is more than the {config.buffer_size} that the replay holds: lower "
            "agent.batch_size or raise agent.buffer_size"
        )
    from rlgan_sb3.learner import SB3

    return SB3(name, spaces, config, device)


def refuses(actions: str, observation: Space, action: Space) -> str | None:
    """Spaces that the algorithms do not take; ``actions`` is one of numbered, bounded and any."""
    if isinstance(observation, Dict) and "action_mask" in observation.spaces:
        return "stable-baselines3 knows no action masks"
    if isinstance(action, Discrete | MultiDiscrete) and (
        action.start != 0 if isinstance(action, Discrete) else action.start.any()
    ):
        return f"stable-baselines3 numbers actions from 0, this env takes {action}"
    kinds, words = {
        "numbered": ((Discrete,), "numbered actions"),
        "bounded": ((Box,), "a Box with bounds"),
        "any": ((Box, Discrete, MultiBinary, MultiDiscrete), "numbered actions, several of them, switches or a Box"),
    }[actions]
    if not isinstance(action, kinds) or (actions == "bounded" and not action.is_bounded()):
        return f"it takes {words}, this env takes {action}"
    parts = observation.spaces.values() if isinstance(observation, Dict) else [observation]
    if odd := [part for part in parts if not isinstance(part, Box | Discrete | MultiBinary | MultiDiscrete)]:
        return f"stable-baselines3 reads arrays and numbers, this env gives {odd[0]}"
    return None


NET = {"agent.net_arch": (256, 256)}
PENDULUM = {
    "steps": 20_000,
    "copies": 1,
    "agent.learning_rate": 1e-3,
    "agent.gamma": 0.98,
    "agent.buffer_size": 200_000,
    "agent.learning_starts": 10_000,
    "agent.net_arch": (400, 300),
}
LUNAR_DQN = NET | {
    "steps": 100_000,
    "copies": 1,
    "agent.learning_rate": 6.3e-4,
    "agent.batch_size": 128,
    "agent.buffer_size": 50_000,
    "agent.learning_starts": 0,
    "agent.target_update_interval": 250,
    "agent.gradient_steps": -1,
    "agent.exploration_fraction": 0.12,
    "agent.exploration_final_eps": 0.1,
}
ZOO: dict[str, dict[str, dict[str, Any]]] = {
    "dqn": {
        "cartpole": NET
        | {
            "steps": 50_000,
            "copies": 1,
            "agent.learning_rate": 2.3e-3,
            "agent.batch_size": 64,
            "agent.buffer_size": 100_000,
            "agent.learning_starts": 1_000,
            "agent.target_update_interval": 10,
            "agent.train_freq": 256,
            "agent.gradient_steps": 128,
            "agent.exploration_fraction": 0.16,
            "agent.exploration_final_eps": 0.04,
        },
        "mountaincar": NET
        | {
            "steps": 120_000,
            "copies": 1,
            "agent.learning_rate": 4e-3,
            "agent.batch_size": 128,
            "agent.buffer_size": 10_000,
            "agent.learning_starts": 1_000,
            "agent.gamma": 0.98,
            "agent.target_update_interval": 600,
            "agent.train_freq": 16,
            "agent.gradient_steps": 8,
            "agent.exploration_fraction": 0.2,
            "agent.exploration_final_eps": 0.07,
        },
        "acrobot": LUNAR_DQN,
        "lunarlander": LUNAR_DQN,
    },
    "ppo": {
        "cartpole": {
            "steps": 100_000,
            "copies": 8,
            "agent.learning_rate": 1e-3,
            "agent.learning_rate_end": 0.0,
            "agent.gamma": 0.98,
            "agent.n_steps": 32,
            "agent.gae_lambda": 0.8,
            "agent.batch_size": 256,
            "agent.n_epochs": 20,
            "agent.clip_range_end": 0.0,
        },
        "pendulum": {
            "steps": 100_000,
            "copies": 4,
            "agent.learning_rate": 1e-3,
            "agent.gamma": 0.9,
            "agent.n_steps": 1024,
            "agent.use_sde": True,
            "agent.sde_sample_freq": 4,
        },
        "lunarlander": {
            "steps": 1_000_000,
            "copies": 16,
            "agent.gamma": 0.999,
            "agent.n_steps": 1024,
            "agent.gae_lambda": 0.98,
            "agent.n_epochs": 4,
            "agent.ent_coef": 0.01,
        },
    },
    "a2c": {
        "cartpole": {"steps": 500_000, "copies": 8},
        "lunarlander": {
            "steps": 200_000,
            "copies": 8,
            "agent.learning_rate": 8.3e-4,
            "agent.learning_rate_end": 0.0,
            "agent.gamma": 0.995,
            "agent.ent_coef": 1e-5,
        },
    },
    "sac": {
        "pendulum": {"steps": 20_000, "copies": 1, "agent.learning_rate": 1e-3},
        "halfcheetah": {"steps": 1_000_000, "copies": 1, "agent.learning_starts": 10_000},
        "reacher": {"steps": 200_000, "copies": 1, "agent.learning_starts": 10_000},
    },
    "td3": {"pendulum": PENDULUM},
    "ddpg": {"pendulum": PENDULUM},
}
"""The settings of RL-Zoo (github.com/DLR-RM/rl-baselines3-zoo, commit 22e3ff2), by algorithm and env; reacher, which it
does not have, has those of its MuJoCo envs."""
ENVS = {
    "cartpole": ("cartpole", "gym:CartPole-v1"),
    "pendulum": ("pendulum", "gym:Pendulum-v1"),
    "acrobot": ("acrobot", "gym:Acrobot-v1"),
    "mountaincar": ("mountaincar", "gym:MountainCar-v0"),
    "lunarlander": ("gym:LunarLander-v3",),
    "halfcheetah": ("gym:HalfCheetah-v5",),
    "reacher": ("gym:Reacher-v5",),
}
"""The envs that a setting is for; where there are two, they are the same problem."""
ALGORITHMS = {
    "dqn": (DQNConfig, "numbered", "deep Q-learning"),
    "ppo": (PPOConfig, "any", "proximal policy optimisation"),
    "a2c": (A2CConfig, "any", "advantage actor-critic"),
    "sac": (SACConfig, "bounded", "soft actor-critic"),
    "td3": (TD3Config, "bounded", "twin delayed deterministic policy gradient"),
    "ddpg": (DDPGConfig, "bounded", "deep deterministic policy gradient"),
}


def presets(name: str) -> Iterable[Preset]:
    """The zoo's settings of an algorithm, the default ones of their envs."""
    for problem, values in ZOO[name].items():
        for env in ENVS[problem]:
            yield Preset(problem, env, values, True, "the settings of RL-Zoo")


@hookimpl
def rlgan_specs() -> Iterable[AgentSpec]:
    """Six algorithms."""
    for name, (config, actions, summary) in ALGORITHMS.items():
        yield AgentSpec(
            f"sb3.{name}",
            partial(make, name),
            config,
            f"{summary}, by stable-baselines3",
            partial(refuses, actions),
            extra="sb3",
            presets=tuple(presets(name)),
            tags=("peer",),
        )
