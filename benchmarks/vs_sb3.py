"""This project beside stable-baselines3, alternately in one run, each process at its side's own best thread count.

Same algorithm, same settings; only the number of env copies is each side's own choice. A round runs every side once, so
a round's ratio is between numbers taken minutes apart on the same machine. Beside them runs the limit: a bare loop
(`bare_side.py`) without a toolkit around it, eager beside the eager row and compiled beside the captured one. Rows:

dqn-cartpole      steady steps/s, the zoo's settings (128 updates of 64 per 256 steps, 256-256)
dqn-breakout      steps/s while learning on the real game (32 per 4 steps, NatureCNN), exploration over
sac-pendulum      steady steps/s, the zoo's settings (one update of 256 per step, 256-256, lr 1e-3)
td3-pendulum      the same with the zoo's (400-300, gamma 0.98), but that learning starts at 1,000 steps on both sides
ppo-cartpole      steady steps/s, the zoo's settings (8 copies x 32 rows, 20 epochs of 256, 64-64 twice)
a2c-cartpole      steady steps/s, the zoo's settings (8 copies x 5 rows)
ppo-breakout      steps/s on the real game, the zoo's settings (8 copies x 128 rows, 4 epochs of 4 x 256, NatureCNN)
sac-halfcheetah   steps/s while learning on HalfCheetah-v5, the zoo's settings, but that learning starts at 1,000 steps
process-ppo-cartpole  seconds of a whole process for 100,000 steps of ppo-cartpole, as process-cartpole; capture=compile
                  finds the compiler's cache warm, every other process finds none
process-cartpole  seconds of a whole process for 50,000 steps: start-up, learning, 20 games of evaluation, saved model
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent
THREADS = (1, 2)
PATIENCE = 3
"""A trial that takes this many times as long as the fastest one of its side is given up: beside other work, two threads
can spin on barriers and fall to a hundredth."""
PEER = "sb3"
BARE = {"eager": "bare", "compile": "bare compile"}
"""The bare loop beside each capture mode, where there is one."""
SCRIPTS = {PEER: ("sb3_side.py",), "bare": ("bare_side.py",), "bare compile": ("bare_side.py", "--compile")}


@dataclass(frozen=True)
class Row:
    """One comparison."""

    words: tuple[str, ...]
    """Of `rlgan run`."""
    steps: int
    captures: tuple[str, ...]
    warm: int = 0
    """Steps before the slope is taken: start-up, compilation and rows without learning lie before it."""
    learning_starts: int = 0
    trial: int = 0
    """Steps of the trials that choose the thread count."""
    unit: str = "steps/s"
    bare: tuple[str, ...] = ("eager", "compile")
    """Capture modes beside which a bare loop runs."""


NO_CHECKPOINTS = "checkpoint.every=1G"
ZOO = ("agent=dqn", "env=cartpole", "preset=cartpole-zoo")
PENDULUM = ("env=pendulum", "preset=pendulum", NO_CHECKPOINTS, "record.every=400", "eval.episodes=1")
PPO = ("agent=ppo", "env=cartpole")
ROWS = {
    "dqn-cartpole": Row(
        (*ZOO, NO_CHECKPOINTS), 50_000, ("eager", "compile"), warm=10_000, trial=20_000, bare=("eager",)
    ),
    "dqn-breakout": Row(
        (
            *("agent=dqn", "env=breakout", "preset=breakout-1m", NO_CHECKPOINTS, "record.every=400"),
            *("agent.learning_starts=2000", "agent.epsilon_steps=2000", "eval.episodes=1"),
            # as the peer learns: every 4 steps, one step, no double targets
            *("agent.train_every=4", "agent.n_step=1", "agent.double=false"),
        ),
        8_000,
        ("eager",),
        warm=3_000,
        learning_starts=2_000,
        trial=5_000,
        bare=("eager",),
    ),
    "sac-pendulum": Row((*PENDULUM, "agent=sac"), 6_000, ("eager", "compile"), warm=2_000, trial=4_000),
    "td3-pendulum": Row(
        (*PENDULUM, "agent=td3", "agent.learning_starts=1000"),
        6_000,
        ("eager", "compile"),
        warm=2_000,
        learning_starts=1_000,
        trial=4_000,
    ),
    "sac-halfcheetah": Row(
        (
            *("agent=sac", "env=gym:HalfCheetah-v5", "preset=halfcheetah", "agent.learning_starts=1000"),
            *(NO_CHECKPOINTS, "record.every=400", "eval.episodes=1"),
        ),
        6_000,
        ("eager", "compile"),
        warm=2_000,
        learning_starts=1_000,
        trial=4_000,
    ),
    "ppo-cartpole": Row((*PPO, NO_CHECKPOINTS), 100_000, ("eager", "compile"), warm=20_000, trial=50_000),
    "a2c-cartpole": Row(
        ("agent=a2c", "env=cartpole", NO_CHECKPOINTS), 500_000, ("eager", "compile"), warm=50_000, trial=150_000
    ),
    "ppo-breakout": Row(
        ("agent=ppo", "env=breakout", NO_CHECKPOINTS, "record.every=1024", "eval.episodes=1"),
        12_288,
        ("eager",),
        warm=2_048,
        trial=6_144,
        bare=("eager",),
    ),
    "process-ppo-cartpole": Row(PPO, 100_000, ("auto", "compile"), trial=20_000, unit="s", bare=()),
    "process-cartpole": Row(ZOO, 50_000, ("auto",), trial=10_000, unit="s", bare=()),
}


def command(name: str, side: str, threads: int, steps: int, folder: Path) -> list[str]:
    """Give the command of one process."""
    row = ROWS[name]
    if side in SCRIPTS:
        numbers = {"steps": steps, "warm": row.warm, "learning-starts": row.learning_starts, "threads": threads}
        flags = [word for key, value in numbers.items() for word in (f"--{key}", str(value))]
        script, *more = SCRIPTS[side]
        return [sys.executable, str(HERE / script), name, *flags, *more]
    words = [*row.words, f"steps={steps}", f"capture={side}", f"threads={threads}", f"dir={folder}"]
    return [sys.executable, "-m", "rlgan", "run", *words]


def measure(name: str, side: str, threads: int, steps: int, warm: str, limit: float | None = None) -> float:
    """Run one process and give its steps/s, or its seconds. ``warm`` is where the compiler's cache stays.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``limit`` seconds.
    """
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        cache = warm if "compile" in side else top
        began = time.perf_counter()
        words = command(name, side, threads, steps, folder)
        surroundings = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit, env=surroundings)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{shlex.join(done.args)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
        if row.unit == "s":
            return seconds
        if side in SCRIPTS:
            return float(json.loads(done.stdout.splitlines()[-1])["steps_per_s"])
        return slope(folder / "metrics.jsonl", row.warm)


def slope(path: Path, warm: int) -> float:
    """Steps per second between the first and the last training row from ``warm`` steps on."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steady = [row for row in rows if row["kind"] == "train" and row["step"] >= warm]
    first, last = steady[0], steady[-1]
    return (last["step"] - first["step"]) / (last["time"]["wall"] - first["time"]["wall"])


