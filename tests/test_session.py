"""Bad input through the whole program: what it says, its exit code, and what is left behind."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor

from rlgan import assembly, config, contract, judge, rundir, trained
from rlgan.cli.main import main
from rlgan.config import agents_that_can
from rlgan.core.protocols import DataSet, Phase
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.registry import Registry
from rlgan.report import record
from rlgan.store import checkpoint, durable
from rlgan_agents.dqn import DQN
from rlgan_data.oracle import OracleJudge
from rlgan_envs.cartpole import CartPole

CARTPOLE = shlex.split("agent=dqn env=cartpole preset=none agent.hidden=[16] eval.episodes=2 record.every=200")
PLUGIN = '''
    import time
    from dataclasses import dataclass

    import gymnasium, numpy as np, torch
    from gymnasium.spaces import Box, Discrete
    from gymnasium.vector import AutoresetMode
    from gymnasium.vector.utils import batch_space
    from rlgan import AgentSpec, EnvSpec, NoConfig, hookimpl

    @dataclass(frozen=True)
    class Fault:
        fault: str = "none"
        """What goes wrong."""

    class Walk:
        observation_space, action_space, max_steps = Box(-9, 9, (2,), np.float32), Discrete(2), 20

        def __init__(self, config, device, dtype):
            self.fault, self.steps = config.fault, 0
            if self.fault == "no factory":
                raise OSError("the data file is gone")
            if self.fault == "no space":
                self.__class__ = type("Bare", (), {"max_steps": 1})
            if self.fault == "no end":
                self.max_steps = 0
            if self.fault == "two actions":
                self.action_space = 2

        def reset(self, n, rng):
            if self.fault == "raises in reset":
                raise ValueError("no starting state")
            if self.fault == "state is a tensor":
                return torch.zeros(n, 2)
            if self.fault == "state of one copy":
                return {"x": torch.zeros(2, n)}
            return {"x": torch.zeros(n, 2)}

        def observe(self, state):
            x = state["x"].clone()
            faults = {"obs shape": x[:, :1], "obs dtype": x.double(), "obs type": x.numpy()}
            return faults.get(self.fault, x)

        def step(self, state, action, rng):
            self.steps += 1
            if self.fault == "raises" and self.steps > 150:
                raise ValueError("the arm fell off")
            if self.fault == "hangs" and self.steps > 150:
                time.sleep(60)
            x = state["x"] + action[:, None]
            reward, terminated = torch.ones(len(x)), x[:, 0] > 8
            if self.fault == "huge reward" and self.steps == 71:
                reward[0] = 3e38
            faults = {
                "reward shape": ({"x": x}, reward[:, None], terminated),
                "reward dtype": ({"x": x}, reward.long(), terminated),
                "terminated dtype": ({"x": x}, reward, terminated.float()),
                "state dtype": ({"x": x.double()}, reward, terminated),
                "state keys": ({"y": x}, reward, terminated),
                "four results": ({"x": x}, reward, terminated, terminated),
            }
            return faults.get(self.fault, ({"x": x}, reward, terminated))

    class Sim(gymnasium.vector.VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        single_observation_space, single_action_space = Walk.observation_space, Walk.action_space

        def __init__(self, config, argument, n, render):
            self.fault, self.num_envs, self.steps = config.fault, n, 0
            if self.fault == "no factory":
                raise OSError("the data file is gone")

        def reset(self, *, seed=None, options=None):
            if self.fault == "raises in reset":
                raise ValueError("no starting state")
            return np.zeros((self.num_envs, 2), np.float32), {}

        def step(self, actions):
            n, late = self.num_envs, self.steps > 150
            self.steps += 1
            if self.fault == "raises" and late:
                raise ValueError("the arm fell off")
            if self.fault == "hangs" and late:
                time.sleep(60)
            obs, reward, end = np.zeros((n, 2), np.float32), np.ones(n), np.full(n, self.steps % 20 == 0)
            if late:
                obs = {"obs shape": obs[:, :1], "obs dtype": obs.astype(np.float64)}.get(self.fault, obs)
                reward = reward[:, None] if self.fault == "reward shape" else reward
                end = end.astype(int) if self.fault == "terminated dtype" else end
            return obs, reward, end, np.zeros(n, bool), {}

    def refuses(observation, action):
        return None if isinstance(action, Box) else "steerer turns a wheel"

    @hookimpl
    def rlgan_specs():
        yield EnvSpec("walk", Walk, Fault, "walks on the device")
        yield EnvSpec("sim", Sim, Fault, "stands still on the host", host=True)
        yield AgentSpec("steerer", object, NoConfig, "steers", refuses)
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distribution with faulty envs and a second agent."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "faulty-1.0.dist-info").mkdir()
    (folder / "faulty-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    points = "[rlgan.envs]\nwalk = faulty\nsim = faulty\n[rlgan.agents]\nsteerer = faulty\n"
    (folder / "faulty-1.0.dist-info" / "entry_points.txt").write_text(points)
    (folder / "faulty.py").write_text(textwrap.dedent(PLUGIN))
    return folder


@pytest.fixture(autouse=True)
def place(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plugin)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 1,200 steps with its last two checkpoints."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert (
        main(["run", *CARTPOLE, "steps=1200", "agent.learning_starts=400", "checkpoint.every=400", f"dir={folder}"])
        == 0
    )
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))


def hashes(folder: Path) -> Any:
    return json.loads((newest(folder) / "manifest.json").read_text())["files"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


# --- a run that cannot begin ---


def test_an_agent_that_cannot_act_names_those_that_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "agent=dqn", "env=gym:Pendulum-v1", "dir=x"]) == 2
    assert said(capsys) == (
        "rlgan: agent=dqn cannot act in env=gym:Pendulum-v1: dqn chooses among numbered actions, this env takes "
        "Box(-2.0, 2.0, (1,), float32); these can act there: a2c, ddpg, ppo, reinforce, sac, sb3.a2c, "
        "sb3.ddpg, sb3.ppo, sb3.sac, sb3.td3, steerer, td3\n"
    )
    assert main(["run", "agent=steerer", "env=cartpole", "dir=x"]) == 2
    assert (
        "steerer turns a wheel; these can act there: a2c, dqn, ppo, pqn, reinforce, sac, sb3.a2c, sb3.dqn, sb3.ppo\n"
        in said(capsys)
    )
    assert not Path("x").exists()


def test_agents_do_not_fit_images_that_their_networks_cannot_read() -> None:
    able = agents_that_can(Registry(), Box(0, 255, (96, 96, 3), np.uint8), Discrete(2))
    assert "sb3.dqn" in able and not {"dqn", "pqn", "ppo", "a2c", "reinforce"} & set(able)
    for size in ((4, 84, 84), (3, 10, 10)):
        assert {"dqn", "pqn", "ppo"} <= set(agents_that_can(Registry(), Box(0, 255, size, np.uint8), Discrete(2)))


def test_what_the_trainer_refuses_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "agent=dqn", "env=cartpole", "agent.capacity=10", "dir=x"]) == 2
    assert "raise agent.capacity" in said(capsys)
    assert not Path("x").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *CARTPOLE, "device=cuda", "dir=x"]) == 2
    assert said(capsys) == ("rlgan: device=cuda: this machine has 0 CUDA devices; write device=cpu or device=auto\n")
    assert not Path("x").exists()


def test_a_rom_that_ale_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ale_py")
    assert main(["run", "agent=dqn", "env=atari:brekout", "dir=x"]) == 2
    error = said(capsys)
    assert "brekout" in error and "breakout" in error
    assert not Path("x").exists()


def test_a_directory_that_holds_a_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *CARTPOLE, f"dir={finished}"]) == 2
    assert said(capsys) == (
        f"rlgan: {finished} already holds a run: write another dir=, or `rlgan resume {finished}`\n"
    )


def test_a_directory_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("")
    assert main(["run", *CARTPOLE, "dir=file/run"]) == 2
    assert "the run directory file/run cannot be written: Not a directory; write dir=PATH" in said(capsys)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["run", *CARTPOLE, "dir=x"]) == 1
    assert said(capsys) == "rlgan: the run directory x could not be written: No space left on device\n"


# --- checkpoints ---


def truncate(path: Path) -> None:
    file = path / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def tamper(path: Path) -> None:
    data = bytearray((path / "tensors.safetensors").read_bytes())
    data[-9] ^= 1
    (path / "tensors.safetensors").write_bytes(data)


def from_the_future(path: Path) -> None:
    (path / "manifest.json").write_text('{"kind": "rlgan checkpoint", "format": 2}')


DAMAGES = [
    (truncate, "is truncated: tensors.safetensors has"),
    (tamper, "is damaged or was tampered with: tensors.safetensors does not match its sha256"),
    (from_the_future, "has format 2 and this rlgan reads up to 1: upgrade it with `pip install -U rlgan`"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES)
def test_a_damaged_checkpoint_sends_back_to_the_one_before(
    damage: Callable[[Path], None], sentence: str, run: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(newest(run))
    older = min((run / "checkpoints").glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    assert main(["eval", str(run), "--json"]) == 0
    out = capsys.readouterr()
    assert sentence in out.err and out.err.endswith(f"; falling back to {older.name}\n")
    assert json.loads(out.out)["episodes"] == 2
    assert main(["resume", str(run)]) == 0
    error = said(capsys)
    assert sentence in error and f"resumed exactly from step {int(older.name.removeprefix('step_')):,}" in error
    assert hashes(run) == hashes(finished)


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES)
@pytest.mark.parametrize("command", ["resume", "eval", "watch"])
def test_no_checkpoint_is_sound(
    command: str, damage: Callable[[Path], None], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (run / "checkpoints").glob("step_*"):
        damage(path)
    before = sorted(run.rglob("*"))
    assert main([command, str(run)]) == 2
    error = said(capsys)
    assert error.startswith(f"rlgan: none of the 2 checkpoints in {run / 'checkpoints'} can be used: ")
    assert sentence in error and "Traceback" not in error
    assert sorted(run.rglob("*")) == before


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tree = yaml.safe_load((run / "config.yaml").read_text())
    change(tree)
    (run / "config.yaml").write_text(yaml.safe_dump(tree))


@pytest.mark.parametrize("command", ["resume", "eval"])
def test_a_checkpoint_of_another_run(command: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(run, lambda tree: tree.update(agent={"name": "steerer"}))
    assert main([command, str(run)]) == 2
    assert said(capsys) == (f"rlgan: the checkpoint in {run} is of agent=dqn, but config.yaml says agent=steerer\n")
    rewrite(run, lambda tree: tree.update(agent={"name": "dqn", "hidden": [17]}))
    assert main([command, str(run)]) == 2
    error = said(capsys)
    assert (
        f"rlgan: the checkpoint {newest(run)} does not fit the settings in {run / 'config.yaml'} (size mismatch"
        in error
    )
    assert error.endswith("): put back those that it was made with\n")


def test_other_versions_are_said_not_to_be_exact(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate(newest(run))
    found = rundir.versions
    monkeypatch.setattr(rundir, "versions", lambda of: {**found(of), "torch": "9.9"})
    assert main(["resume", str(run)]) == 0
    assert f", not exactly: torch was {torch.__version__} and is 9.9\n" in said(capsys)


def test_a_run_is_made_longer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(
        "generator=mle data=oracle preset=none data.vocabulary=12 data.length=6 data.samples=32 eval.samples=9 "
        "generator.batch_size=8 checkpoint.every=4 record.every=4 threads=1"
    )
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(["run", *words, "steps=20", f"dir={whole}"]) == 0
    assert main(["run", *words, "steps=10", f"dir={run}"]) == 0
    saved = newest(run)
    said(capsys)
    assert main(["resume", str(run), "steps=10"]) == 2
    assert said(capsys) == f"rlgan: the run in {run} is at step 10: write steps= above that, or leave it out\n"
    assert main(["resume", str(run), "stepz=20"]) == 2
    assert "steps" in said(capsys) and newest(run) == saved and "steps: 10\n" in (run / "config.yaml").read_text()
    assert main(["resume", str(run), "steps=20"]) == 0
    error = said(capsys)
    assert "mle on oracle: 20 steps" in error and "from step 10, not exactly: steps was 10 and is 20\n" in error
    longer, straight = (trained.load(folder).learner.state_dict()["policy"] for folder in (run, whole))
    assert all(torch.equal(longer[name], straight[name]) for name in straight)  # it has nothing that anneals
    assert [row["step"] for row in record.read(run / "metrics.jsonl") if row["kind"] == "eval"] == [10, 20]
    assert (run / "config.yaml").read_text() == (whole / "config.yaml").read_text()
    assert main(["resume", str(run)]) == 0
    assert "this run has reached its end" in said(capsys)
    (run / "config.yaml.new").mkdir()
    assert main(["resume", str(run), "steps=22"]) == 1
    assert said(capsys).endswith(f"rlgan: the run directory {run} could not be written: Is a directory\n")
    assert "steps: 20\n" in (run / "config.yaml").read_text()
    (run / "config.yaml.new").rmdir()
    rewrite(run, lambda tree: tree.update(steps=24))  # by hand
    assert main(["resume", str(run)]) == 0 and newest(run).name == "step_24"


def test_a_resume_keeps_the_threads(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(run, lambda tree: tree.update(threads=2))
    assert main(["resume", str(run)]) == 0
    assert "device cpu, 1 thread, capture eager" in said(capsys)


def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "full"
    write = durable.HashedWriter.write

    def full(self: Any, data: Any) -> None:
        if any((folder / "checkpoints").glob("step_*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    words = [*CARTPOLE, "steps=1200", "agent.learning_starts=400", "checkpoint.every=400", f"dir={folder}"]
    with monkeypatch.context() as patch:
        patch.setattr(durable.HashedWriter, "write", full)
        assert main(["run", *words]) == 1
    error = said(capsys)
    assert "could not be saved" in error and "No space left on device" in error
    assert f"the last checkpoint is {newest(folder)}, go on with: rlgan resume {folder}\n" in error
    assert len(list((folder / "checkpoints").glob("step_*"))) == 1
    assert main(["resume", str(folder)]) == 0
    assert hashes(folder) == hashes(finished)


def test_a_checkpoint_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ranks = tmp_path / "of two words", [0.0, 1.0]
    monkeypatch.setattr(judge.Games, "rank", lambda self, row: ranks.pop(0) if ranks else 0.0)  # the second is best
    words = [*CARTPOLE, "steps=1600", "checkpoint.every=400", "checkpoint.keep=1", "eval.every=400", f"dir={folder}"]
    assert main(["run", *words]) == 0
    assert said(capsys).endswith(f"see it: rlgan watch '{folder}'\n")
    evaluated = [row for row in record.read(folder / "metrics.jsonl") if row["kind"] == "eval"]
    best, last = evaluated[1]["step"], evaluated[-1]["step"]
    steps, judged = {}, {}
    for which in ("newest", "best", str(best)):
        assert main(["eval", str(folder), f"checkpoint={which}", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        steps[which], judged[which] = found["step"], found["returns"]
    assert steps == {"newest": last, "best": best, str(best): best}
    assert judged["best"] == judged[str(best)] == evaluated[1]["returns"]
    states = [trained.load(folder, which=which).learner.q.state_dict() for which in ("newest", "best", str(best))]
    assert not torch.equal(states[0]["layers.0.weight"], states[1]["layers.0.weight"])
    assert torch.equal(states[1]["layers.0.weight"], states[2]["layers.0.weight"])
    assert main(["watch", str(folder), "checkpoint=best"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "videos" / "best-seed0.mp4")
    assert main(["eval", str(folder), "checkpoint=7"]) == 2
    kept = f"{folder}/checkpoints has no checkpoint of step 7: there are those of steps {last}, {best}\n"
    assert said(capsys) == f"rlgan: {kept}"
    (folder / "checkpoints" / f"step_{last}" / "manifest.json").write_text("{}")  # another is damaged
    assert main(["eval", str(folder), "checkpoint=best"]) == 0


def test_the_best_of_the_last_step_stays_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run saves once more at its end; nothing was evaluated in between."""
    monkeypatch.setattr(OracleJudge, "rank", lambda self, row: row["step"])
    words = "generator=mle data=oracle preset=none data.vocabulary=9 data.width=3 data.length=5 data.samples=64"
    words += " generator.batch_size=8 steps=30 eval.every=10 eval.samples=20 checkpoint.keep=1 threads=1"
    assert main(["run", *words.split(), f"dir={tmp_path / 'x'}"]) == 0
    assert [row["step"] for row in record.read(tmp_path / "x" / "metrics.jsonl") if row["kind"] == "eval"] == [
        10,
        20,
        30,
    ]
    assert checkpoint.chosen(tmp_path / "x" / "checkpoints", "best").step == 30


