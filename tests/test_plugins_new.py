"""`rlgan plugins new`, from the name to packages that are installed, tested and learn."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh_venv import FreshVenv, printed

from rlgan.cli import main as cli
from rlgan.cli import scaffold
from rlgan.discovery import Entry
from rlgan.errors import UsageError
from rlgan.registry import Registry
from rlgan.testing.plugins import check

pytest_plugins = ["rlgan.testing.fixtures"]
TEMPLATE = Path(__file__).parent.parent / "plugins" / "rlgan_template"
NONE = Registry([])


@pytest.mark.parametrize("kind", ["agent", "env", "generator"])
def test_a_package_has_no_trace_of_the_template(tmp_path: Path, kind: str) -> None:
    folder = scaffold.write("corner_shop", kind, tmp_path, NONE)
    assert folder == tmp_path / "rlgan-corner-shop"
    written = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    originals = {p.relative_to(TEMPLATE / kind) for p in (TEMPLATE / kind).rglob("*") if p.is_file()}
    originals = {p for p in originals if "__pycache__" not in p.parts}
    assert written == {Path(str(path).replace("plugin_name", "corner_shop")) for path in originals}
    texts = "".join((folder / path).read_text() for path in written)
    assert not re.search("plugin.?name", texts, re.IGNORECASE)
    assert f'corner_shop = "rlgan_corner_shop.{kind}"' in (folder / "pyproject.toml").read_text()
    assert f"class CornerShop{kind.capitalize()}" in (folder / f"src/rlgan_corner_shop/{kind}.py").read_text()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my-shop", r"^'my-shop' cannot be the name of a plugin: write lower-case letters, digits and single undersc"),
        ("Shop", r"^'Shop' cannot be the name"),
        ("9lives", r"^'9lives' cannot be the name"),
        ("../x", r"^'\.\./x' cannot be the name"),
        ("", r"^'' cannot be the name"),
        ("there", r"^rlgan-there exists already: take another name, or move it away\.$"),
        ("bandit", r"^the name 'bandit' is taken by the env 'bandit' from rlgan-toys 2: take another one\.$"),
        ("two_words", r"^the name 'two_words' is taken by the agent 'two-words' from rlgan-toys 2"),
        ("agents", r"^the package rlgan_agents is installed already: take another name\.$"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rlgan-there").mkdir()
    toys = [Entry("bandit", "envs", "rlgan-toys", "2", "x"), Entry("two-words", "agents", "rlgan-toys", "2", "x")]
    with pytest.raises(UsageError, match=sentence):
        scaffold.write(name, "env", Path(), Registry(toys))
    assert [path.name for path in tmp_path.iterdir()] == ["rlgan-there"]


def test_the_command_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plugins", "new", "kiosk", "--kind", "agent"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rlgan-kiosk is a package of a working agent. Next:\n  cd rlgan-kiosk\n  pip install -e")
    assert out.endswith("  rlgan run agent=kiosk env=cartpole\n")
    assert cli.main(["plugins", "new", "kiosk", "--kind", "agent"]) == 2
    assert cli.main(["plugins", "new", "other"]) == 2
    assert cli.main(["plugins", "new", "other", "--kind", "reward"]) == 2
    assert capsys.readouterr().err.startswith("rlgan: rlgan-kiosk exists already")


def test_the_scores_of_the_templates_env_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scaffold.write("checked_shop", "env", tmp_path, NONE)
    monkeypatch.syspath_prepend(folder / "src")
    from rlgan_checked_shop import env as module  # type: ignore[import-not-found]

    [spec] = module.rlgan_specs()
    shop = spec.factory(spec.config(), torch.device("cpu"), torch.float64)
    stock, order, demand = (
        x.flatten() for x in torch.meshgrid(*(torch.arange(k) for k in (21, 11, 11)), indexing="ij")
    )
    state, profit, _ = shop.day({"stock": stock}, order, demand)
    following, profit = state["stock"].view(21, 11, 11).numpy(), profit.view(21, 11, 11).numpy()
    best, random = np.zeros(21), np.zeros(21)
    for _ in range(spec.config().max_steps):
        best = (profit + best[following]).mean(2).max(1)
        random = (profit + random[following]).mean(2).mean(1)
    scores = {score.who: score.value for score in spec.scores}
    assert scores == {"random": pytest.approx(random.mean(), abs=0.05), "optimum": pytest.approx(best.mean(), abs=0.05)}


BROKEN = """
mkdir -p rlgan-torn && cd rlgan-torn
cat > pyproject.toml <<'EOF'
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "rlgan-torn"
version = "0.3"
[project.entry-points."rlgan.envs"]
torn = "rlgan_torn"
[project.entry-points."rlgan.generators"]
old = "rlgan_old"
[tool.hatch.build.targets.wheel]
only-include = ["rlgan_torn.py", "rlgan_old.py"]
EOF
echo 'import a_module_that_is_nowhere' > rlgan_torn.py
cat > rlgan_old.py <<'EOF'
from rlgan import GeneratorSpec, NoConfig, hookimpl
@hookimpl
def rlgan_specs():
    yield GeneratorSpec("old", print, NoConfig, "made for another contract", api=99)
