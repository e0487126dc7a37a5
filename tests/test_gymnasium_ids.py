from __future__ import annotations

import copy

import gymnasium
import numpy as np
import pytest
import torch

from rlgan import evaluate
from rlgan.errors import EnvError, PluginError, UsageError
from rlgan.simulators.host import HostVecEnv
from rlgan_envs import gymnasium_ids
from rlgan_envs.gymnasium_ids import GymConfig, make


def host(argument: str, copies=3, mode="sync", barrier=0, render=False) -> HostVecEnv:
    def factory(n):
        return make(GymConfig(mode), argument, n, render)

    return HostVecEnv(factory, copies, "cpu", seed=5, barrier=barrier, timeout=60, name=f"gym:{argument}")


def sample(env: HostVecEnv, row: int) -> torch.Tensor:
    space = env.single_action_space
    space.seed(row)
    return torch.from_numpy(np.stack([space.sample() for _ in range(env.num_envs)]))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_rows_equal_gymnasiums_own(mode):
    peer = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    env = host("CartPole-v1", mode=mode)
    seed = int(np.random.SeedSequence(5, spawn_key=(0, 0)).generate_state(1)[0]) >> 2
    assert np.array_equal(env.start(0).numpy(), peer.reset(seed=seed)[0])
    ended = np.zeros(3, bool)
    for row in range(120):
        action = sample(env, row)
        env.send(0, action)
        step = env.receive(0)
        obs, reward, terminated, truncated, _ = peer.step(action.numpy())
        assert np.array_equal(step["obs"].numpy(), obs) and np.array_equal(step["reward"].numpy(), reward)
        assert np.array_equal(step["terminated"].numpy(), terminated)
        assert np.array_equal(step["valid"].numpy(), ~ended) and np.array_equal(step["first"].numpy(), ended)
        ended = terminated | truncated
    assert env.max_steps == 500 and env.statistics.take()["episodes"] > 8
    env.close()
    peer.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("argument", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_resume_by_replay_is_exact(argument, mode):
    env = host(argument, mode=mode, barrier=40)
    env.start(0)
    for row in range(65):
        env.send(0, sample(env, row))
        if row < 64:
            env.receive(0)
    saved = copy.deepcopy(env.state_dict())
    resumed = host(argument, mode=mode, barrier=40)
    resumed.load_state_dict(saved)
    for row in range(65, 130):
        one, two = env.receive(0), resumed.receive(0)
        assert all(torch.equal(one[key], two[key]) for key in one)
        for each in (env, resumed):
            each.send(0, sample(env, row))
    env.close()
    resumed.close()


def test_box_actions_are_clipped_and_left_as_they_are():
    env, peer = host("Pendulum-v1"), host("Pendulum-v1")
    env.start(0), peer.start(0)
    for row in range(20):
        wild = torch.tensor([[9.0], [-9.0], [1.0]]) * (1 if row % 2 else -1)
        kept = wild.clone()
        env.send(0, wild)
        peer.send(0, wild.clamp(-2, 2))
        one, two = env.receive(0), peer.receive(0)
        assert torch.equal(one["reward"], two["reward"]) and torch.equal(wild, kept)
    env.close(), peer.close()


@pytest.mark.parametrize(
    ("argument", "shape", "dtype"),
    [("FrozenLake-v1", (), "int64"), ("Blackjack-v1", (45,), "int64"), ("Pendulum-v1", (3,), "float32")],
)
def test_spaces(argument, shape, dtype):
    env = host(argument, copies=2)
    start = env.start(0)
    assert start.shape == (2, *shape) and str(start.dtype) == f"torch.{dtype}"
    env.send(0, sample(env, 0))
    assert env.receive(0)["obs"].shape == (2, *shape)
    env.close()


def test_an_envs_own_vector_class():
    env = host("CartPole-v1", mode="vector_entry_point")
    env.start(0)
    valid = []
    for row in range(60):
        env.send(0, sample(env, row))
        valid.append(env.receive(0)["valid"])
    assert 0 < (~torch.stack(valid)).sum() < 15
    env.close()
    with pytest.raises(UsageError, match=r"FrozenLake-v1 has no vector class .* use env\.vectorization=sync or async"):
        make(GymConfig("vector_entry_point"), "FrozenLake-v1", 2)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_arguments_of_the_env_and_a_limit_of_ones_own(mode):
    env = make(GymConfig(mode, max_steps=3, kwargs=("is_slippery=false", "map_name=8x8")), "FrozenLake-v1", 2)
    assert env.single_observation_space.n == 64 and env.max_steps == 3
    obs, _ = env.reset(seed=0)
    # to the right without slipping, and cut off after three steps
    for step in range(1, 4):
        obs, _, terminated, truncated, _ = env.step(np.array([2, 2]))
        assert obs.tolist() == [step, step] and not terminated.any() and truncated.tolist() == [step == 3] * 2
    env.close()


def test_an_own_vector_class_takes_them_too():
    config = GymConfig("vector_entry_point", max_steps=4, kwargs=("sutton_barto_reward=true",))
    env = make(config, "CartPole-v1", 2)
    env.reset(seed=0)
    rows = [env.step(np.array([0, 1])) for _ in range(4)]
    assert not any(row[1].any() for row in rows) and [row[3].tolist() for row in rows] == [[False] * 2] * 3 + [
        [True] * 2
    ]
    env.close()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("slippery", r"env.kwargs has 'slippery': write name=value, as in env.kwargs=\[is_slippery=false\]"),
        ("2x=1", "env.kwargs has '2x=1': write name=value"),
        ("a={:", "'a={:' in env.kwargs is not YAML: while parsing a flow node"),
        ("a=!!timestamp x", "'a=!!timestamp x' in env.kwargs is not YAML: "),
    ],
)
def test_arguments_that_are_none(text, sentence):
    with pytest.raises(UsageError, match=sentence):
        make(GymConfig(kwargs=(text,)), "FrozenLake-v1", 1)
    with pytest.raises(EnvError, match=r"cannot be made: TypeError: .* unexpected keyword argument 'slip'"):
        make(GymConfig(kwargs=("slip=1",)), "FrozenLake-v1", 1)


