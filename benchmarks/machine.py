"""What a benchmark ran on, and where its numbers go."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PACKAGES = ("rlgan", "torch", "stable-baselines3", "gymnasium", "ale-py", "numpy")


def describe() -> dict[str, Any]:
    """Processor, cores and versions."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "versions": found}


def save(name: str, row: str, result: dict[str, Any]) -> Path:
    """Put one row's result into ``docs/results/NAME.json``, beside the rows that are there."""
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows[row] = result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