EOF
pip install -q .
"""
TAKE = 'pip install -q -e ".[dev]" && rlgan plugins check {kind}s.{name} && pytest -q'
RUNS = {
    ("env", "corner_shop"): "rlgan run agent=dqn env=corner_shop steps=20k agent.lr=1e-3 dir=../corner_shop",
    ("agent", "my_critic"): "rlgan run agent=my_critic env=cartpole dir=../my_critic",
    ("generator", "my_vae"): "rlgan run generator=my_vae data=digits data.source=uci dir=../my_vae",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_kinds_are_installed_beside_broken_plugins_and_learn(tmp_path: Path) -> None:
    """Prints the seconds from `plugins new` to the end of the first learning run; the package's tests come after."""
    fresh, scores = FreshVenv(tmp_path / "venv"), {}

    def run(script: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = fresh.run(script, tmp_path)
        assert done.returncode == code, printed(done)
        return done

    run(BROKEN)
    for (kind, name), words in RUNS.items():
        folder, began = f"rlgan-{name.replace('_', '-')}", time.perf_counter()
        run(f"rlgan plugins new {name} --kind {kind} && cd {folder} && pip install -q -e . && {words}")
        learnt = time.perf_counter()
        run(f"cd {folder} && {TAKE.format(kind=kind, name=name)}")
        print(f"{kind}: learned {learnt - began:.0f} s after plugins new, tests {time.perf_counter() - learnt:.0f} s")
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        scores[name] = next(row for row in reversed(rows) if row["kind"] == "eval")
    assert scores["corner_shop"]["return_mean"] > 215 and scores["my_critic"]["return_mean"] > 80
    assert scores["my_vae"]["recognised"] > 0.3
    run("rlgan run agent=my_critic env=corner_shop steps=2k dir=both")
    status = {row["name"]: row for row in json.loads(run("rlgan plugins doctor --json", 3).stdout)["plugins"]}
    assert {name for name, row in status.items() if row["status"] == "broken"} == {"torn", "old"}
    assert status["torn"]["reason"] == "ModuleNotFoundError: No module named 'a_module_that_is_nowhere'"
    old = "it is made for version 99 of the plugin contract and this rlgan speaks version 1"
    assert status["old"]["reason"] == old and status["torn"]["distribution"] == "rlgan-torn"
    assert {status[name]["status"] for _, name in RUNS} == {"ok"}
    said = run("rlgan run generator=old data=digits", 3).stderr
    assert said == f"rlgan: generator 'old' from rlgan-torn 0.3 is broken: {old}. See `rlgan plugins doctor`.\n"
    gone = {"my_vae": ("sample", "generator"), "corner_shop": ("eval", "env"), "my_critic": ("eval", "agent")}
    for name, (command, noun) in gone.items():
        package = f"rlgan-{name.replace('_', '-')}"
        said = run(f"pip uninstall -q -y {package}; rlgan {command} {name}", 3).stderr
        needs = f"needs the {noun} '{name}' of {package}==0.1.0, which is not installed"
        assert f'rlgan: the run in {name} {needs}: pip install "{package}==0.1.0"\n' in said


EXAMPLE = re.compile(r"^```python\n(\"\"\".*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_contract_pass_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rlgan_registry: Callable[..., Registry]
) -> None:
    page = (TEMPLATE.parent.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
    sources = EXAMPLE.findall(page)
    assert len(sources) == 5
    for i, source in enumerate(sources):
        (tmp_path / f"documented_{i}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    registry = rlgan_registry(*(f"documented_{i}" for i in range(5)))
    found = {entry.kind: entry.name for entry in registry.all()}
    assert found == {"envs": "corridor", "agents": "linear-q", "data": "bars", "rewards": "surprise", "hooks": "csv"}
    for kind in ("envs", "agents", "data", "rewards"):
        assert [r for r in check(kind, found[kind], registry) if r.status != "ok"] == []
