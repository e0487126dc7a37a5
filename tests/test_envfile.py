"""Envs from one file: what a file may define, what it says when it does not, and the copy that a run keeps."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from rlgan import config, envfile, rundir
from rlgan.cli.main import main
from rlgan.errors import PluginError
from rlgan.registry import Registry
from rlgan.specs import NoConfig

SHOP = Path(__file__).with_name("shop.py")
RUN = shlex.split("agent=dqn steps=400 agent.learning_starts=100 agent.hidden=[8] eval.episodes=2 env.shelf=4")
PLAIN = """
class Still:
    def __init__(self, config, device, dtype): pass
    def reset(self, n, rng): pass
    def observe(self, state): pass
    def step(self, state, action, rng): pass
"""
HOOK = PLAIN.replace("Still", "_Hidden") + (
    "from rlgan import EnvSpec, NoConfig, Score, hookimpl\n"
    "@hookimpl\n"
    "def rlgan_specs():\n"
    "    yield EnvSpec('still', _Hidden, NoConfig, 'stands still', scores=(Score('optimum', 3.0, 'by hand'),))\n"
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHOP, "shop.py")


def load(text: str) -> envfile.EnvSpec:
    Path("e.py").write_text(text)
    return envfile.load(Path("e.py"), "./e.py")


def test_a_class_with_typed_settings() -> None:
    spec = envfile.load(Path("shop.py"), "./shop.py")
    assert (spec.name, spec.config.__name__, spec.factory.__name__) == ("./shop.py", "ShopConfig", "Shop")
    assert spec.summary.startswith("State ``stock`` (n,): pieces on the shelf.")
    assert spec.source == SHOP.read_bytes()
    assert not Path("__pycache__").exists()


def test_a_class_without_settings() -> None:
    assert load(PLAIN).config is NoConfig
    assert load("from __future__ import annotations\nimport rlgan\n" + PLAIN + "Alias = Still\n").factory.__name__ == (
        "Still"
    )
    assert load(PLAIN + "class _Base(Still): pass\n").factory.__name__ == "Still"


def test_a_hook_outranks_classes() -> None:
    spec = load(HOOK)
    assert (spec.name, spec.summary, spec.scores[0].value) == ("./e.py", "stands still", 3.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n\nraise OSError('the table is gone')\n", "env=./e.py raised OSError at line 3: the table is gone"),
        ("x = 1\nimport no_such\n", "env=./e.py raised ModuleNotFoundError at line 2: No module named 'no_such'"),
        ("def f():\n  int('x')\nf()\n", "env=./e.py raised ValueError at line 2: invalid literal for int()"),
        ("x = 1\nclass :\n", "env=./e.py raised SyntaxError at line 2: invalid syntax"),
        ("raise SystemExit\n", "env=./e.py raised SystemExit at line 1: no message"),
        ("x = 1\n", "env=./e.py defines no env: the file must define one class with reset, observe, step"),
        (
            PLAIN + "class Two(Still): pass\n",
            "env=./e.py defines 2 envs, Still and Two: the file must define one class",
        ),
        (PLAIN.replace("config, device, dtype", "size"), "env=./e.py: Still must be made as Still(config, device, d"),
        (
            PLAIN.replace("config,", "config: int,"),
            "Still takes its config as <class 'int'>, which is not a dataclass.",
        ),
        (PLAIN.replace("config,", "config: 'Gone',"), "the annotations of Still.__init__ cannot be read: name 'Gone'"),
        (
            "from dataclasses import dataclass\n@dataclass\nclass C:\n  name: str = ''\n"
            + PLAIN.replace("config,", "config: C,"),
            "env=./e.py: its config has a field 'name', which a config file needs",
        ),
        (HOOK.replace("yield EnvSpec", "1 / 0\n    yield EnvSpec"), "env=./e.py raised ZeroDivisionError at line 10: "),
        (HOOK.replace("NoConfig, 'stands", "NoConfig, family=True, summary='stands"), "one EnvSpec that is no family"),
        (
            HOOK.replace("3.0", "'7'"),
            "its score Score(who='optimum', value='7', source='by hand') is not a Score whose value is a number",
        ),
        (HOOK.replace(",))", "))"), "its scores Score(who='optimum', value=3.0, source='by hand') are not a tuple"),
        (HOOK.replace("yield EnvSpec", "yield 3; EnvSpec"), "./e.py yields 3, which is not a Spec"),
    ],
)
def test_a_faulty_file(text: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    with pytest.raises(PluginError) as error:
        load(text)
    assert sentence in str(error.value)
    assert "raised" not in sentence or "ZeroDivision" in sentence or set(sys.modules) == before
    assert main(["run", "agent=dqn", "env=./e.py", "dir=x"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("rlgan: ") and sentence in said and said.count("\n") == 1
    assert not Path("x").exists()


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "agent=dqn", "env=./gone.py", "dir=x"]) == 2
    assert capsys.readouterr().err == "rlgan: env=./gone.py: there is no such file.\n"


def test_settings_of_a_file_are_judged_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "agent=dqn", "env=./shop.py", "env.shelv=3"]) == 2
    assert (
        "unknown key 'env.shelv': did you mean 'env.shelf' (whole number >= 1, default 10)" in capsys.readouterr().err
    )
    assert main(["run", "agent=dqn", "env=./shop.py", "--help"]) == 0
    assert "Most pieces that the shelf holds. (whole number >= 1)" in capsys.readouterr().out


def test_a_config_file_alone_runs_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    Path("e.py").write_text("raise SystemExit('it ran')\n")
    Path("c.yaml").write_text("agent: dqn\nenv: ./e.py\n")
    assert main(["run", "@c.yaml"]) == 2
    assert "rlgan: env=./e.py is a file, and a config file alone may not choose code to run" in capsys.readouterr().err
    assert main(["run", "@c.yaml", "env=./e.py"]) == 3


def test_a_matrix_of_files() -> None:
    shutil.copy("shop.py", "other.py")
    runs = config.resolve(["agent=dqn", "env=./shop.py,./other.py", "seed=0,1"], Registry())
    assert [run.config.env for run in runs] == ["./shop.py"] * 2 + ["./other.py"] * 2
    assert runs[0].world.spec is runs[1].world.spec
    assert rundir.new_name(runs[0]).startswith("runs/dqn-shop-s0-")


def test_runs_of_one_second_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir.time, "strftime", lambda form: "now")
    run = config.resolve_one(["agent=dqn", "env=./shop.py"], Registry())
    names = []
    for _ in range(3):
        names.append(rundir.new_name(run))
        Path(names[-1]).mkdir(parents=True)
    assert names == ["runs/dqn-shop-s0-now", "runs/dqn-shop-s0-now-2", "runs/dqn-shop-s0-now-3"]


def test_a_file_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", "./shop.py"]) == 0
    assert capsys.readouterr().out.endswith(" checks, 0 failed\n")
    text = Path("shop.py").read_text()
    Path("faulty.py").write_text(
        text.replace("def observe(self, state):", "def observe(self, state):\n        return 1\n")
    )
    assert main(["plugins", "check", "faulty.py"]) == 3
    assert main(["plugins", "check", "none.py"]) == 2
    assert "env=none.py: the file cannot be read" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose file is gone but for its copy."""
    folder = tmp_path_factory.mktemp("finished")
    file = shutil.copy(SHOP, folder / "shop.py")
    assert main(["run", f"env={file}", *RUN, f"dir={folder / 'run'}"]) == 0
    Path(file).unlink()
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_the_copy_is_what_is_used(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = hashlib.sha256(SHOP.read_bytes()).hexdigest()
    assert (run / "env.py").read_bytes() == SHOP.read_bytes()
    assert (run / "env.py.sha256").read_text() == f"{digest}  env.py\n"
    assert main(["eval", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert f"shop.py sha256={digest[:12]} shelf=4 " in result["protocol"]
    assert main(["resume", str(run)]) == 0
    assert "this run has reached its end" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["resume", "eval", "watch"])
def test_a_copy_that_was_changed_is_not_run(command: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "env.py").write_text("raise SystemExit('it ran')\n")
    assert main([command, str(run)]) == 2
    assert f"{run / 'env.py'} is not the env file that its run began with: it does" in capsys.readouterr().err
    (run / "env.py").unlink()
    assert main([command, str(run)]) == 2
    assert f"{run} has lost the env file of its run" in capsys.readouterr().err


NARROW = """
import numpy as np
import torch
from gymnasium.spaces import Discrete

class Walk:
    observation_space, action_space, max_steps = Discrete(4, dtype=np.int32), Discrete(2, dtype=np.int32), 9

    def __init__(self, config, device, dtype):
        self.device = device

    def reset(self, n, rng):
        return {"place": torch.zeros(n, dtype=torch.int32, device=self.device)}

    def observe(self, state):
        return state["place"]

    def step(self, state, action, rng):
        place = (state["place"] + action).clamp(max=3).int()
        return {"place": place}, place.float(), place >= 3
"""
VECTOR = (
    NARROW.replace("Discrete(4, dtype=np.int32)", "Box(0.0, 4.0, (), np.float32)")
    .replace("import Discrete", "import Box, Discrete")
    .replace('return state["place"]', 'return state["place"].float()')
)


@pytest.mark.parametrize("agent", ["ppo agent.horizon=16 agent.minibatch=16", "q-learning"])
def test_spaces_of_narrow_numbers(agent: str) -> None:
    Path("e.py").write_text(NARROW)
    words = shlex.split(f"agent={agent} env=./e.py steps=200 copies=4 preset=none dir=run")
    assert main(["run", *words]) == 0


@pytest.mark.parametrize("agent", ["dqn", "sac", "ppo", "pqn"])
def test_a_single_number_and_narrow_actions_are_learned_from_and_resumed(agent: str) -> None:
    Path("e.py").write_text(VECTOR)
    more = {"dqn": "agent.hidden=[8]", "sac": "agent.hidden=[8] agent.batch_size=8"}.get(
        agent, "agent.horizon=16 agent.minibatch=16"
    )
    learned = "agent.learning_starts=50" if agent in ("dqn", "sac") else ""
    words = shlex.split(
        f"agent={agent} env=./e.py steps=200 copies=4 preset=none checkpoint.every=100 dir=run {more} {learned}"
    )
    assert main(["run", *words]) == 0
    shutil.rmtree(max(Path("run/checkpoints").glob("step_*")))
    assert main(["resume", "run"]) == 0


def test_parts_whose_names_cannot_be_saved_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parts = VECTOR.replace("Box(0.0, 4.0, (), np.float32)", 'Dict({"a/b": Box(0.0, 4.0, (), np.float32)})')
    parts = parts.replace("import Box", "import Dict, Box").replace(
        'return state["place"].float()', 'return {"a/b": state["place"].float()}'
    )
    Path("e.py").write_text(parts)
    assert main(["run", *shlex.split("agent=ppo env=./e.py steps=200 preset=none dir=run")]) != 0
    said = "env ./e.py shows a part named 'a/b'; names are strings without '/' that do not begin with '$'"
    assert said in capsys.readouterr().err
