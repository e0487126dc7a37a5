"""How far runs in mountain car explored: python benchmarks/coverage.py RUN_DIR...

Reads the rows that each run's replay holds, which must be all of them (agent.capacity at least the run's rows). Counts
the cells visited of a grid of 20 x 20 over position and velocity after each quarter of the run, and games that reached
the goal. Prints a table and writes docs/results/rnd-mountaincar.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import machine
import torch
import yaml

from rlgan.report.record import read
from rlgan.store import checkpoint
from rlgan.store.segments import read_segment
from rlgan_envs.mountaincar import LEFT, MAX_SPEED, RIGHT

SIDE = 20
LOW, HIGH = torch.tensor([LEFT, -MAX_SPEED]), torch.tensor([RIGHT, MAX_SPEED])


def explored(folder: Path) -> dict[str, Any]:
    """Cells and goals of one run; ``first_goal`` is in rows, None if there was none."""
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    saved = checkpoint.newest(folder / "checkpoints")
    pieces = [read_segment(folder / "checkpoints", ref) for ref in saved.segments]
    obs, terminated = (torch.cat([piece[name] for piece in pieces]).flatten(0, 1) for name in ("obs", "terminated"))
    place = ((obs - LOW) / (HIGH - LOW) * SIDE).long().clamp(0, SIDE - 1)  # (rows, 2)
    cell = place[:, 0] * SIDE + place[:, 1]
    goals = terminated.nonzero().flatten().tolist()
    return {
        "reward": settings["reward"]["name"] if "reward" in settings else "none",
        "seed": settings["seed"],
        "rows": len(obs),
        "cells": [len(cell[: len(cell) * quarter // 4].unique()) for quarter in (1, 2, 3, 4)],
        "goals": len(goals),
        "first_goal": goals[0] if goals else None,
        "evaluation": [row["return_mean"] for row in read(folder / "metrics.jsonl") if row["kind"] == "eval"][-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    runs = [explored(folder) for folder in parser.parse_args().runs]
    runs.sort(key=lambda run: (run["reward"], run["seed"]))
    machine.save("rnd-mountaincar", "runs", {"machine": machine.describe(), "runs": runs})
    names = ("reward", "seed", "cells", "goals", "first_goal", "evaluation")
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for run in runs:
        print(f"| {' | '.join(str(run[name]) for name in names)} |")


if __name__ == "__main__":
    main()
