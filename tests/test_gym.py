"""rlgan's envs in Gymnasium: registered by name alone, NumPy, equal to the single env, usable by other libraries."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import rlgan.gym
from rlgan.errors import UsageError
from rlgan.gym import make_env, make_vector

SHOP = str(Path(__file__).with_name("shop.py"))
needs_ale = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale-py is not installed")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_are_registered_and_no_plugin_is_imported() -> None:
    program = (
        "import sys, gymnasium, rlgan.gym\n"
        "print(*sorted(id for id in gymnasium.registry if id.startswith('rlgan/')))\n"
        "print([name for name in sys.modules if name.startswith('rlgan_')])\n"
    )
    ids, modules = run(program).splitlines()
    assert {"rlgan/cartpole-v0", "rlgan/breakout-v0", "rlgan/gym-v0"} <= set(ids.split())
    assert modules == "[]"


def test_make_needs_no_import_of_ours() -> None:
    program = (
        "import gymnasium\n"
        "print(gymnasium.make('rlgan.gym:rlgan/cartpole-v0', max_steps=7).reset(seed=1)[0].shape)\n"
        "print(gymnasium.make_vec('rlgan/cartpole-v0', 3).reset(seed=1)[0].shape)\n"
    )
    assert run(program) == "(4,)\n(3, 4)\n"


def checked(env: gymnasium.Env) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # cart-pole's velocities have no bounds; a file's env has no id
        warnings.filterwarnings("ignore", message=".*not having a spec")
        warnings.filterwarnings("ignore", message=".*Box observation space (min|max)imum value is -?infinity")
        check_env(env)


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_the_single_env_passes_gymnasiums_checker(render_mode: str | None) -> None:
    if render_mode:
        pytest.importorskip("cv2")
    checked(gymnasium.make("rlgan/cartpole-v0", render_mode=render_mode).unwrapped)


def test_other_kinds_pass_it_too() -> None:
    checked(make_env(SHOP, shelf=4))
    checked(gymnasium.make("rlgan/gym-v0", argument="MountainCar-v0").unwrapped)


def test_the_single_env_passes_the_peers_checker() -> None:
    peer = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peer.check_env(gymnasium.make("rlgan/cartpole-v0").unwrapped)
        peer.check_env(make_env(SHOP))


def same(one: Any, other: Any) -> None:
    np.testing.assert_array_equal(one, other)
    assert np.asarray(one).dtype == np.asarray(other).dtype


def assert_same_rows(vector: Any, sync: Any, seed: Any, steps: int, starts_only: bool = False) -> int:
    """Step both by the same actions and return how many episodes began after the first ones."""
    same(vector.reset(seed=seed)[0], sync.reset(seed=seed)[0])
    actions, ended, begun = np.random.default_rng(0), np.zeros(vector.num_envs, bool), 0
    for _ in range(steps):
        action = actions.integers(vector.single_action_space.n, size=vector.num_envs)
        rows = vector.step(action), sync.step(action)
        if starts_only:
            same(rows[0][0][ended], rows[1][0][ended])
        else:
            for one, other in zip(rows[0][:4], rows[1][:4], strict=True):
                same(one, other)
        begun += int(ended.sum())
        ended = rows[0][2] | rows[0][3]
    return begun


def sync(n: int, *args: Any, **kwargs: Any) -> gymnasium.vector.SyncVectorEnv:
    return gymnasium.vector.SyncVectorEnv([lambda: make_env(*args, **kwargs)] * n)


@pytest.mark.parametrize("seed", [3, [5, 9, 5, 0, 2**31]])
def test_the_vector_equals_sync_of_the_single_env(seed: Any) -> None:
    vector = gymnasium.make_vec("rlgan/cartpole-v0", 5, max_steps=25)
    single = gymnasium.make_vec("rlgan/cartpole-v0", 5, max_steps=25, vectorization_mode="sync")
    assert vector.metadata["autoreset_mode"] == single.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert type(vector.unwrapped) is rlgan.gym.DeviceVector
    assert assert_same_rows(vector, single, seed, 200) > 20


def test_random_steps_one_copy_is_the_single_env() -> None:
    assert assert_same_rows(make_vector(SHOP, 1), sync(1, SHOP), 7, 200) == 6


def test_random_steps_many_copies_start_as_the_single_env() -> None:
    vector, single = make_vector(SHOP, 6), sync(6, SHOP)
    assert assert_same_rows(vector, single, 7, 200, starts_only=True) == 36
    vector.reset(seed=7), single.reset(seed=7)
    action = np.zeros(6, np.int64)
    assert any((vector.step(action)[0] != single.step(action)[0]).any() for _ in range(10)), "other draws within steps"


def test_seeds_decide_everything_and_nothing_else_does() -> None:
    before = torch.get_rng_state()
    env = make_env(SHOP)
    plays = []
    for seed in (1, 1, 2):
        start = env.reset(seed=seed)[0]
        plays.append([start, *(env.step(2)[0] for _ in range(40)), env.reset()[0]])
    assert np.array_equal(plays[0], plays[1]) and not np.array_equal(plays[0], plays[2])
    assert torch.equal(before, torch.get_rng_state())
    unseeded = {float(make_env("cartpole").reset()[0][0]) for _ in range(3)}
    assert len(unseeded) == 3


def test_observations_belong_to_the_caller() -> None:
    one, other = make_env("cartpole"), make_env("cartpole")
    one.reset(seed=0)[0][:], _ = 99.0, other.reset(seed=0)
    same(one.step(1)[0], other.step(1)[0])


def test_time_limits() -> None:
    vector = make_vector("cartpole", 2, max_episode_steps=3)
    vector.reset(seed=0)
    assert [bool(vector.step(np.array([i % 2] * 2))[3].all()) for i in range(3)] == [False, False, True]


@needs_ale
def test_a_lost_life_is_no_end() -> None:
    env = gymnasium.make("rlgan/breakout-v0").unwrapped
    env.reset(seed=0)
    lives, ended, seen = [], False, 0
    while not ended:
        _, _, terminated, truncated, _ = env.step(3)
        lives.append(int(env.vector.env._lives[0]))
        ended, seen = terminated or truncated, seen + 1
    assert sorted(set(lives), reverse=True) == [5, 4, 3, 2, 1, 0] and lives[-1] == 0
    assert env.reset(seed=0)[0].shape == (4, 84, 84)
    checked(env)


@needs_ale
def test_the_simulators_vector_equals_sync_of_the_single_env() -> None:
    settings = {"noops": 1, "threads": 1}
    vector = gymnasium.make_vec("rlgan/pong-v0", 2, **settings)
    assert_same_rows(vector, sync(2, "pong", **settings), 4, 30)


class SameStep(gymnasium.vector.VectorEnv):
    """Counts to 2; resets within the step that ends."""

    def __init__(self, copies: int) -> None:
        self.num_envs, self.count = copies, np.zeros((copies, 1), np.float32)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = gymnasium.spaces.Box(0, 2, (1,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.spaces.Box(0, 2, (copies, 1), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete([2] * copies)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.count = np.zeros((self.num_envs, 1), np.float32)
        return self.count, {}

    def step(self, actions: Any) -> Any:
        final = self.count + 1
        end = final[:, 0] == 2
        self.count = np.where(end[:, None], 0, final).astype(np.float32)
        return self.count, final[:, 0], end, np.zeros_like(end), {"final_obs": final}


def test_the_last_observation_of_a_simulator_that_resets_within_a_step() -> None:
    env = rlgan.gym.Single(rlgan.gym.HostVector(SameStep(1), None), None)
    assert env.reset(seed=0)[0] == 0
    assert env.step(0)[:3] == (1, 1.0, False)
    assert env.step(0)[:3] == (2, 2.0, True)
    assert env.reset()[0] == 0


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("cartpole", {"max_stepz": 3}, "unknown key 'env.max_stepz': did you mean 'env.max_steps'"),
        ("cartpole", {"render_mode": "human"}, "render_mode='human': rlgan's envs draw with render_mode='rgb_array'"),
        ("cartpole", {"argument": "x"}, "env 'cartpole' takes nothing after a colon"),
        ("gym", {}, "env 'gym' is a family: write env=gym:NAME."),
        (SHOP, {"render_mode": "rgb_array"}, "draws no pictures: leave render_mode out"),
        ("gym", {"argument": "CartPole-v1", "max_episode_steps": 3}, "keeps its own time limit"),
    ],
)
def test_what_cannot_be_made(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        make_vector(name, 2, **settings)
    assert sentence in str(error.value)


def test_wrong_calls() -> None:
    vector, single = make_vector("cartpole", 2), make_env("cartpole")
    single.reset(seed=0)
    with pytest.raises(UsageError, match=r"the actions array\(\[0, 2\]\) are none of MultiDiscrete"):
        vector.step(np.array([0, 2]))
    with pytest.raises(UsageError, match="are none of MultiDiscrete"):
        single.step(2)
    with pytest.raises(UsageError, match="3 seeds for 2 copies"):
        vector.reset(seed=[1, 2, 3])
    with pytest.raises(UsageError, match="leave out reset_mask"):
        vector.reset(options={"reset_mask": np.array([True, False])})


def test_the_peer_learns_in_our_env() -> None:
    """stable-baselines3's DQN, a little: it sees whole episodes whose return is their length, and its network moves."""
    peer = pytest.importorskip("stable_baselines3")
    model = peer.DQN(
        "MlpPolicy",
        gymnasium.make("rlgan.gym:rlgan/cartpole-v0"),
        learning_starts=100,
        buffer_size=1_000,
        policy_kwargs={"net_arch": [16]},
        seed=0,
        device="cpu",
    )
    before = [parameter.clone() for parameter in model.q_net.parameters()]
    model.learn(600)
    episodes = list(model.ep_info_buffer)
    assert len(episodes) > 10 and all(8 <= episode["l"] == episode["r"] for episode in episodes)
    assert sum(episode["l"] for episode in episodes) <= 600
    moved = [not torch.equal(a, b) for a, b in zip(before, model.q_net.parameters(), strict=True)]
    assert all(moved) and all(bool(p.isfinite().all()) for p in model.q_net.parameters())
