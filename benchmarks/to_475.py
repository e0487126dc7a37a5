"""Seconds of learning until cart-pole is solved: our PQN beside stable-baselines3's DQN with the zoo's settings.

python benchmarks/to_475.py --seeds 0 1 2

Solved is the first evaluation of 20 greedy games with a mean of 475; one is made every 5,000 steps, and none of them
counts in the time, nor do imports. Sides take turns, seed by seed, with one thread each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

from rlgan.report.record import read

GOAL, EVERY, GAMES = 475.0, 5_000, 20


def ours(seed: int) -> dict[str, Any]:
    """PQN's preset, in a process of its own."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        words = ["agent=pqn", "env=cartpole", f"seed={seed}", f"eval.every={EVERY}", f"eval.episodes={GAMES}"]
        command = [sys.executable, "-m", "rlgan", "run", *words, "threads=1", "capture=eager", f"dir={folder}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        evaluations = [row for row in read(folder / "metrics.jsonl") if row["kind"] == "eval"]
    spent = 0.0
    for row in evaluations:
        spent += row["time"]["seconds"]
        if row["return_mean"] >= GOAL:
            return {"seed": seed, "step": row["step"], "seconds": row["time"]["wall"] - spent}
    return {"seed": seed, "step": None, "seconds": evaluations[-1]["time"]["wall"] - spent}


def theirs(seed: int, steps: int = 100_000) -> dict[str, Any]:
    """The same in a process of its own, which prints one line of JSON."""
    command = [sys.executable, __file__, "--peer", str(seed), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def peer(seed: int, steps: int) -> None:
    """Learn with stable-baselines3 until it is solved."""
    import gymnasium
    import torch
    from sb3_side import cartpole
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    model = cartpole()
    model.set_random_seed(seed)

    class Judge(BaseCallback):
        step: int | None = None
        spent = 0.0

        def _on_step(self) -> bool:
            if self.num_timesteps % EVERY:
                return True
            began = time.perf_counter()
            mean, _ = evaluate_policy(model, gymnasium.make("CartPole-v1"), n_eval_episodes=GAMES, warn=False)
            self.spent += time.perf_counter() - began
            if mean >= GOAL:
                self.step = self.num_timesteps
            return self.step is None

    judge = Judge()
    began = time.perf_counter()
    model.learn(steps, callback=judge)
    seconds = time.perf_counter() - began - judge.spent
    print(json.dumps({"seed": seed, "step": judge.step, "seconds": seconds}))


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        peer(*map(int, sys.argv[2:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--save", action="store_true", help="put the numbers into docs/results/to_475.json")
    args = parser.parse_args()
    sides: dict[str, list[dict[str, Any]]] = {"pqn": [], "sb3.dqn": []}
    for seed in args.seeds:
        for name, measure in (("pqn", ours), ("sb3.dqn", theirs)):
            sides[name].append(run := measure(seed))
            reached = "not reached" if run["step"] is None else f"at step {run['step']:,}"
            print(f"{name} seed {seed}: {reached}, {run['seconds']:.1f} s", flush=True)
    median = {name: statistics.median(run["seconds"] for run in runs) for name, runs in sides.items()}
    solved = all(run["step"] is not None for run in sides["pqn"])
    ratio = median["pqn"] / median["sb3.dqn"] if solved else None
    print(f"medians {median['pqn']:.1f} s and {median['sb3.dqn']:.1f} s" + (f", ratio {ratio:.3f}" if ratio else ""))
    if args.save:
        machine.save("to_475", "cartpole", {"machine": machine.describe(), "sides": sides, "ratio": ratio})


if __name__ == "__main__":
    main()
