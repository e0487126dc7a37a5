"""The command line as a user meets it: sentences, exit codes, JSON, start-up time, completion."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlgan
from rlgan import AgentSpec, EnvSpec, NoConfig, Preset, hookimpl
from rlgan.cli import main as cli
from rlgan.cli.matrix import run_each
from rlgan.discovery import Entry
from rlgan.errors import EnvError
from rlgan.registry import Registry

MODULE = [sys.executable, "-m", "rlgan"]


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of the fake agent."""

    lr: float = 1e-3
    """Step size."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Fake plugins, and a session that notes how it is called. Works in an empty directory."""
    module: Any = types.ModuleType("fake_specs")
    presets = (Preset("quick", "game", {"agent.lr": 0.5}, default=True, note="Solved in a minute."),)

    @hookimpl
    def rlgan_specs() -> Iterator[Any]:
        yield AgentSpec("learner", object, LearnerConfig, "learns", lambda o, a: None, presets)
        yield EnvSpec("game", object, NoConfig, "a game")

    module.rlgan_specs = rlgan_specs
    entries = [Entry("learner", "agents", "fake", "1", "fake_specs"), Entry("game", "envs", "fake", "1", "fake_specs")]
    monkeypatch.setitem(sys.modules, "fake_specs", module)
    monkeypatch.setattr(cli, "_registry", lambda: Registry(entries))
    monkeypatch.chdir(tmp_path)
    calls: dict[str, Any] = {"entries": entries}
    session: Any = types.ModuleType("rlgan.session")

    def note(name: str, result: Any) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls[name] = args
            if isinstance(result, BaseException):
                raise result
            return calls.get("result", result)

        return call

    session.train = note("train", 0)
    session.resume = note("resume", 0)
    session.evaluate = note("evaluate", {"return_mean": 1.5, "episodes": 2, "returns": [1.0, 2.0]})
    film = types.ModuleType("rlgan.film")
    film.watch = note("watch", Path("film.mp4"))
    session.note = note
    calls["session"] = session
    monkeypatch.setitem(sys.modules, "rlgan.session", session)
    monkeypatch.setattr(rlgan, "session", session, raising=False)
    monkeypatch.setitem(sys.modules, "rlgan.film", film)
    monkeypatch.setattr(rlgan, "film", film, raising=False)
    yield calls


RUN = ["run", "agent=learner", "env=game"]