def trial(name: str, side: str, steps: int, warm: str) -> dict[int, float]:
    """Measure one side at each thread count."""
    found: dict[int, float] = {}
    fastest: float | None = None
    for threads in THREADS:
        if ROWS[name].unit == "s" and "compile" in side:
            measure(name, side, threads, steps, warm)  # what is compiled differs by threads and steps
        began = time.perf_counter()
        try:
            found[threads] = measure(name, side, threads, steps, warm, fastest and PATIENCE * fastest)
        except subprocess.TimeoutExpired:
            print(f"{name}  trial  {label(side):14} {threads} threads  given up, too slow", flush=True)
            continue
        seconds = time.perf_counter() - began
        fastest = min(seconds, fastest or seconds)
        print(
            f"{name}  trial  {label(side):14} {threads} threads  {found[threads]:10.1f} {ROWS[name].unit}", flush=True
        )
    return found


def compare(name: str, rounds: int, steps: int, captures: tuple[str, ...]) -> dict[str, Any]:
    """Choose each side's thread count by trials, then run the rounds."""
    row = ROWS[name]
    limits = {side: BARE[side] for side in captures if side in row.bare}
    sides = (PEER, *captures, *limits.values())
    better = min if row.unit == "s" else max
    raw: dict[str, list[float]] = {side: [] for side in sides}
    loads = []
    with tempfile.TemporaryDirectory() as warm:
        trials = {side: trial(name, side, min(row.trial, steps), warm) for side in sides}
        best = {side: better(found, key=lambda t: found[t]) for side, found in trials.items()}
        for side in sides:
            if row.unit == "s" and "compile" in side:
                measure(name, side, best[side], steps, warm)
        for number in range(1, rounds + 1):
            for side in sides:
                loads.append(round(os.getloadavg()[0], 2))
                raw[side].append(measure(name, side, best[side], steps, warm))
                print(f"{name}  round {number}  {label(side):14} {raw[side][-1]:10.1f} {row.unit}", flush=True)
    medians = {side: statistics.median(values) for side, values in raw.items()}
    ratios = {side: [own / peer for own, peer in zip(raw[side], raw[PEER], strict=True)] for side in captures}
    folder = Path("RUN")
    return {
        "unit": row.unit,
        "steps": steps,
        "warm": row.warm,
        "threads": {label(side): best[side] for side in sides},
        "trials": {label(side): found for side, found in trials.items()},
        "raw": {label(side): values for side, values in raw.items()},
        "median": {label(side): value for side, value in medians.items()},
        "ratio_of_medians": {label(side): medians[side] / medians[PEER] for side in (*captures, *limits.values())},
        "ratios_by_round": {label(side): values for side, values in ratios.items()},
        "share_of_bare": {label(side): medians[side] / medians[bare] for side, bare in limits.items()},
        "load_before_each": loads,
        "commands": {label(s): shown(command(name, s, best[s], steps, folder)) for s in sides},
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
    }