def test_a_folder_is_taken_by_one_run(tmp_path: Path) -> None:
    """The other began at the same moment, and was first."""
    run = config.resolve_one([*CARTPOLE, f"dir={tmp_path}"], Registry())
    with rundir.begun(run, tmp_path), pytest.raises(UsageError, match="is being written by another rlgan process"):
        rundir.begun(run, tmp_path).__enter__()
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        rundir.begun(replace(run, config=replace(run.config, seed=5)), tmp_path).__enter__()
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_nothing_was_evaluated_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*CARTPOLE, "agent.lr=1e30", "agent.learning_starts=600", "steps=2000", "checkpoint.every=400", "dir=x"]
    assert main(["run", *words]) == 5
    capsys.readouterr()
    assert main(["eval", "x", "checkpoint=best"]) == 2
    assert "x/checkpoints has no best checkpoint, for nothing was evaluated yet: there are" in said(capsys)
    assert main(["eval", "x", "checkpoint=first"]) == 2
    assert "checkpoint takes newest, best or the step of a checkpoint, default newest" in said(capsys)


# --- numbers that are not finite ---


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["env=cartpole", "agent.lr=1e30"], ": all tensors of the run are still finite. "),
        (
            ["env=walk", "env.fault=huge reward", "agent.loss=mse"],
            ": the first bad tensor is learner/q/layers.0.weight. ",
        ),
    ],
)
def test_a_loss_that_is_not_finite(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["agent=dqn", "preset=none", "agent.hidden=[16]", "agent.learning_starts=600", "checkpoint.every=400"]
    assert main(["run", *common, *words, "steps=3000", "record.every=200", "eval.episodes=2", "dir=x"]) == 5
    error = said(capsys)
    assert f"the last checkpoint is {newest(Path('x'))}\n" in error
    assert "rlgan: loss is not finite at step " in error
    assert error.endswith(f"{sentence}Lower the learning rate or the gradient norm and start again\n")
    assert main(["eval", "x", "--json"]) == 0


def test_a_parameter_that_is_not_finite_is_never_saved(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: DQN) -> None:
        next(self.q.parameters()).data[0, 0] = float("nan")

    monkeypatch.setattr(DQN, "sync", spoil)
    assert main(["run", *CARTPOLE, "steps=2000", "agent.sync_every=20", "checkpoint.every=8", "dir=x"]) == 5
    error = said(capsys)
    assert "rlgan: the tensor learner/q/" in error and "is not finite at step" in error
    assert all(bool(t.isfinite().all()) for t in checkpoint.load(newest(Path("x"))).tree["learner"]["q"].values())


def test_no_checkpoint_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *CARTPOLE, "agent.lr=1e30", "agent.learning_starts=50", "steps=2000", "dir=x"]) == 5
    assert "there is no checkpoint yet\n" in said(capsys)


