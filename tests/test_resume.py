"""A run that is killed or stopped and then resumed equals, bit for bit, one that was left alone."""

from __future__ import annotations

import importlib.util
import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rlgan.registry import Registry
from rlgan.report.record import read
from rlgan.store.segments import read_segment

CARTPOLE = shlex.split(
    "agent=dqn env=cartpole preset=none steps=5000 copies=4 agent.learning_starts=400 agent.capacity=1500 "
    "agent.hidden=[32,32] checkpoint.every=300 record.every=100 eval.every=1300 eval.episodes=4"
)
PRIORITISED = ["agent.prioritised=true", "agent.n_step=3", "groups=2"]
BREAKOUT = shlex.split(
    "agent=dqn env=breakout steps=1200 agent.learning_starts=400 agent.capacity=800 agent.train_every=8 "
    "checkpoint.every=200 record.every=100 barrier.every=60 eval.episodes=2 threads=1"
)
DIGITS = shlex.split(
    "generator=dcgan data=digits data.source=uci preset=none steps=60 generator.width=4 eval.every=25 "
    "eval.samples=50 checkpoint.every=8 record.every=3 threads=1"
)
TOKENS = shlex.split(
    "generator=seqgan data=oracle preset=none steps=140 data.vocabulary=30 data.width=6 data.length=8 data.samples=64 "
    "generator.batch_size=8 generator.pretrain=5 generator.pretrain_d=2 generator.draws=1 generator.passes=1 "
    "generator.rollouts=2 generator.eps_hat=true eval.every=50 eval.samples=50 checkpoint.every=9 record.every=4 "
    "threads=1"
)
SHORT = ["generator.batch_size=8", *(word for word in TOKENS if not word.startswith("generator"))]
# 8 updates a pass
GENERATORS = {
    "dcgan": DIGITS,
    "seqgan": TOKENS,
    "seqgan actor-critic": [*TOKENS, "generator.reward=actor-critic"],
    "rankgan": ["generator=rankgan", *TOKENS[1:]],
    "mle": ["generator=mle", *SHORT],
    "mle scheduled": ["generator=mle", *SHORT, "generator.own=0.1"],
    "pgbleu": ["generator=pgbleu", *SHORT, "generator.pretrain=3"],
    "relgan": ["generator=relgan", *SHORT, "generator.pretrain=3", "generator.parts=4", "generator.filters=8"],
    "seqppo": ["generator=seqppo", *SHORT, "generator.pretrain=3", "generator.pretrain_d=2", "generator.written=16"],
}
SHOP = Path(__file__).with_name("shop.py")
IN_SHOP = [*(word for word in CARTPOLE if not word.startswith("env=")), "env.shelf=7"]
LONGER = shlex.split(
    "agent=dqn env=breakout steps=2500 agent.learning_starts=500 agent.capacity=1500 checkpoint.every=400 "
    "record.every=200 barrier.every=150 eval.episodes=2 threads=1"
)

needs_ale = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale-py is not installed")


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "rlgan", *words], stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    error = process.communicate(timeout=240)[1]
    assert process.returncode == code, error
    return error


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait(process: subprocess.Popen[str], folder: Path, rows: int) -> None:
    """Until the run has a checkpoint and so many rows of metrics."""
    end = time.monotonic() + 120
    while lines(folder) < rows or not any((folder / "checkpoints").glob("step_*")):
        assert process.poll() is None, f"it ended before it was stopped: {finish(process)}"
        assert time.monotonic() < end
        time.sleep(0.005)


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))


def traces(folder: Path, capacity: int) -> dict[str, Any]:
    """All that a run leaves behind but times: hashes of the last state, metrics, the rows that the replay holds."""
    manifest = json.loads((newest(folder) / "manifest.json").read_text())
    pieces = [read_segment(folder / "checkpoints", ref) for ref in manifest["segments"]]
    replay = {name: torch.cat([piece[name] for piece in pieces])[-capacity:] for name in pieces[0]} if pieces else {}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["time"]
    return {
        "step": manifest["step"],
        "hashes": {name: file["sha256"] for name, file in manifest["files"].items()},
        "replay": replay,
        "metrics": rows,
    }


