"""Each flag of DQN alone, and all at once, on cart-pole: python benchmarks/dqn_ablation.py --seeds 0 1 2

Every row is `rlgan run agent=dqn env=cartpole` with a process of its own: the preset `cartpole` with one-step targets
that are not double, then the same with one flag; last the preset `rainbow`, and that without one flag each. Prints a
table of the last evaluations with the 95% interval of a bootstrap over seeds, of the step at which an evaluation first
passed 475, and of seconds; `--save` puts the raw numbers into docs/results/dqn_ablation.json.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import machine

from rlgan.bench.statistics import bootstrap, mean, number
from rlgan.report.record import read

PLAIN = "agent.double=false agent.n_step=1"
ROWS = {
    "plain": PLAIN,
    "double": "agent.n_step=1",
    "n-step 3": "agent.double=false",
    "dueling": f"{PLAIN} agent.dueling=true",
    "prioritised": f"{PLAIN} agent.prioritised=true",
    "noisy": f"{PLAIN} agent.noisy=true agent.epsilon_start=0 agent.epsilon_end=0",
    "c51": f"{PLAIN} agent.head=c51 agent.v_min=0 agent.v_max=100",
    "qr": f"{PLAIN} agent.head=qr",
    "rainbow": "preset=rainbow",
    "rainbow, not double": "preset=rainbow agent.double=false",
    "rainbow, 1 step": "preset=rainbow agent.n_step=1",
    "rainbow, not dueling": "preset=rainbow agent.dueling=false",
    "rainbow, uniform": "preset=rainbow agent.prioritised=false",
    "rainbow, not noisy": "preset=rainbow agent.noisy=false agent.epsilon_start=1 agent.epsilon_end=0.05",
    "rainbow, mean alone": "preset=rainbow agent.head=q",
}
GOAL = 475


def measure(words: str, seed: int, steps: int) -> dict[str, Any]:
    """One run: its evaluations, and the seconds of training."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        common = f"agent=dqn env=cartpole seed={seed} steps={steps} eval.every=5000 eval.episodes=50 threads=1"
        command = [sys.executable, "-m", "rlgan", "run", *shlex.split(f"{common} {words}"), f"dir={folder}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
        rows = read(folder / "metrics.jsonl")
    scores = [(row["step"], row["return_mean"]) for row in rows if row["kind"] == "eval"]
    seconds = rows[-1]["time"]["wall"] - sum(row["time"]["seconds"] for row in rows if row["kind"] == "eval")
    reached = next((step for step, score in scores if score >= GOAL), None)
    return {"seed": seed, "scores": scores, "last": scores[-1][1], "reached": reached, "seconds": round(seconds, 1)}


def line(name: str, runs: list[dict[str, Any]]) -> str:
    scores = bootstrap(mean, [[run["last"]] for run in runs])
    last = ", ".join(f"{run['last']:.0f}" for run in runs)
    reached = ", ".join("never" if run["reached"] is None else f"{run['reached']:,}" for run in runs)
    seconds = fmean(run["seconds"] for run in runs)
    return f"| {name} | {scores if len(runs) > 1 else number(scores.value)} | {last} | {reached} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.rows) - ROWS.keys():
        parser.error(f"no rows {sorted(unknown)}; there are {', '.join(ROWS)}")
    print("| row | mean | last evaluation of each seed | 475 at step | seconds |\n| --- | --- | --- | --- | --- |")
    for name in args.rows or ROWS:
        runs = [measure(ROWS[name], seed, args.steps) for seed in args.seeds]
        print(line(name, runs), flush=True)
        if args.save:
            machine.save("dqn_ablation", name, {"machine": machine.describe(), "runs": runs})


if __name__ == "__main__":
    main()
