"""The benchmark that a GPU machine runs works from here too, at small sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "device.py"


def run(tmp_path: Path, *words: str) -> tuple[int, dict]:
    out = tmp_path / "device.json"
    command = [sys.executable, str(SCRIPT), "--out", str(out), *words]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stderr
    assert "graph break" not in done.stderr, done.stderr  # of what env_compiled compiles
    return done.returncode, json.loads(out.read_text())


def test_every_part_on_a_cpu(tmp_path: Path) -> None:
    code, result = run(tmp_path, "--small", "--device", "cpu")
    assert code == 0, result
    assert result["machine"]["device"] == "cpu" and result["small"]
    equal = result["captured_is_eager"]
    assert equal["modes"] == ["eager", "eager"] and equal["updates"] == 20
    for name in ("vector", "image"):
        assert equal[name]["unequal"] == [] and equal[name]["moved"] > 5
    assert result["gpu_tests"]["skipped"] + result["gpu_tests"]["passed"] >= 2
    alone = [result["env_alone"][name]["eager"] for name in ("cartpole", "inventory", "portfolio", "dispatch")]
    for points in (*alone, result["env_and_agent"]["points"]):
        assert [point["copies"] for point in points] == [points[0]["copies"] * 2**k for k in range(len(points))]
        assert len(points) >= 2
        assert all(point["steps_per_s"] > 0 for point in points)
    assert result["learning"]["episodes"] == 2 and result["learning"]["curve"][-1][0] >= 600
    assert all(result[part]["peak_memory_mb"] > 0 for part in ("learning", "env_alone", "env_and_agent"))


def test_a_part_that_fails_is_in_the_file_and_in_the_exit_code(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    code, result = run(tmp_path, "--small", "--device", "cpu", "gpu_tests")
    assert code == 1
    assert not result["gpu_tests"]["ok"] and "pytest gave no report" in result["gpu_tests"]["error"]