def test_a_game_that_nothing_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(evaluate, "ENDLESS", 50)

    def stay(obs, memory, step, explore):
        return {"action": torch.full((3,), 3)}, None  # against the wall

    with pytest.raises(
        EnvError, match=r"a game of gym:CliffWalking-v1 is not over after 50 steps, and nothing limits it"
    ):
        evaluate.play(host("CliffWalking-v1"), stay, lambda n: None, 3)


def test_a_package_that_registers_its_ids():
    pytest.importorskip("ale_py")
    env = host("ale_py:ALE/Breakout-v5", copies=1)
    assert env.start(0).shape == (1, 210, 160, 3)
    env.close()


def test_pictures():
    pytest.importorskip("pygame")
    env = host("CartPole-v1", copies=2, render=True)
    env.start(0)
    frame = env.frame(1)
    assert frame.shape == (400, 600, 3) and frame.dtype == np.uint8 and frame.min() < 10 and frame.max() == 255
    assert env.fps == 50
    env.close()


class Falls(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    made = 0

    def __init__(self, render_mode=None):
        self.index, Falls.made = Falls.made, Falls.made + 1

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.index == 2:
            raise RuntimeError("fell over")
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_env_that_draws_nothing_need_not_take_a_render_mode(mode):
    class Plain(Falls):
        def __init__(self):
            self.index = 0

    gymnasium.register("Plain-v0", Plain, disable_env_checker=True)
    try:
        env = host("Plain-v0", mode=mode)
        env.start(0)
        env.send(0, torch.zeros(3, dtype=torch.int64))
        assert env.receive(0)["reward"].tolist() == [0.0, 0.0, 0.0]
        env.close()
    finally:
        del gymnasium.registry["Plain-v0"]


@pytest.mark.filterwarnings("ignore:.*not in the possible render_modes")
def test_a_copy_that_raises_is_named():
    gymnasium.register("Falls-v0", Falls, disable_env_checker=True)
    try:
        env = host("Falls-v0")
        env.start(0)
        env.send(0, torch.zeros(3, dtype=torch.int64))
        with pytest.raises(EnvError, match="Env gym:Falls-v0 raised RuntimeError in copy 2 at row 0: fell over"):
            env.receive(0)
        env.close()
        with pytest.raises(UsageError, match="env=gym:Falls-v0 cannot be watched: it has no render mode rgb_array"):
            host("Falls-v0", render=True)
    finally:
        del gymnasium.registry["Falls-v0"]


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("CartPol-v1", "Gymnasium has no env 'CartPol-v1' among its [0-9]+. Nearest: CartPole-v1"),
        ("CartPole", "Gymnasium has no env 'CartPole' among its [0-9]+. Nearest: CartPole-v1"),
        ("CartPole-v7", "Gymnasium has no env 'CartPole-v7' among its [0-9]+. Nearest: CartPole-v1"),
        ("", "Gymnasium has no env '' .* as in env=gym:ale_py:ALE/Breakout-v5"),
        ("no_such:X-v0", "env=gym:no_such:X-v0 needs the package no_such, which fails to import: No module named"),
    ],
)
def test_unknown_ids(argument, sentence):
    with pytest.raises(UsageError, match=sentence):
        make(GymConfig(), argument, 1)


@pytest.mark.parametrize(
    ("argument", "extra"), [("Ant-v5", "mujoco"), ("LunarLander-v3", "box2d"), ("CartPole-v1", "classic")]
)
def test_missing_simulators_name_their_extra(argument, extra, monkeypatch):
    def missing(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("not here")

    monkeypatch.setattr(gymnasium, "make_vec", missing)
    with pytest.raises(PluginError, match=rf'env=gym:{argument} .* not installed: pip install "rlgan\[{extra}\]"'):
        make(GymConfig(), argument, 1)


def test_spec():
    (spec,) = gymnasium_ids.rlgan_specs()
    assert (spec.name, spec.family, spec.host, spec.extra, spec.config) == ("gym", True, True, None, GymConfig)
