"""Draw SeqGAN's runs of the published protocol over the log of the authors' code and what others got with that code.

    python benchmarks/seqgan_curve.py NAME REFERENCE.csv RUN_DIR|RESULTS.json...

Runs are `rlgan run generator=mle|seqgan data=oracle data.path=ORACLE preset=repo`, or what this once wrote of some. The
log has the columns phase, epoch and nll, and docs/results/seqgan-reruns.csv a column run besides. Writes
docs/results/NAME.json and NAME.png, and prints each point and how far it is from the log, whose points are joined by
lines; of each rerun how much of it is within ``BAND`` of the log.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from rlgan.report.record import read
from rlgan.store import checkpoint

RESULTS = Path(__file__).parent.parent / "docs" / "results"
BAND = 0.05
LABELS = {"pretrain": "passes of maximum likelihood", "adversarial": "adversarial rounds"}


def place(step: int, generator: dict[str, Any], samples: int) -> tuple[str, float]:
    """The phase of an update, and how many passes or rounds of it are over."""
    passes = samples // generator["batch_size"]
    likelihood = generator.get("pretrain", step) * passes
    if generator["name"] != "seqgan" or step <= likelihood:
        return "pretrain", step / passes
    draw = generator["passes"] * (2 * samples // generator["batch_size"])
    rounds = (step - likelihood - generator["pretrain_d"] * draw) / (generator["draws"] * draw)
    return ("adversarial", rounds) if rounds >= 0 else ("discriminator", 0.0)


def gather(path: Path) -> list[dict[str, Any]]:
    """The runs of an earlier file, or that of a directory."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    return [from_folder(path)]


def from_folder(folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    points: dict[str, list[list[float]]] = {"pretrain": [], "discriminator": [], "adversarial": []}
    for row in read(folder / "metrics.jsonl"):
        if row["kind"] == "eval":
            phase, at = place(row["step"], config["generator"], config["data"]["samples"])
            points[phase].append([at, row["nll_oracle"], row["nll_test"]])
    found = {"generator": config["generator"]["name"], "seed": config["seed"], "capture": config["capture"]}
    device = config["device"]
    if device == "auto":
        device = checkpoint.newest(folder / "checkpoints").info["device"]
    found |= {"device": device, "eps_hat": config["generator"].get("eps_hat", False)}
    return {**found, "columns": ["passes or rounds", "nll_oracle", "nll_test"], **points}


def read_log(path: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Phases of runs, each by epoch; a log of one run has no column for it."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            phases = found.setdefault(row.get("run", "the authors' log"), {phase: {} for phase in LABELS})
            phases[row["phase"]][int(row["epoch"])] = float(row["nll"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("reference", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    (log,) = read_log(given.reference).values()
    reruns = read_log(RESULTS / "seqgan-reruns.csv")
    runs = [run for path in given.runs for run in gather(path)]
    figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
    for axes, (phase, label) in zip(figure.subplots(1, 2), LABELS.items(), strict=True):
        reference = log[phase]
        for k, phases in enumerate(reruns.values()):
            at = [epoch + 1 for epoch in phases[phase]]
            name = None if k else "the same code, run by others"
            axes.plot(at, list(phases[phase].values()), color="0.8", linewidth=1, label=name)
        axes.plot([epoch + 1 for epoch in reference], list(reference.values()), color="0.4", label="the authors' log")
        for run in runs:
            points = run[phase]
            who = f"{run['generator']} {run['seed']} on {run['device']}" + ", torch's epsilon" * (not run["eps_hat"])
            axes.plot([p[0] for p in points], [p[1] for p in points], ".-", label=who)
            for at, nll, _ in points:
                # the log counts from 0 what is over when it measures, and has every fifth
                if 1 <= at <= max(reference) + 5:
                    difference = nll - float(np.interp(at - 1, list(reference), list(reference.values())))
                    print(f"{who}, {at:.0f} {label}: {nll:.3f}, {difference:+.3f} beside the log")
        for name, phases in reruns.items():
            off = {epoch: nll - reference[epoch] for epoch, nll in phases[phase].items() if epoch in reference}
            worst = max(off, key=lambda epoch: abs(off[epoch]))
            near = sum(abs(x) <= BAND for x in off.values())
            lowest = min(phases[phase].values())
            print(
                f"{name}, {label}: {near} of {len(off)} points within {BAND} of the log, worst {off[worst]:+.3f} after "
                f"{worst + 1}, lowest {lowest:.3f}"
            )
        axes.set(xlabel=label, ylabel="NLL_oracle", ylim=(8.6, 9.5))
        axes.legend()
    figure.savefig(RESULTS / f"{given.name}.png")
    path = RESULTS / f"{given.name}.json"
    path.write_text(json.dumps(runs, separators=(",", ":")) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
