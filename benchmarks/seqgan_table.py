"""Gather runs of token generators on one oracle into a table: python benchmarks/seqgan_table.py NAME RUN_DIR...

Runs are grouped by generator and by the settings in which they differ from the first of their generator, apart from the
seed. Writes docs/results/NAME.json and prints means of the last evaluations with 95% intervals of a bootstrap over
seeds.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlgan.bench.statistics import bootstrap, mean
from rlgan.report.record import last_evaluation

RESULTS = Path(__file__).parent.parent / "docs" / "results"
MEASURES = ("nll_oracle", "nll_test", "copy_rate")


def gather(folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    row = last_evaluation(folder / "metrics.jsonl", "nll_oracle")
    found = {"seed": config["seed"], "step": row["step"], "oracle": row["entropy"]}
    return {"generator": config["generator"], **found, **{name: row[name] for name in MEASURES}}


def label(generator: dict[str, Any], first: dict[str, Any]) -> str:
    other = [f"{key}={value}" for key, value in generator.items() if value != first[key]]
    return " ".join([generator["name"], *other])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    runs = [gather(folder) for folder in given.runs]
    firsts: dict[str, Any] = {}
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        generator = run["generator"]
        groups[label(generator, firsts.setdefault(generator["name"], generator))].append(run)
    print(f"| run | seeds | {' | '.join(MEASURES)} |\n| --- | --- | {' | '.join(['---'] * len(MEASURES))} |")
    for name, members in groups.items():
        cells = []
        for measure in MEASURES:
            values = np.array([[run[measure]] for run in members])
            found = bootstrap(mean, values)
            cells.append(f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")
        print(f"| {name} | {len(members)} | {' | '.join(cells)} |")
    path = RESULTS / f"{given.name}.json"
    path.write_text(json.dumps(runs, separators=(",", ":")) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