def assert_equal(folder: Path, base: Path, capacity: int) -> None:
    got, wanted = traces(folder, capacity), traces(base, capacity)
    assert got["metrics"] == wanted["metrics"]
    assert got["step"] == wanted["step"]
    assert got["hashes"] == wanted["hashes"]
    assert got["replay"].keys() == wanted["replay"].keys()
    for name, value in wanted["replay"].items():
        assert torch.equal(got["replay"][name], value), name


def kill_and_resume(folder: Path, words: list[str], total: int, seed: int, kills: int) -> None:
    """Kill -9 at random moments, counted in rows of metrics.jsonl, and let the last resume run to its end."""
    moments = random.Random(seed)
    process = start("run", *words, f"dir={folder}")
    for rows in sorted(moments.sample(range(3, total - 3), kills)):
        wait(process, folder, rows)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        process = start("resume", str(folder))
    assert "resumed exactly from step" in finish(process)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cartpole") / "base"
    finish(start("run", *CARTPOLE, f"dir={folder}"))
    return folder


def test_killed_cartpole_equals_an_uninterrupted_one(cartpole: Path, tmp_path: Path) -> None:
    kill_and_resume(tmp_path / "run", CARTPOLE, lines(cartpole), seed=0, kills=2)
    assert_equal(tmp_path / "run", cartpole, 1500 // 4)


ON_ROLLOUTS = "env=cartpole steps=5000 agent.hidden=[16] checkpoint.every=300 record.every=100 eval.every=1300"
ON_REPLAY = (
    "env=pendulum steps=1500 agent.learning_starts=200 agent.capacity=800 agent.hidden=[16,16] agent.batch_size=16 "
    "agent.noise_memory=0.5 checkpoint.every=150 record.every=50 eval.every=600"
)
ON_LAKE = "env=frozenlake steps=8000 checkpoint.every=500 record.every=250 eval.every=3000"
ON_CARTPOLE = (
    "env=cartpole steps=2500 agent.learning_starts=400 agent.capacity=800 agent.hidden=[16,16] agent.train_every=8 "
    "checkpoint.every=200 record.every=100 eval.every=900"
)
AGENTS = {
    "dqn prioritised": f"{ON_CARTPOLE} agent.prioritised=true agent.n_step=3",
    "dqn dueling and noisy": f"{ON_CARTPOLE} agent.dueling=true agent.noisy=true",
    "dqn c51": f"{ON_CARTPOLE} agent.head=c51 agent.v_min=0 agent.v_max=100 agent.double=true",
    "dqn qr": f"{ON_CARTPOLE} agent.head=qr agent.atoms=11",
    "dqn rainbow": f"{ON_CARTPOLE} preset=rainbow",
    "pqn": f"{ON_ROLLOUTS} agent.horizon=16 agent.minibatch=32 agent.epochs=3 agent.lr_end=0",
    "ppo": f"{ON_ROLLOUTS} agent.horizon=16 agent.minibatch=32 agent.epochs=3 agent.lr_end=0 agent.clip_end=0",
    "ppo with memory": f"{ON_ROLLOUTS} agent.horizon=16 agent.minibatch=32 agent.memory=lstm agent.sequence=8 "
    "env.velocities=false",
    "a2c": ON_ROLLOUTS,
    "reinforce": f"{ON_ROLLOUTS} agent.horizon=100",
    "q-learning": ON_LAKE,
    "sarsa": ON_LAKE,
    "mc-control": ON_LAKE,
    "ddpg": ON_REPLAY,
    "td3": ON_REPLAY,
    "sac": ON_REPLAY,
    "a2c normalised": f"{ON_ROLLOUTS} normalise.obs=true normalise.reward=true",
    "sac normalised": f"{ON_REPLAY} normalise.obs=true normalise.reward=true",
}
OF_SB3 = {
    "sb3.a2c": "env=cartpole steps=2000 checkpoint.every=300 record.every=100 eval.every=900",
    "sb3.ppo": "env=gym:CartPole-v1 steps=1200 agent.n_steps=32 agent.batch_size=32 agent.n_epochs=2 "
    "agent.learning_rate_end=0 checkpoint.every=200 record.every=100 eval.every=500",
    "sb3.dqn": "env=cartpole steps=1200 agent.learning_starts=100 agent.buffer_size=800 agent.train_freq=8 "
    "agent.gradient_steps=-1 agent.target_update_interval=100 checkpoint.every=200 record.every=100 eval.every=500",
    **{
        f"sb3.{name}": f"env={env} steps=600 agent.learning_starts=100 agent.buffer_size=400 agent.net_arch=[16,16] "
        "checkpoint.every=100 record.every=50 eval.every=250"
        for name, env in (("sac", "gym:Pendulum-v1"), ("td3", "pendulum"), ("ddpg", "gym:MountainCarContinuous-v0"))
    },
}


@pytest.mark.parametrize("name", AGENTS)
def test_a_killed_agent_equals_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    words = shlex.split(f"agent={name.split()[0]} copies=4 eval.episodes=4 {AGENTS[name]}")
    words += [] if "preset=" in AGENTS[name] else ["preset=none"]
    finish(start("run", *words, f"dir={tmp_path / 'base'}"))
    total = lines(tmp_path / "base")
    kill_and_resume(tmp_path / "run", words, total, seed=0, kills=min(2, total - 7))
    assert_equal(tmp_path / "run", tmp_path / "base", 800 // 4)


@pytest.mark.parametrize("name", OF_SB3)
def test_a_killed_loop_of_stable_baselines3_equals_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    pytest.importorskip("stable_baselines3")
    words = shlex.split(f"agent={name} preset=none copies=2 eval.episodes=2 {OF_SB3[name]}")
    finish(start("run", *words, f"dir={tmp_path / 'base'}"))
    kill_and_resume(tmp_path / "run", words, lines(tmp_path / "base"), seed=0, kills=2)
    assert_equal(tmp_path / "run", tmp_path / "base", 1)


def test_every_learner_is_killed_and_resumed() -> None:
    too_quick = {"value-iteration", "policy-iteration"}  # tests/test_tabular.py cuts them
    untrained = {"random", "reference"}  # tests/test_reference_agents.py kills them
    named = {name.split()[0] for name in (*AGENTS, *OF_SB3)}
    assert named | too_quick | untrained == {entry.name for entry in Registry().names("agents")}
    assert {name.split()[0] for name in GENERATORS} == {entry.name for entry in Registry().names("generators")}


def test_a_killed_run_in_an_env_from_a_file_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    words = [f"env={shutil.copy(SHOP, tmp_path / 'shop.py')}", *IN_SHOP]
    finish(start("run", *words, f"dir={tmp_path / 'base'}"))
    kill_and_resume(tmp_path / "run", words, lines(tmp_path / "base"), seed=0, kills=2)
    assert_equal(tmp_path / "run", tmp_path / "base", 1500 // 4)
    assert (tmp_path / "run" / "env.py").read_bytes() == SHOP.read_bytes()


@pytest.mark.parametrize("name", GENERATORS)
def test_a_killed_generator_equals_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    words = GENERATORS[name]
    finish(start("run", *words, f"dir={tmp_path / 'base'}"))
    trained = [row for row in read(tmp_path / "base" / "metrics.jsonl") if row["kind"] == "train"]
    assert sum(row["phase"] == "train" for row in trained) > 5
    kill_and_resume(tmp_path / "run", words, lines(tmp_path / "base"), seed=0, kills=2)
    assert_equal(tmp_path / "run", tmp_path / "base", 0)


@pytest.fixture(scope="module", params=["rnd", "gail"])
def rewarded(
    cartpole: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp(request.param)
    words = [*CARTPOLE, f"reward={request.param}"]
    if request.param == "gail":
        path = folder / "demos.safetensors"
        finish(start("eval", str(cartpole), "episodes=5", f"demos={path}"))
        words.append(f"reward.demos={path}")
    finish(start("run", *words, f"dir={folder / 'base'}"))
    return folder / "base", words


def test_a_killed_run_with_a_learned_reward_equals_an_uninterrupted_one(
    rewarded: tuple[Path, list[str]], tmp_path: Path
) -> None:
    base, words = rewarded
    kill_and_resume(tmp_path / "run", words, lines(base), seed=0, kills=2)
    assert_equal(tmp_path / "run", base, 1500 // 4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_a_run_with_a_learned_reward_killed_five_times(
    rewarded: tuple[Path, list[str]], tmp_path: Path, seed: int
) -> None:
    base, words = rewarded
    kill_and_resume(tmp_path / "run", words, lines(base), seed, kills=5)
    assert_equal(tmp_path / "run", base, 1500 // 4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_cartpole_five_times(cartpole: Path, tmp_path: Path, seed: int) -> None:
    kill_and_resume(tmp_path / "run", CARTPOLE, lines(cartpole), seed, kills=5)
    assert_equal(tmp_path / "run", cartpole, 1500 // 4)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(cartpole: Path, tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "run"
    process = start("run", *CARTPOLE, f"dir={folder}")
    wait(process, folder, 17)
    process.send_signal(number)
    error = finish(process, code)
    assert error.endswith(f"saved; continue with: rlgan resume {folder}\n")
    stopped = int(newest(folder).name.removeprefix("step_"))
    assert f"resumed exactly from step {stopped:,}\n" in finish(start("resume", str(folder)))
    assert_equal(folder, cartpole, 1500 // 4)


def test_evaluation_changes_nothing(cartpole: Path, tmp_path: Path) -> None:
    words = [word for word in CARTPOLE if not word.startswith("eval.every")]
    finish(start("run", *words, f"dir={tmp_path / 'run'}"))
    got, wanted = traces(tmp_path / "run", 1500 // 4), traces(cartpole, 1500 // 4)
    assert got["hashes"]["tensors.safetensors"] == wanted["hashes"]["tensors.safetensors"]
    assert sum(row["kind"] == "eval" for row in got["metrics"]) == 1
    assert sum(row["kind"] == "eval" for row in wanted["metrics"]) > 3
    trained = [[row for row in run["metrics"] if row["kind"] == "train"] for run in (got, wanted)]
    assert trained[0] == trained[1]


def test_a_finished_run_is_left_as_it_is(cartpole: Path) -> None:
    def content() -> dict[Path, bytes]:
        kept = [p for p in cartpole.rglob("*") if p.is_file() and p.name not in ("log.txt", "curve.png")]
        return {path: path.read_bytes() for path in kept}

    before = content()
    assert "this run has reached its end" in finish(start("resume", str(cartpole)))
    assert content() == before


@needs_ale
def test_killed_breakout_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    finish(start("run", *BREAKOUT, f"dir={tmp_path / 'base'}"))
    kill_and_resume(tmp_path / "run", BREAKOUT, lines(tmp_path / "base"), seed=0, kills=1)
    assert_equal(tmp_path / "run", tmp_path / "base", 800 // 8)


@needs_ale
def test_killed_breakout_by_priority_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Stacked frames, two groups of copies, windows of three rows."""
    finish(start("run", *BREAKOUT, *PRIORITISED, f"dir={tmp_path / 'base'}"))
    kill_and_resume(tmp_path / "run", [*BREAKOUT, *PRIORITISED], lines(tmp_path / "base"), seed=1, kills=1)
    assert_equal(tmp_path / "run", tmp_path / "base", 800 // 8)


@pytest.fixture(scope="module", params=[1, 2])
def breakout(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("breakout") / "base"
    words = [*LONGER, f"groups={request.param}"]
    finish(start("run", *words, f"dir={folder}"))
    return folder, words


@needs_ale
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_breakout_five_times(breakout: tuple[Path, list[str]], tmp_path: Path, seed: int) -> None:
    base, words = breakout
    kill_and_resume(tmp_path / "run", words, lines(base), seed, kills=5)
    assert_equal(tmp_path / "run", base, 1500 // 8)


@needs_ale
@pytest.mark.slow
def test_breakout_stopped_by_ctrl_c(breakout: tuple[Path, list[str]], tmp_path: Path) -> None:
    base, words = breakout
    process = start("run", *words, f"dir={tmp_path / 'run'}")
    wait(process, tmp_path / "run", 9)
    process.send_signal(signal.SIGINT)
    finish(process, 130)
    assert "resumed exactly from step" in finish(start("resume", str(tmp_path / "run")))
    assert_equal(tmp_path / "run", base, 1500 // 8)