def run_dir(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("agent: learner\n")
    return path


def test_run_hands_the_resolved_run_to_the_session(fake: dict[str, Any]) -> None:
    assert cli.main([*RUN, "seed=4"]) == 0
    [run] = fake["train"]
    assert (run.config.seed, run.learner.config.lr, run.preset.name) == (4, 0.5, "quick")


@pytest.mark.parametrize("code", [0, 5, 130, 143])
def test_the_sessions_exit_code_is_ours(fake: dict[str, Any], code: int) -> None:
    fake["result"] = code
    assert cli.main(RUN) == code


def test_an_error_is_a_sentence_and_a_code(
    fake: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake["session"].train = fake["session"].note("train", EnvError("env game broke."))
    assert cli.main(RUN) == 4
    assert capsys.readouterr().err == "rlgan: env game broke.\n"
    monkeypatch.setenv("RLGAN_STRICT", "1")
    with pytest.raises(EnvError):
        cli.main(RUN)


def test_all_problems_stand_on_stderr(fake: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RUN, "agent.lrr=1", "seed=x"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "rlgan: unknown key 'agent.lrr': did you mean 'agent.lr' (number, default 0.001)? Step size.",
        "rlgan: seed=x: is not a whole number; seed takes whole number >= 0 and <= 9223372036854775807, default 0.",
    ]
    assert "train" not in fake


def test_unknown_options_and_commands_are_usage_errors(
    fake: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*RUN, "--steps", "5"]) == 2
    assert cli.main(["rnu"]) == 2
    assert "No such command 'rnu'" in capsys.readouterr().err


def test_dry_run_prints_a_config_that_is_valid_again(fake: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RUN, "seed=4", "--dry-run"]) == 0
    text = capsys.readouterr().out
    tree = yaml.safe_load(text)
    assert (tree["agent"], tree["env"], tree["seed"]) == ({"name": "learner", "lr": 0.5}, {"name": "game"}, 4)
    Path("x.yaml").write_text(text)
    assert cli.main(["run", "@x.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out == text
    assert cli.main([*RUN, "seed=4,5", "--dry-run"]) == 0
    assert [run["seed"] for run in yaml.safe_load_all(capsys.readouterr().out)] == [4, 5]
    assert "train" not in fake


def test_help_shows_each_key_with_its_origin(fake: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RUN, "seed=4", "--help"]) == 0
    text = capsys.readouterr().out
    assert "  agent.lr = 0.5  [preset quick]\n      Step size. (number)\n" in text
    assert "  seed = 4  [command line]\n      Fixes every random number of the run. (whole number >= 0 and" in text
    assert "  checkpoint.keep = 2  [default]\n" in text
    assert "  quick  for game  Solved in a minute. (auto)" in text
    assert cli.main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert 'agent = ""  [default]' in text and "agent.lr" not in text.partition("Keys of")[2]


def test_list_and_plugins(fake: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == "agents\n  learner\nenvs\n  game\n"
    assert cli.main(["list", "agents", "-v"]) == 0
    assert capsys.readouterr().out == "agents\n  learner  learns\n"
    assert cli.main(["list", "envs", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["envs"]
    assert (row["name"], row["status"], row["module"]) == ("game", "installed", "fake_specs")
    assert cli.main(["plugins"]) == 0
    assert "agents  learner  fake          1        installed" in capsys.readouterr().out
    assert cli.main(["plugins", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["plugins"]] == ["learner", "game"]


def test_doctor(fake: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "doctor"]) == 0
    assert "2 plugins, 0 broken" in capsys.readouterr().out
    fake["entries"].append(Entry("torn", "envs", "fake-torn", "2", "no_such_module_x"))
    assert cli.main(["plugins", "doctor", "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)["plugins"]
    assert [(row["name"], row["status"], row["api"]) for row in rows] == [
        ("learner", "ok", 1),
        ("game", "ok", 1),
        ("torn", "broken", None),
    ]
    assert rows[2]["reason"] == "ModuleNotFoundError: No module named 'no_such_module_x'"
    assert cli.main(RUN) == 0


def test_eval_watch_and_resume(fake: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    old, new = run_dir(Path("runs/old")), run_dir(Path("runs/matrix/new"))
    os.utime(old / "config.yaml", (1, 1))
    assert cli.main(["eval", "last", "episodes=100", "seed=1", "--json"]) == 0
    assert fake["evaluate"] == (new, 100, None, 1, None, None, "newest")
    assert json.loads(capsys.readouterr().out) == {"return_mean": 1.5, "episodes": 2, "returns": [1.0, 2.0]}
    assert cli.main(["eval", str(old)]) == 0
    assert fake["evaluate"] == (old, None, None, 0, None, None, "newest")
    assert capsys.readouterr().out == "return_mean: 1.5\nepisodes: 2\n"
    assert cli.main(["watch", "last", "out=x.mp4"]) == 0
    assert fake["watch"] == (new, 1, 0, Path("x.mp4"), "newest")
    assert capsys.readouterr().out == "film.mp4\n"
    fake["result"] = 130
    assert cli.main(["resume", str(old)]) == 130
    assert fake["resume"] == (old, None)
    assert cli.main(["resume", str(old), "steps=2M"]) == 130
    assert fake["resume"] == (old, 2_000_000)


def test_bad_run_directories_and_words(fake: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resume", "last"]) == 2
    sentence = "rlgan: there is no run under runs/: start one with `rlgan run agent=NAME env=NAME`.\n"
    assert capsys.readouterr().err == sentence
    assert cli.main(["watch", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("rlgan: nowhere is not a run directory (it has no config.yaml)")
    run_dir(Path("runs/a"))
    assert cli.main(["eval", "last", "episode=3", "seed=1,2"]) == 2
    assert cli.main(["eval", "last", "episode=3"]) == 2
    assert cli.main(["watch", "last", "episodes=0"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "rlgan: this command takes one value for each key and no files.",
        "rlgan: unknown key 'episode': did you mean 'episodes' (whole number >= 1 or none, default none)? "
        "Whole games of an agent; none = as many as the run's eval.episodes.",
        "rlgan: episodes=0: must be greater than or equal to 1; episodes takes whole number >= 1, default 1.",
    ]


PROGRAM = "import sys; print(sys.argv[1:], flush=True); sys.exit(sum(5 for w in sys.argv if w == 'seed=1'))"


def matrix(words: list[str]) -> list[Any]:
    return [types.SimpleNamespace(overrides=(word,)) for word in words]


def test_a_matrix_runs_every_cell_and_returns_the_worst_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_each(matrix(["seed=0", "seed=1", "seed=2"]), [sys.executable, "-c", PROGRAM]) == 5
    captured = capfd.readouterr()
    assert captured.out.splitlines() == ["['seed=0']", "['seed=1']", "['seed=2']"]
    assert captured.err.splitlines()[1:3] == ["[2/3] rlgan run seed=1", "[2/3] ended with exit code 5"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_cell_and_ends_the_matrix(number: signal.Signals, code: int) -> None:
    child = (
        "import signal, sys, time\n"
        "for n in (2, 15): signal.signal(n, lambda n, f: (print('got', n, flush=True), sys.exit(0)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import sys, types\n"
        "from rlgan.cli.matrix import run_each\n"
        "runs = [types.SimpleNamespace(overrides=(w,)) for w in 'ab']\n"
        f"sys.exit(run_each(runs, [sys.executable, '-c', {child!r}]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None and it.stdout.readline() == "ready\n"
        it.send_signal(number)
        out, err = it.communicate(timeout=20)
    assert (it.returncode, out) == (code, f"got {int(number)}\n")
    assert err == "[1/2] rlgan run a\n"


FAST = {
    "--help": ["--help"],
    "list": ["list"],
    "plugins": ["plugins"],
    "misspelt agent": ["run", "agent=dqqn", "env=cartpole", "steps=x"],
    "misspelt env": ["run", "agent=dqn", "env=cartpol"],
    "run --help": ["run", "--help"],
}


@pytest.mark.parametrize("case", FAST)
def test_neither_torch_nor_gymnasium_is_imported(case: str) -> None:
    program = (
        "import sys; from rlgan.cli.main import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'gymnasium', 'numpy', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *FAST[case]], capture_output=True, text=True, check=False)
    assert "AssertionError" not in done.stderr
    assert done.returncode == (2 if "misspelt" in case else 0), done.stderr


@pytest.mark.parametrize("case", FAST)
def test_it_takes_less_than_300_ms_over_a_bare_interpreter(case: str) -> None:
    """Of the processor, so that other work of the machine does not count."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def best(command: list[str]) -> float:
        times = []
        for _ in range(5):
            began = spent()
            subprocess.run(command, capture_output=True, check=False)
            times.append(spent() - began)
        return min(times)

    assert best([*MODULE, *FAST[case]]) - best([sys.executable, "-c", "pass"]) < 0.3


def test_plugins_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "check", "cartpole"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shapes        ok" and lines[-1] == "11 checks, 0 failed"
    assert cli.main(["plugins", "check", "agents.dqn", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["plugin"] == "agents.dqn"
    assert tree["checks"][0] == {"check": "actions", "status": "ok", "reason": ""}


CHECKED = """
import torch
from gymnasium.spaces import Box, Discrete
from rlgan import EnvSpec, NoConfig, hookimpl
from rlgan_envs.cartpole import CartPole, CartPoleConfig

class Late(CartPole):
    def step(self, state, action, rng):
        if action.any():
            action = action * 1
        return super().step(state, action, rng)

class Wide(CartPole):
    def observe(self, state):
        return state["x"].double()

@hookimpl
def rlgan_specs():
    yield EnvSpec("late", Late, CartPoleConfig, "reads back")
    yield EnvSpec("wide", Wide, CartPoleConfig, "of the wrong dtype")
"""


def test_plugins_check_of_what_fails(
    fake: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checked_envs.py").write_text(CHECKED)
    monkeypatch.syspath_prepend(tmp_path)
    fake["entries"] += [Entry(name, "envs", "fake", "1", "checked_envs") for name in ("late", "wide")]
    fake["entries"] += [Entry("game", "agents", "fake", "1", "fake_specs"), Entry("csv", "hooks", "fake", "1", "x")]
    assert cli.main(["plugins", "check", "envs.late"]) == 3
    failed = [line for line in capsys.readouterr().out.splitlines() if " failed " in line]
    assert len(failed) == 1 and failed[0].startswith("host reads    failed  env late reads tensors back in step")
    assert "`if tensor` at checked_envs.py:9 (if action.any():)" in failed[0]
    assert cli.main(["plugins", "check", "wide", "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)["checks"]
    assert rows[0]["reason"].startswith("env wide returned the observation as float64")
    assert [row["status"] for row in rows] == ["failed"] + ["not run"] * (len(rows) - 1)
    for name in ("game", "lat", "hooks.csv", "envs.nothing"):
        assert cli.main(["plugins", "check", name]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "rlgan: 'game' names several plugins: write agents.game or envs.game.",
        "rlgan: no plugin is named 'lat': did you mean 'late'? See `rlgan list`.",
        "rlgan: there are no checks for hooks: they exist for agents, envs, generators, data, rewards.",
        "rlgan: unknown env 'nothing'. Installed: game, late, wide.",
    ]
