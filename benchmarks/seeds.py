"""Gather runs of several seeds into one JSON file and one picture: python benchmarks/seeds.py NAME RUN_DIR...

Writes docs/results/NAME.json (per seed: the settings, the record's returns over steps and the evaluations' games),
which `rlgan compare` reads, and NAME.png; prints the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

from rlgan.bench import results
from rlgan.report.record import read

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def gather(folder: Path) -> dict:
    (run,) = results.read(folder)
    rows = read(folder / "metrics.jsonl")
    trained = [row for row in rows if row["kind"] == "train"]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    return {
        "agent": run.agent,
        "env": run.env,
        "seed": run.seed,
        "problem": run.problem,
        "settings": run.settings,
        "step": [row["step"] for row in trained],
        "return_mean": [row["return_mean"] for row in trained],
        "evaluations": [{k: row[k] for k in ("step", "return_mean", "return_std", "returns")} for row in evaluations],
        "wall_s": round(rows[-1]["time"]["wall"], 1),
        "versions": json.loads((folder / "versions.json").read_text(encoding="utf-8")),
    }


def draw(runs: list[dict], path: Path, title: str) -> None:
    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for run in runs:
        points = [(s, r) for s, r in zip(run["step"], run["return_mean"], strict=True) if r is not None]
        axes.plot(*zip(*points, strict=True), linewidth=1, alpha=0.7)
        evaluations = run["evaluations"]
        axes.plot([e["step"] for e in evaluations], [e["return_mean"] for e in evaluations], "k.", markersize=7)
    axes.plot([], [], "k.", markersize=7, label="evaluation, mean of whole games")
    axes.plot([], [], color="gray", linewidth=1, label="training, mean of a record, one line a seed")
    axes.set(title=title, xlabel="agent steps", ylabel="return")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    runs = sorted((gather(folder) for folder in args.runs), key=lambda run: run["seed"])
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{args.name}.json").write_text(json.dumps(runs, indent=None) + "\n", encoding="utf-8")
    draw(runs, RESULTS / f"{args.name}.png", f"{args.name}, {len(runs)} seeds" if len(runs) > 1 else args.name)
    for run in runs:
        last = run["evaluations"][-1]
        shown = f"{last['return_mean']:.1f} over {len(last['returns'])} games"
        print(f"seed {run['seed']}: {last['step']:,} steps, {shown}, {run['wall_s']:.0f} s")
    print(results.markdown(results.table([RESULTS / f"{args.name}.json"])))


if __name__ == "__main__":
    main()
