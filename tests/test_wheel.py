"""What an install puts on a user's machine: the wheel's top-level names, its entry points and its licence."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_top_level_names(wheel: zipfile.ZipFile) -> None:
    names = {name.split("/")[0] for name in wheel.namelist()}
    packages = {Path(path).name for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert names == packages | {f"rlgan-{PROJECT['project']['version']}.dist-info"}
    assert names.isdisjoint({"agents", "envs", "plugins", "tests", "benchmarks", "docs"})
    assert all(name.startswith("rlgan") for name in names)


def test_entry_points_name_modules_that_are_there(wheel: zipfile.ZipFile) -> None:
    declared = PROJECT["project"]["entry-points"] | {"console_scripts": PROJECT["project"]["scripts"]}
    (path,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    written = configparser.ConfigParser(delimiters=("=",))
    written.optionxform = str  # type: ignore[assignment, method-assign]
    written.read_string(wheel.read(path).decode())
    assert {group: dict(written[group]) for group in written.sections()} == declared
    assert declared["rlgan.agents"]["dqn"] == "rlgan_agents.dqn"
    assert declared["rlgan.envs"]["breakout"] == "rlgan_envs.atari"
    files = set(wheel.namelist())
    for entries in declared.values():
        for target in entries.values():
            module = target.partition(":")[0].replace(".", "/")
            assert {f"{module}.py", f"{module}/__init__.py"} & files, target


def test_licence_and_extras_travel_along(wheel: zipfile.ZipFile) -> None:
    (path,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = wheel.read(path).decode()
    assert "License-Expression: MIT" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    for extra in PROJECT["project"]["optional-dependencies"]:
        assert f"Provides-Extra: {extra}\n" in metadata


def test_every_extra_is_in_all_but_dev_and_what_pulls_in_unused_packages() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(everything.removeprefix("rlgan[").removesuffix("]").split(",")) == set(extras) - {
        "all",
        "dev",
        "finance",
    }


def test_torch_and_the_peer_are_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    assert pins["stable_baselines3"] == "2.9.2"
    assert not [name for name in pins if name.startswith(("nvidia", "torchvision", "triton"))]


def test_templates_are_package_data(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if name.startswith("rlgan_template/")}
    folder = ROOT / "plugins"
    files = {path for path in (folder / "rlgan_template").rglob("*") if path.is_file()}
    assert names == {str(path.relative_to(folder)) for path in files if "__pycache__" not in path.parts}
    assert {f"rlgan_template/{kind}/pyproject.toml" for kind in ("agent", "env")} <= names