def label(side: str) -> str:
    """Name a side for people."""
    return side if side in SCRIPTS else f"rlgan {side}"


def shown(words: list[str]) -> str:
    """Write a command without this machine's paths."""
    return shlex.join(["python", *(word.replace(f"{HERE}/", "benchmarks/") for word in words[1:])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all when none is given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="instead of the row's own number")
    parser.add_argument(
        "--capture", nargs="+", choices=["auto", "eager", "compile", "graph"], help="instead of the row's own"
    )
    args = parser.parse_args()
    # as an exception, it ends the process being measured too
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    unknown = set(args.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown row {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
    for name in args.rows or ROWS:
        row = ROWS[name]
        result = compare(name, args.rounds, args.steps or row.steps, tuple(args.capture or row.captures))
        path = machine.save("vs_sb3", name, result)
        print(f"\n{name}, {result['unit']}")
        for side, value in result["median"].items():
            ratio = result["ratio_of_medians"].get(side)
            by_round = ", ".join(f"{value:.2f}" for value in result["ratios_by_round"].get(side, ()))
            beside = f"   {ratio:.2f}x of {PEER}'s (by round {by_round})" if ratio else ""
            if share := result["share_of_bare"].get(side):
                beside += f", {share:.2f} of the bare loop's"
            raw = " ".join(f"{value:.1f}" for value in result["raw"][side])
            print(f"  {side:14} {result['threads'][side]} threads  median {value:8.1f}   raw {raw}{beside}")
        print(f"  written to {path.relative_to(HERE.parent)}\n", flush=True)


if __name__ == "__main__":
    main()
