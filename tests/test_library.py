"""rlgan in a Python program: what importing costs, making envs, running as the command line does, policies."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium.spaces import Box, Dict, Discrete

import rlgan
from rlgan import session
from rlgan.cli.main import main
from rlgan.core.vec import VecEnv
from rlgan.errors import PluginError, UsageError
from rlgan.policy import Policy
from rlgan.simulators.host import HostVecEnv
from rlgan.store import checkpoint

SHOP = Path(__file__).with_name("shop.py")
SMALL = {"agent": {"name": "dqn", "hidden": (16,), "learning_starts": 200}, "preset": "none", "eval.episodes": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> rlgan.Finished:
    return rlgan.run(env="cartpole", steps=600, dir=tmp_path_factory.mktemp("finished") / "run", seed=5, **SMALL)


def test_import_is_light() -> None:
    program = (
        "import sys, rlgan\n"
        "assert rlgan.EnvSpec and rlgan.hookimpl\n"
        "print([name for name in ('torch', 'gymnasium', 'numpy') if name in sys.modules])\n"
        "assert callable(rlgan.make) and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_an_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'rlgan' has no attribute 'trian'"):
        _ = rlgan.trian


# --- make ---


def test_make_gives_tensors() -> None:
    before = torch.get_rng_state()
    env = rlgan.make("cartpole", n=3, device="cpu", seed=7, max_steps=2)
    assert isinstance(env, VecEnv) and env.num_envs == 3
    twin = rlgan.make("cartpole", 3, device="cpu", seed=7, **{"env.max_steps": 2})
    assert torch.equal(env.env.observe(env.state), twin.env.observe(twin.state))
    env.step(torch.ones(3, dtype=torch.int64))
    assert env.step(torch.ones(3, dtype=torch.int64))[3].all(), "truncated after max_steps"
    assert torch.equal(before, torch.get_rng_state())


def test_make_without_a_seed_draws_from_torchs_generator() -> None:
    env, twin = rlgan.make("cartpole", device="cpu"), rlgan.make("cartpole", device="cpu")
    torch.manual_seed(1)
    first = env.reset()[0]
    torch.manual_seed(1)
    assert torch.equal(twin.reset()[0], first)


def test_make_a_simulator_and_a_file() -> None:
    env = rlgan.make("gym:CartPole-v1", n=2, device="cpu", seed=3, vectorization="sync")
    assert isinstance(env, HostVecEnv)
    obs = env.start(0)
    env.send(0, torch.zeros(2, dtype=torch.int64))
    assert env.receive(0)["valid"].all() and obs.shape == (2, 4)
    env.close()
    assert rlgan.make(str(SHOP), n=4, device="cpu", shelf=3).reset(seed=0)[0].shape == (4, 1)


@pytest.mark.parametrize(
    ("name", "asked", "sentence"),
    [
        ("cartpol", {}, "unknown env 'cartpol': did you mean 'cartpole'?"),
        ("cartpole", {"max_stepz": 2}, "unknown key 'env.max_stepz': did you mean 'env.max_steps'"),
        ("cartpole", {"max_steps": 0.5}, "env.max_steps=0.5: is not a whole number"),
        ("cartpole", {"n": 0}, "copies=0: must be greater than or equal to 1"),
        ("cartpole", {"n": "3"}, "n='3' is no whole number: write how many copies step together, such as n=8"),
        ("cartpole", {"device": "gpu"}, "device=gpu: is not allowed; device takes auto, cpu, cuda or cuda:INDEX"),
        ("cartpole,shop", {}, "unknown env 'cartpole,shop'"),
        ("./gone.py", {}, "env=./gone.py: there is no such file."),
    ],
)
def test_make_says_what_is_wrong(name: str, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        rlgan.make(name, **asked)
    assert sentence in str(error.value)


# --- run ---


def test_run_equals_the_command_line(finished: rlgan.Finished, tmp_path: Path) -> None:
    words = [
        "agent=dqn",
        "env=cartpole",
        "steps=600",
        "seed=5",
        "preset=none",
        "agent.hidden=[16]",
        "agent.learning_starts=200",
    ]
    assert main(["run", *words, "eval.episodes=4", f"dir={tmp_path / 'run'}"]) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == yaml.safe_load(
        (finished.dir / "config.yaml").read_text()
    )
    ours, theirs = (checkpoint.newest(f / "checkpoints").tree["learner"]["q"] for f in (finished.dir, tmp_path / "run"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_run_returns_the_last_evaluation(finished: rlgan.Finished) -> None:
    row = json.loads((finished.dir / "metrics.jsonl").read_text().splitlines()[-1])
    found = finished.evaluation
    assert found["return_mean"] == row["return_mean"] == np.mean(found["returns"])
    assert found["normalised"] == pytest.approx((row["return_mean"] - 22.3) / (500 - 22.3))
    assert (found["episodes"], len(found["returns"]), found["step"]) == (4, 4, row["step"])
    assert found["protocol"].startswith("cartpole max_steps=500")


def test_run_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    rlgan.run(env="cartpole", steps=100, dir=tmp_path / "run", threads=2, **SMALL)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == 1
    assert sys.float_info.min / 2 > 0, "denormal numbers are there again"


def test_run_judges_as_the_command_line_does(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        rlgan.run(agent="dqn", env="cartpole", **{"agent.lrr": 1, "stepz": 3})
    assert len(str(error.value).splitlines()) == 2 and "did you mean 'agent.lr'" in str(error.value)
    with pytest.raises(UsageError, match="this needs one run and the words ask for 2"):
        rlgan.run("seed=0,1", agent="dqn", env="cartpole")
    with pytest.raises(UsageError, match="eval is a group of keys"):
        rlgan.run(agent="dqn", env="cartpole", eval=3)


def test_text_with_signs_of_the_grammar_stays_one_value(tmp_path: Path) -> None:
    odd = tmp_path / "a,b [0..1]" / "it's"
    finished = rlgan.run(env="cartpole", steps=100, dir=odd, **SMALL)
    assert finished.dir == odd and (odd / "curve.png").exists()
    again = rlgan.run(f"@{odd / 'config.yaml'}", dir=str(tmp_path / "again"), steps=120)
    assert again.evaluation["protocol"] == finished.evaluation["protocol"]


def test_a_generators_run_says_what_it_was_judged_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    small = {"data.vocabulary": 12, "data.samples": 64, "data.length": 6, "data.width": 4, "eval.samples": 32}
    finished = rlgan.run(generator="mle", data="oracle", steps=4, dir="~/run", preset="none", **small)
    assert finished.dir == tmp_path / "run", "a ~ that no shell has read is the home folder"
    judged = session.evaluate(finished.dir, None, None, 0)
    assert finished.evaluation["protocol"] == judged["protocol"] and "vocabulary=12" in judged["protocol"]
    cooler = session.evaluate(finished.dir, None, None, 0, temperature=0.5)["protocol"]
    assert cooler == f"{judged['protocol']} temperature=0.5"


def test_run_belongs_to_the_main_thread() -> None:
    caught: list[BaseException] = []

    def call() -> None:
        try:
            rlgan.run(agent="dqn", env="cartpole")
        except UsageError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "works in the main thread only" in str(caught[0])


def test_ctrl_c_saves_and_raises(tmp_path: Path) -> None:
    program = f"""
        import os, pathlib, signal, threading, time, rlgan
        folder = pathlib.Path({str(tmp_path / "run")!r})

        def stop():
            while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").stat().st_size:
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        threading.Thread(target=stop, daemon=True).start()
        try:
            more = {{"record.every": 500, "dir": str(folder)}}
            rlgan.run(agent="dqn", env="cartpole", steps="10M", preset="none", **more)
        except KeyboardInterrupt:
            print("interrupted", signal.getsignal(signal.SIGINT) is before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "interrupted True\n", done.stderr
    assert checkpoint.newest(tmp_path / "run" / "checkpoints").step > 0


# --- load ---


def q_values(folder: Path, obs: np.ndarray) -> np.ndarray:
    """The network of the newest checkpoint, by hand."""
    q = {key: value.numpy() for key, value in checkpoint.newest(folder / "checkpoints").tree["learner"]["q"].items()}
    hidden = np.maximum(obs @ q["layers.0.weight"].T + q["layers.0.bias"], 0)
    return hidden @ q["layers.1.weight"].T + q["layers.1.bias"]


def test_a_policy_is_the_trained_network(finished: rlgan.Finished) -> None:
    before = torch.get_rng_state()
    policy = rlgan.load(finished)
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    wanted = q_values(finished.dir, obs).argmax(-1)
    assert set(wanted) == {0, 1}
    actions = policy(obs)
    assert isinstance(actions, np.ndarray) and actions.dtype == np.int64
    np.testing.assert_array_equal(actions, wanted)
    one = policy(obs[3])
    assert type(one) is int and one == wanted[3]
    np.testing.assert_array_equal(policy(obs.astype(np.float64)), wanted)
    policy.reset()
    policy.reset(np.ones(64, bool))
    assert torch.equal(before, torch.get_rng_state())


def test_a_policy_plays_what_eval_plays(finished: rlgan.Finished) -> None:
    """Greedy play of the same weights in Gymnasium's own cart-pole scores as the record says, within its noise."""
    import gymnasium

    policy, returns = rlgan.load(finished.dir, device="cpu"), []
    env = gymnasium.make("CartPole-v1")
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, ended = total + reward, terminated or truncated
        returns.append(total)
    recorded = finished.evaluation
    spread = np.hypot(recorded["return_std"] / 2, np.std(returns) / 20**0.5)
    assert abs(np.mean(returns) - recorded["return_mean"]) < 4 * spread + 1


@pytest.mark.parametrize(
    ("obs", "sentence"),
    [
        (np.zeros(3, np.float32), "the observation has shape (3,); it must be (4,), or ('n', 4) for n at once"),
        (np.zeros((1, 2, 4), np.float32), "the observation has shape (1, 2, 4); it must be (4,)"),
        (np.zeros((0, 4), np.float32), "the observation has shape (0, 4)"),
        (np.float32(0), "the observation has shape ()"),
        (np.zeros(4, np.int64), "the observation is int64; it must be float32, as the env gives it"),
        (["a", "b", "c", "d"], "the observation is <U1; it must be float32"),
        (np.array([0, np.nan, 0, 0], np.float32), "the observation holds NaN or infinity; give finite numbers"),
    ],
)
def test_a_wrong_observation(obs: Any, sentence: str, finished: rlgan.Finished) -> None:
    with pytest.raises(UsageError) as error:
        rlgan.load(finished.dir)(obs)
    assert sentence in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale-py is not installed")
def test_a_policy_on_stacked_images(tmp_path: Path) -> None:
    rlgan.run(agent="dqn", env="breakout", steps=32, dir=tmp_path / "run", **{"eval.episodes": 1, "copies": 2})
    policy = rlgan.load(tmp_path / "run")
    frames = np.random.default_rng(0).integers(256, size=(2, 4, 84, 84), dtype=np.uint8)
    batch = policy(frames)
    assert batch.shape == (2,) and policy.action_space.contains(policy(frames[0]))
    with pytest.raises(UsageError, match=r"has shape \(84, 84, 4\); it must be \(4, 84, 84\)"):
        policy(np.zeros((84, 84, 4), np.uint8))
    with pytest.raises(UsageError, match="is float32; it must be uint8"):
        policy(frames.astype(np.float32))


class Counter:
    """Recurrent: counts its calls in each game; the action is the count, off by one on coin flips if asked to."""

    def __init__(self, flips: bool = False) -> None:
        self.flips = flips

    def carry(self, n: int) -> tuple[torch.Tensor]:
        return (torch.zeros(n, 1),)

    def act(self, obs: Any, carry: Any, step: torch.Tensor, explore: bool) -> Any:
        assert not explore
        count = carry[0] + 1
        noise = torch.randint(2, count.shape) if self.flips else torch.zeros_like(count)
        return {"action": count + noise}, (count,)


LINE = Box(-1.0, 1.0, (2,), np.float32), Box(0.0, 3.0, (1,), np.float32)


def test_memory_stays_until_reset() -> None:
    policy = Policy(Counter(), *LINE, torch.device("cpu"))
    obs = np.zeros((3, 2), np.float32)
    policy.reset(np.array([True]))
    for wanted in (1, 2):
        np.testing.assert_array_equal(policy(obs), np.full((3, 1), wanted))
    policy.reset(np.array([False, True, False]))
    np.testing.assert_array_equal(policy(obs)[:, 0], [3, 1, 3])
    np.testing.assert_array_equal(policy(obs)[:, 0], [3, 2, 3], "actions are clipped to the Box")
    with pytest.raises(UsageError, match="remembers 3 games and is given observations of 1: call policy"):
        policy(obs[0])
    with pytest.raises(UsageError, match=r"mask is bool of \(2,\); it must be bool of \(3,\)"):
        policy.reset([True, False])
    policy.reset()
    np.testing.assert_array_equal(policy(obs[0]), [1.0])


def test_a_policys_random_numbers_are_its_own() -> None:
    def play(noise: bool) -> list[float]:
        policy = Policy(Counter(flips=True), LINE[0], Box(0, 99, (1,), np.float32), torch.device("cpu"), seed=4)
        found = []
        for _ in range(20):
            if noise:
                torch.rand(7)
            found.append(float(policy(np.zeros(2, np.float32))[0]))
        return found

    assert play(True) == play(False)
    assert len({value - i for i, value in enumerate(play(False))}) == 2


def test_observations_of_several_parts() -> None:
    class Masked:
        def carry(self, n: int) -> None: ...

        def act(self, obs: Any, carry: None, step: torch.Tensor, explore: bool) -> Any:
            return {"action": obs["action_mask"].int().argmax(-1)}, None

    space = Dict({"obs": LINE[0], "action_mask": Box(0, 1, (3,), np.int8)})
    policy = Policy(Masked(), space, Discrete(3), torch.device("cpu"))
    parts = {"obs": np.zeros((2, 2), np.float32), "action_mask": np.array([[0, 1, 0], [0, 0, 1]], np.int8)}
    np.testing.assert_array_equal(policy(parts), [1, 2])
    assert policy({key: part[1] for key, part in parts.items()}) == 2
    with pytest.raises(
        UsageError, match=r"the observation is \['obs'\]; it must be a dict of \['action_mask', 'obs'\]"
    ):
        policy({"obs": parts["obs"]})
    with pytest.raises(UsageError, match="the parts of the observation are not equally many"):
        policy({**parts, "obs": parts["obs"][:1]})


def test_observations_of_parts_that_have_parts() -> None:
    class Sum:
        def carry(self, n: int) -> None: ...

        def act(self, obs: Any, carry: None, step: torch.Tensor, explore: bool) -> Any:
            assert all(part.shape[1:] == (2,) for part in obs["obs"].values())
            return {"action": obs["action_mask"].int().argmax(-1)}, None

    inner = Dict({"a": Box(-1, 1, (2,)), "b": Box(-1, 1, (2,))})
    policy = Policy(
        Sum(), Dict({"obs": inner, "action_mask": Box(0, 1, (3,), np.int8)}), Discrete(3), torch.device("cpu")
    )
    mask = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.int8)
    obs = {"obs": {key: np.zeros((3, 2), np.float32) for key in "ab"}, "action_mask": mask}
    np.testing.assert_array_equal(policy(obs), [1, 2, 0])
    with pytest.raises(UsageError, match="the observation's 'obs' is ndarray; it must be a dict of"):
        policy({**obs, "obs": np.zeros((3, 2), np.float32)})


def test_load_says_what_is_wrong(finished: rlgan.Finished, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run directory: it has no config"):
        rlgan.load(tmp_path)
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UsageError, match="checkpoint"):
        rlgan.load(run)


def test_damaged_versions_are_no_reason_not_to_load(finished: rlgan.Finished, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    for text in ("{", "[]", '{"plugins": {"envstpole": "rlgan==0.1.0"}}'):
        (run / "versions.json").write_text(text)
        rlgan.load(run)


def test_a_plugin_that_is_gone_is_named(finished: rlgan.Finished, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    versions = json.loads((run / "versions.json").read_text())
    assert versions["plugins"] == {
        "agents.dqn": f"rlgan=={rlgan.__version__}",
        "envs.cartpole": f"rlgan=={rlgan.__version__}",
    }
    versions["plugins"]["envs.corridor"] = "rlgan-corridor==0.3.0"
    (run / "versions.json").write_text(json.dumps(versions))
    with pytest.raises(PluginError) as error:
        rlgan.load(run)
    assert str(error.value) == (
        f"the run in {run} needs the env 'corridor' of rlgan-corridor==0.3.0, which is not installed: "
        'pip install "rlgan-corridor==0.3.0"'
    )