# --- envs that break their contract ---


@pytest.mark.parametrize(
    ("env", "fault", "sentence"),
    [
        ("walk", "no factory", "env walk raised OSError when it was made: the data file is gone"),
        ("walk", "no space", "env walk has no observation_space: every env must have it"),
        ("walk", "two actions", "env walk has action_space=2; it must be one of gymnasium.spaces"),
        ("walk", "no end", "env walk has max_steps=0; it must be a whole number of at least 1"),
        ("walk", "raises in reset", "env walk raised ValueError in its reset: no starting state"),
        ("walk", "raises", "env walk raised ValueError in its step: the arm fell off"),
        (
            "walk",
            "obs shape",
            "env walk returned the observation as float32 of (8, 1) on cpu; it must be float32 of (8, 2)",
        ),
        (
            "walk",
            "obs dtype",
            "returned the observation as float64 of (8, 2) on cpu; it must be float32 of (8, 2) on cpu",
        ),
        ("walk", "obs type", "returned the observation as ndarray; it must be float32 of (8, 2) on cpu"),
        ("walk", "reward shape", "returned the reward as float32 of (8, 1) on cpu; it must be float32 of (8,) on cpu"),
        ("walk", "reward dtype", "returned the reward as int64 of (8,) on cpu; it must be float32 of (8,) on cpu"),
        ("walk", "terminated dtype", "returned terminated as float32 of (8,) on cpu; it must be bool of (8,) on cpu"),
        (
            "walk",
            "state dtype",
            "returned the state's 'x' from step as float64 of (8, 2) on cpu; it must be float32 of",
        ),
        ("walk", "state keys", "returned the state as ['y'] from step; it must have the keys ['x']"),
        (
            "walk",
            "state is a tensor",
            "returned float32 of (8, 2) on cpu from reset; it must be a dict of tensors (8, ...)",
        ),
        (
            "walk",
            "state of one copy",
            "'x' as float32 of (2, 8) on cpu from reset; it must be a tensor (8, ...) on cpu",
        ),
        ("walk", "four results", "returned tuple from step; it must be (state, reward, terminated)"),
        ("sim", "no factory", "env sim raised OSError when it was made: the data file is gone"),
        ("sim", "raises in reset", "Env sim raised ValueError at row 0: no starting state"),
        ("sim", "raises", "Env sim raised ValueError at row 151: the arm fell off"),
        (
            "sim",
            "obs shape",
            "Env sim returned the observation as float32 of (8, 1) at row 152; it must be float32 of (8, 2)",
        ),
        ("sim", "obs dtype", "Env sim returned the observation as float64 of (8, 2) at row 152; it must be float32"),
        (
            "sim",
            "reward shape",
            "Env sim returned the reward as float64 of (8, 1) at row 151; it must be numbers of (8,)",
        ),
        ("sim", "terminated dtype", "Env sim returned terminated as int64 of (8,) at row 151; it must be bool of (8,)"),
    ],
)
def test_a_faulty_env(env: str, fault: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent=dqn", f"env={env}", f"env.fault={fault}", "agent.hidden=[8]", "eval.episodes=2"]
    assert main(["run", *words, "steps=3000", "checkpoint.every=800", "dir=x"]) == 4
    error = said(capsys)
    assert sentence in error and "Traceback" not in error
    begins = fault not in ("no factory", "raises in reset") if env == "sim" else fault == "raises"
    assert bool(list(Path("x").glob("checkpoints/step_*"))) == begins
    if begins:
        assert checkpoint.newest(Path("x/checkpoints")).step > 700


@pytest.mark.parametrize("env", ["walk", "sim"])
def test_an_env_that_hangs_ends_the_run(env: str, plugin: Path, tmp_path: Path) -> None:
    words = ["agent=dqn", f"env={env}", "env.fault=hangs", "agent.hidden=[8]", "checkpoint.every=800", "timeout=1"]
    ended = subprocess.run(
        [sys.executable, "-m", "rlgan", "run", *words, "steps=3000", "dir=x"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(plugin)},
    )
    assert ended.returncode == 4
    assert ended.stderr.endswith(
        f"Env {env} did not answer within 1 seconds, so the process was ended; "
        f"the last checkpoint is {newest(Path('x'))}\n"
    )
    assert checkpoint.newest(tmp_path / "x" / "checkpoints").step > 700


def test_checking_an_env_takes_no_random_number_of_the_run() -> None:
    asked = config.resolve_one(["agent=dqn", "env=cartpole"], Registry())
    torch.manual_seed(3)
    env = assembly.build_env(asked, 4, torch.device("cpu"), seed=0, barrier=1)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    VecEnv(asked.world.spec.factory(asked.world.config, "cpu", torch.float32), 4, "cpu")
    assert torch.equal(after, torch.get_rng_state())
    env.close()


def test_a_run_directory_has_one_writer(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rundir.locked(run):
        assert main(["resume", str(run)]) == 2
    assert said(capsys) == f"rlgan: {run} is being written by another rlgan process: wait for its end or stop it\n"


def test_an_env_without_pictures_cannot_be_filmed(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(CartPole, "render")
    assert main(["watch", str(run)]) == 2
    assert said(capsys).endswith("rlgan: env=cartpole cannot be filmed: it has no render(state, i)\n")


# --- agents that break their contract ---


class Straight:
    """An agent that always pushes to the right, with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        if fault == "no carry":
            self.carry = None
        if fault == "made":
            raise KeyError("layers")

    def carry(self, n: int) -> None: ...

    def phases(self) -> Any:
        return None if self.fault == "phases" else [self.act] if self.fault == "phase" else []

    def state_dict(self) -> dict[str, Any]:
        if self.fault == "lost":
            return {"since": date(2026, 1, 1)}
        return {} if self.fault != "state" else {"kept": self.kept}  # type: ignore[attr-defined]

    def load_state_dict(self, tree: dict[str, Any]) -> None: ...

    def act(self, obs: Tensor, carry: None, step: Tensor, explore: bool) -> Any:
        right = torch.ones(len(obs), dtype=torch.int64)
        actions = {"shape": right[:, None], "dtype": right.float(), "far": right + 1, "key": right}
        action = actions.get(self.fault, right)
        if self.fault == "raises":
            raise KeyError("speed")
        return action if self.fault == "bare" else ({"move" if self.fault == "key" else "action": action}, None)


def put(monkeypatch: pytest.MonkeyPatch, kind: str, factory: Callable[..., Any]) -> None:
    """In the place of every plugin of a kind."""
    find = Registry.get

    def found(self: Registry, asked: str, name: str) -> Any:
        spec = find(self, asked, name)
        return replace(spec, factory=factory) if asked == kind else spec

    monkeypatch.setattr(Registry, "get", found)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("made", "raised KeyError when it was made: 'layers'"),
        ("no carry", "has no carry(): every agent must have it"),
        ("phases", "returned NoneType from phases; it must be a list of Phase, which may be empty"),
        ("phase", "returned a list with method from phases; it must be a list of Phase"),
        ("state", "raised AttributeError in its state_dict: 'Straight' object has no attribute 'kept'"),
        (
            "lost",
            "has a state_dict that cannot be saved: 'since' is a date; a state holds tensors, numbers, strings, None, "
            "dicts and lists",
        ),
        ("raises", "raised KeyError in its act: 'speed'"),
        ("bare", "returned int64 of (8,) on cpu from act; it must be (a dict with 'action', the next carry)"),
        ("key", "returned a dict with ['move'] from act; it must be a dict with 'action'"),
        ("shape", "returned actions as int64 of (8, 1) on cpu; they must be int64 of (8,) on cpu"),
        ("dtype", "returned actions as float32 of (8,) on cpu; they must be int64 of (8,) on cpu"),
        ("far", "gives an action that lies outside of Discrete(2) in copy 0: 2"),
    ],
)
def test_a_faulty_agent(
    fault: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named before the run begins, and the env is not blamed."""
    put(monkeypatch, "agents", lambda *_: Straight(fault))
    refused(["agent=random", "env=cartpole"], f"agent random {sentence}", capsys)


def refused(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the run begins."""
    assert main(["run", *words, "dir=x"]) == 3
    assert said(capsys) == f"rlgan: {sentence}\n"
    assert not Path("x").exists()


class Copies:
    """A generator that knows one sequence, with one fault."""

    def __init__(self, data: DataSet, fault: str) -> None:
        self.real, self.fault = data.real, fault
        if fault == "no log_prob":
            self.log_prob = None
        if fault == "made":
            raise KeyError("layers")

    def sample(self, n: int, prefix: Tensor | None = None) -> Tensor:
        if self.fault == "raises":
            raise KeyError("words")
        made = self.real[:1].expand(n, -1)
        return made[:, 1:] if self.fault == "short" else made.float() if self.fault == "dtype" else made

    def log_prob(self, tokens: Tensor) -> Tensor:
        return torch.zeros(tokens.shape)

    def phases(self) -> list[Phase]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"since": date(2026, 1, 1)} if self.fault == "lost" else {}

    def load_state_dict(self, tree: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("made", "raised KeyError when it was made: 'layers'"),
        ("no log_prob", "has no log_prob(): every generator must have it"),
        ("raises", "raised KeyError in its sample: 'words'"),
        (
            "short",
            "returned int64 of (2, 7) on cpu from sample(2); it must be int64 of (2, 8) on cpu, as DataSet.real is",
        ),
        (
            "dtype",
            "returned float32 of (2, 8) on cpu from sample(2); it must be int64 of (2, 8) on cpu, as DataSet.real is",
        ),
        (
            "lost",
            "has a state_dict that cannot be saved: 'since' is a date; a state holds tensors, numbers, strings, None, "
            "dicts and lists",
        ),
    ],
)
def test_a_faulty_generator(
    fault: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named before the run begins."""
    put(monkeypatch, "generators", lambda data, *_: Copies(data, fault))
    Path("poem.txt").write_text("roses x\nviolets\n" * 8)
    refused(["generator=mle", "data=lines:poem.txt", "data.length=8"], f"generator mle {sentence}", capsys)


class Praise:
    """A reward model that praises every row, with one fault."""

    when, every, batch_size = "collect", 4, 8

    def __init__(self, fault: str) -> None:
        self.fault = fault
        if fault == "when":
            self.when = "never"
        if fault == "every":
            self.every = 0

    def reward(self, rows: dict[str, Tensor], learner: Any) -> Any:
        praise = torch.ones(rows["obs"].shape[:2])
        return praise[0] if self.fault == "shape" else praise

    def update(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, tree: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("when", "has when='never'; it must be 'collect' or 'sample'"),
        ("every", "has every=0; it must be a whole number of at least 1"),
        ("shape", "returned float32 of (8,) on cpu from reward; it must be floats of (1, 8)"),
    ],
)
def test_a_faulty_reward_model(
    fault: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named before the run begins, and the agent is not blamed."""
    put(monkeypatch, "rewards", lambda *_: Praise(fault))
    refused(["agent=ppo", "env=cartpole", "reward=rnd"], f"reward model rnd {sentence}", capsys)


def test_drawn_observations_are_within_reach() -> None:
    """Bounds that stand for none give no numbers that no game shows."""
    for dtype in (np.float32, np.float64):
        most = np.finfo(dtype).max
        drawn = contract.observations(
            Dict({"x": Box(-most, most, (500,), dtype), "y": Box(-1, 1, (2,), dtype)}), 4, torch.device("cpu")
        )
        assert drawn["x"].dtype == torch.from_numpy(np.empty(0, dtype)).dtype
        assert float(drawn["x"].abs().max()) < 10 and float(drawn["y"].abs().max()) <= 1
