"""stable-baselines3's algorithms as agents: its own learning bit for bit, runs and records, what it cannot do."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text

import rlgan
from rlgan import config, gym
from rlgan.cli.main import main
from rlgan.core.protocols import Spaces
from rlgan.errors import UsageError
from rlgan.registry import Registry
from rlgan_sb3.settings import ALGORITHMS, ZOO, refuses

sb3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: E402

from rlgan_sb3.learner import METRICS, SB3  # noqa: E402
from rlgan_sb3.loop import Repeatable  # noqa: E402

CPU = torch.device("cpu")
SMALL: dict[str, dict[str, Any]] = {
    "dqn": {"learning_starts": 100, "buffer_size": 1_000, "train_freq": 8, "gradient_steps": -1},
    "ppo": {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "learning_rate_end": 0.0, "clip_range_end": 0.5},
    "a2c": {"n_steps": 8},
    "sac": {"learning_starts": 100, "buffer_size": 1_000, "net_arch": (16, 16)},
    "td3": {"learning_starts": 100, "buffer_size": 1_000, "net_arch": (16, 16)},
    "ddpg": {"learning_starts": 100, "buffer_size": 1_000, "net_arch": (16, 16), "action_noise": 0.2},
}
ENV = {name: "pendulum" if ALGORITHMS[name][1] == "bounded" else "cartpole" for name in ALGORITHMS}


def made(name: str, env: str, steps: int, copies: int = 2) -> SB3:
    one = gym.make_env(env)
    spaces = Spaces(one.observation_space, one.action_space, steps, env=env, copies=copies)
    return SB3(name, spaces, ALGORITHMS[name][0](**SMALL[name]), CPU)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rounds_are_learn_bit_for_bit(name: str) -> None:
    """The same seed, by the model's own ``learn`` in the same envs."""
    steps, env = 320, ENV[name]
    torch.manual_seed(5)
    seed = int(torch.randint(2**31, ()))
    ours = made(name, env, steps)
    torch.manual_seed(5)
    done = 0
    while done < steps:
        done += ours.update({})["steps"]
    theirs = ours._model(DummyVecEnv([lambda: Monitor(Repeatable(env, gym.make_env(env)))] * 2), seed)
    theirs.learn(steps)
    assert theirs.num_timesteps == ours.model.num_timesteps == done
    tensors = ours.state_dict()["policy"]
    assert len(tensors) > 4
    for key, value in theirs.policy.state_dict().items():
        assert torch.equal(value, tensors[key]), key
    fresh = made(name, env, steps)
    fresh.load_state_dict(ours.state_dict())
    obs = np.stack([gym.make_env(env).reset(seed=i)[0] for i in range(5)])
    expected, _ = theirs.predict(obs, deterministic=True)
    action = fresh.act(torch.from_numpy(obs), None, torch.zeros(()), False)[0]["action"]
    np.testing.assert_allclose(action.detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("dqn", "gym:CartPole-v1"),
        ("ppo", "cartpole"),
        ("a2c", "gym:CartPole-v1"),
        ("sac", "pendulum"),
        ("td3", "gym:Pendulum-v1"),
        ("ddpg", "pendulum"),
    ],
)
def test_a_run_has_the_records_of_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, env: str
) -> None:
    settings = {f"agent.{key}": value for key, value in SMALL[name].items()}
    words = {"agent": f"sb3.{name}", "env": env, "preset": "none", "steps": 600, "copies": 2, "record.every": 200}
    finished = rlgan.run(**words, **settings, **{"eval.episodes": 2}, dir=tmp_path / "run")
    capsys.readouterr()
    trained = [row for row in rows(finished.dir) if row["kind"] == "train"]
    assert len(trained) >= 3 and trained[-1]["step"] >= 600
    assert all(np.isfinite(trained[-1][metric]) for metric in METRICS[name])
    if "CartPole" in env or env == "cartpole":
        assert sum(row["episodes"] for row in trained) >= 600 // 60
        assert 8 <= trained[0]["return_mean"] <= 60 and trained[0]["return_mean"] == trained[0]["length_mean"]
    assert main(["eval", str(finished.dir), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["returns"]) == 2
    policy = rlgan.load(finished)
    action = policy(np.zeros((3, *policy.observation_space.shape), np.float32))
    assert action.shape == (3, *policy.action_space.shape) and policy.action_space.contains(action[0])
    assert main(["resume", str(finished.dir)]) == 0
    assert "this run has reached its end" in capsys.readouterr().err


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    words = {"agent": "sb3.a2c", "env": "cartpole", "preset": "none", "steps": 300, "copies": 2}
    one, two, other = (rlgan.run(**words, seed=s, dir=tmp_path / f"{i}") for i, s in enumerate((3, 3, 4)))
    assert one.evaluation["returns"] == two.evaluation["returns"] != other.evaluation["returns"]


def test_a_film(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    words = ["agent=sb3.a2c", "env=cartpole", "env.max_steps=20", "preset=none", "steps=40", "eval.episodes=1"]
    assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == 0
    assert main(["watch", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "videos" / "seed0.mp4").stat().st_size > 1000


def test_settings_of_the_env_reach_its_envs(tmp_path: Path) -> None:
    words = {"agent": "sb3.a2c", "env": "cartpole", "env.max_steps": 7, "preset": "none", "steps": 300, "copies": 2}
    finished = rlgan.run(**words, **{"record.every": 100}, dir=tmp_path / "run")
    assert max(row["length_mean"] for row in rows(finished.dir) if row["kind"] == "train") <= 7


def spoilt(tree: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """A copy of a state with another value at a place; None takes it away."""
    tree = copy.deepcopy(tree)
    *upto, last = path
    part = tree["loop"]
    for key in upto:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("games", 1, "number"), 7, "does not repeat a game from the same seed and actions"),
        (("games", 1, "actions"), torch.ones(200, dtype=torch.int64), "does not repeat a game"),
        (("games", 1), None, "shorter than"),
        (("counts",), None, "'counts'"),
        (("counts", "num_timesteps"), -3, "its num_timesteps is -3 and must be a whole number"),
        (("buffer", "pos"), 10_000, "beyond a replay of 500 rows"),
        (("buffer", "size"), 400, "held 400 rows of each env, and agent.buffer_size gives 500"),
        (("buffer", "rows", "rewards"), torch.zeros(3, 2), "its rewards is torch.float32 of \\(3, 2\\)"),
        (("numpy", "name"), "PCG64", "MT19937"),
        (("parameters", "policy.optimizer", "state", 0, "exp_avg"), torch.zeros(3), "has a exp_avg of \\(3,\\)"),
        (("obs",), torch.zeros(2, 3), "its observation is"),
    ],
)
def test_a_loop_that_does_not_fit_is_one_sentence(path: tuple[Any, ...], value: Any, words: str) -> None:
    ours, fresh = (made("dqn", "cartpole", 400) for _ in range(2))
    for _ in range(20):
        ours.update({})
    fresh.load_state_dict(spoilt(ours.state_dict(), *path, value=value))
    with pytest.raises(UsageError, match=words):
        fresh.update({})


def test_a_run_from_before_loops_were_saved_plays_and_does_not_go_on() -> None:
    ours, fresh = (made("a2c", "cartpole", 400) for _ in range(2))
    fresh.load_state_dict({"policy": ours.state_dict()["policy"]})
    assert fresh.act(torch.zeros(1, 4), None, torch.zeros(()), False)[0]["action"].shape == (1,)
    with pytest.raises(UsageError, match="from before stable-baselines3's loops were saved"):
        fresh.update({})


@pytest.mark.filterwarnings("ignore:.*PPO on the GPU")
@pytest.mark.parametrize("sde", [False, True])
def test_a_loaded_loop_goes_on_as_the_old_one(sde: bool) -> None:
    settings = {**SMALL["ppo"], "use_sde": sde}
    one = gym.make_env("pendulum")
    spaces = Spaces(one.observation_space, one.action_space, 600, env="pendulum", copies=2)
    ours, fresh = (SB3("ppo", spaces, ALGORITHMS["ppo"][0](**settings), CPU) for _ in range(2))
    for _ in range(3):
        ours.update({})
    fresh.load_state_dict(copy.deepcopy(ours.state_dict()))
    random = torch.get_rng_state()
    first = ours.update({})
    np.random.seed(0)
    torch.set_rng_state(random)
    second = fresh.update({})
    assert first == second
    for key, value in ours.state_dict()["policy"].items():
        assert torch.equal(value, fresh.state_dict()["policy"][key]), key


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "stable-baselines3":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["run", "agent=sb3.ppo", "env=cartpole", f"dir={tmp_path / 'run'}"]) == 3
    said = capsys.readouterr().err
    assert "needs stable-baselines3" in said and 'pip install "rlgan[sb3]"' in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["agent=sb3.dqn", "env=pendulum"], "it takes numbered actions, this env takes Box"),
        (["agent=sb3.sac", "env=cartpole"], "it takes a Box with bounds, this env takes Discrete(2)"),
        (["agent=sb3.ppo", "env=cartpole", "reward=rnd"], "leave reward= and normalise.* out"),
        (["agent=sb3.ppo", "env=cartpole", "normalise.obs=true"], "leave reward= and normalise.* out"),
        (["agent=sb3.ppo", "env=cartpole", "agent.lr=1"], "unknown key 'agent.lr'"),
        (["agent=sb3.dqn", "env=cartpole", "agent.buffer_size=63"], "a batch of 64 rows is more than the 63 that"),
        (["agent=sb3.qdn", "env=cartpole"], "unknown agent 'sb3.qdn': did you mean 'sb3.dqn'?"),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_a_reward_that_is_not_finite_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a network learns from it, which would raise with pages of NaN."""
    inner = type(gym.make_env(ENV[name]))
    monkeypatch.setattr(inner, "step", lambda env, action: (env.reset()[0], math.nan, False, False, {}))
    words = [f"agent=sb3.{name}", f"env={ENV[name]}", "preset=none", "steps=4000", f"dir={tmp_path / 'run'}"]
    assert main(["run", *words]) == 4
    assert f"env {ENV[name]} gave a reward that is NaN or infinite: every reward must be a" in capsys.readouterr().err


def test_spaces_that_it_does_not_take() -> None:
    vector, mask = Box(-1, 1, (2,), np.float32), Box(0, 1, (3,), np.int8)
    assert (
        refuses("any", Dict({"obs": vector, "action_mask": mask}), Discrete(3))
        == "stable-baselines3 knows no action masks"
    )
    for action in (Discrete(3, start=1), MultiDiscrete([2, 2], start=[0, 1])):
        assert "numbers actions from 0" in str(refuses("any", vector, action))
    assert "this env takes Box(-inf" in str(refuses("bounded", vector, Box(-np.inf, np.inf, (1,), np.float32)))
    assert "this env gives Text" in str(refuses("any", Text(3), Discrete(2)))
    for action in (Discrete(3), MultiDiscrete([2, 3]), MultiBinary(2), vector):
        assert refuses("any", Dict({"a": vector, "b": Discrete(4)}), action) is None
    with pytest.raises(UsageError, match="wants the channels of images first"):
        made_of = Spaces(Box(0, 255, (64, 64, 3), np.uint8), Discrete(2), 10, env="x")
        SB3("a2c", made_of, ALGORITHMS["a2c"][0](), CPU)


def test_dicts_images_and_several_choices_are_acted_on() -> None:
    space = Dict({"a": Box(-1, 1, (2,), np.float32), "b": Discrete(4)})
    agent = SB3("ppo", Spaces(space, MultiDiscrete([2, 3]), 10), ALGORITHMS["ppo"][0](), CPU)
    obs = {"a": torch.randn(5, 2), "b": torch.arange(5) % 4}
    assert agent.act(obs, None, torch.zeros(()), False)[0]["action"].shape == (5, 2)
    images = Box(0, 255, (4, 84, 84), np.uint8)
    agent = SB3("dqn", Spaces(images, Discrete(6), 10), ALGORITHMS["dqn"][0](), CPU)
    action = agent.act(torch.zeros(3, 4, 84, 84, dtype=torch.uint8), None, torch.zeros(()), False)[0]["action"]
    assert action.shape == (3,) and "Nature" in type(agent.model.q_net.features_extractor).__name__


@pytest.mark.parametrize("name", ZOO)
def test_presets_are_the_zoos(name: str) -> None:
    """What reaches the model, against the arguments that the benchmarks give stable-baselines3 by hand."""
    found = config.resolve_one([f"agent=sb3.{name}", f"env={ENV[name]}"], Registry())
    assert found.preset is not None and found.preset.note == "the settings of RL-Zoo"
    c = found.config
    spaces = Spaces(*_spaces(ENV[name]), c.steps, env=ENV[name], copies=c.copies)
    model = SB3(name, spaces, found.learner.config, CPU)._model(
        DummyVecEnv([lambda: gym.make_env(ENV[name])] * c.copies), 0
    )
    expected: dict[str, dict[str, Any]] = {
        "dqn": {"batch_size": 64, "gradient_steps": 128, "target_update_interval": 10, "exploration_fraction": 0.16},
        "ppo": {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "n_envs": 8},
        "a2c": {"n_steps": 5, "gae_lambda": 1.0, "ent_coef": 0.0, "n_envs": 8, "gamma": 0.99},
        "sac": {"ent_coef": "auto", "batch_size": 256, "learning_starts": 100, "gamma": 0.99},
        "td3": {"learning_starts": 10_000, "gamma": 0.98, "policy_delay": 2, "buffer_size": 200_000},
        "ddpg": {"learning_starts": 10_000, "gamma": 0.98, "buffer_size": 200_000},
    }
    assert {key: getattr(model, key) for key in expected[name]} == expected[name]
    rates = {"dqn": 2.3e-3, "ppo": 1e-3, "a2c": 7e-4, "sac": 1e-3, "td3": 1e-3, "ddpg": 1e-3}
    assert model.lr_schedule(1.0) == pytest.approx(rates[name])
    assert model.lr_schedule(0.5) == pytest.approx(rates[name] * (0.5 if name == "ppo" else 1.0))


def _spaces(env: str) -> tuple[gymnasium.Space, gymnasium.Space]:
    one = gym.make_env(env)
    return one.observation_space, one.action_space


def test_defaults_are_stable_baselines3s_own() -> None:
    import inspect

    for name, (cls, _, _) in ALGORITHMS.items():
        theirs = {k: p.default for k, p in inspect.signature(getattr(sb3, name.upper())).parameters.items()}
        own = {"learning_rate_end", "clip_range_end", "net_arch", "action_noise"}
        for key, value in vars(cls()).items():
            if key not in own:
                assert theirs[key] == ("auto" if key == "ent_coef" and value is None else value), (name, key)
