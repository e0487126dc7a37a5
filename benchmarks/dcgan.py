"""Training speed of `generator=dcgan` beside the same networks in a textbook's loop, alternately in one run.

Both sides train on the same digits, 28x28 in batches of 64: ours as a real `rlgan run`, the other as
`dcgan_textbook.py`, which also names what both do. Each process has its side's own best number of threads, found by
trials. Images/s are taken over steady updates, without start-up and judging.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from vs_sb3 import shown, slope

HERE = Path(__file__).parent
BATCH = 64
EVERY = 50
"""Updates between readings of the clock, on both sides."""
WARM = 100
"""Updates before the clock is read first."""
THREADS = (1, 2)
PEER = "textbook"


def command(side: str, threads: int, updates: int, folder: Path) -> list[str]:
    """Give the command of one process; ``side`` is the peer or a way of capture."""
    if side == PEER:
        numbers = {"updates": updates, "threads": threads, "warm": WARM, "every": EVERY}
        flags = [word for key, value in numbers.items() for word in (f"--{key}", str(value))]
        return [sys.executable, str(HERE / "dcgan_textbook.py"), *flags]
    words = ["generator=dcgan", "data=digits", f"generator.batch_size={BATCH}", f"steps={updates}", f"capture={side}"]
    rest = [f"threads={threads}", f"record.every={EVERY}", "eval.every=0", "eval.samples=64", f"dir={folder}"]
    return [sys.executable, "-m", "rlgan", "run", *words, *rest]


def measure(side: str, threads: int, updates: int) -> float:
    """Run one process and give its images per second."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "run"
        done = subprocess.run(command(side, threads, updates, folder), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{shown(done.args)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
        if side == PEER:
            return float(json.loads(done.stdout.splitlines()[-1])["images_per_s"])
        return BATCH * slope(folder / "metrics.jsonl", WARM)


def compare(sides: list[str], rounds: int, updates: int, trial: int) -> dict[str, Any]:
    """Choose each side's number of threads by trials, then run the rounds."""
    trials = {side: {threads: measure(side, threads, trial) for threads in THREADS} for side in sides}
    best = {side: max(found, key=lambda threads: found[threads]) for side, found in trials.items()}
    for side, found in trials.items():
        print(
            f"trial    {side:9}", *(f"{threads} threads {rate:6.0f}/s" for threads, rate in found.items()), flush=True
        )
    raw: dict[str, list[float]] = {side: [] for side in sides}
    loads = []
    for number in range(1, rounds + 1):
        for side in sides:
            loads.append(round(os.getloadavg()[0], 2))
            raw[side].append(measure(side, best[side], updates))
            print(f"round {number}  {side:9} {raw[side][-1]:6.0f} images/s", flush=True)
    medians = {side: statistics.median(rates) for side, rates in raw.items()}
    own = [side for side in sides if side != PEER]
    return {
        "unit": "images/s",
        "updates": updates,
        "warm": WARM,
        "threads": best,
        "trials": trials,
        "raw": raw,
        "median": medians,
        "ratio_of_medians": {side: medians[side] / medians[PEER] for side in own},
        "ratios_by_round": {side: [a / b for a, b in zip(raw[side], raw[PEER], strict=True)] for side in own},
        "load_before_each": loads,
        "commands": {side: shown(command(side, best[side], updates, Path("RUN"))) for side in sides},
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1000, help="of each round's process")
    parser.add_argument("--trial", type=int, default=400, help="updates of the trials that choose the threads")
    parser.add_argument("--capture", nargs="+", default=["eager"], help="our sides: eager, compile")
    args = parser.parse_args()
    result = compare([PEER, *args.capture], args.rounds, args.updates, args.trial)
    path = machine.save("dcgan", "digits", result)
    for side, rate in result["median"].items():
        print(f"{side:9} {result['threads'][side]} threads, median {rate:6.0f} images/s", end="")
        ratio = result["ratio_of_medians"].get(side)
        by_round = ", ".join(f"{value:.2f}" for value in result["ratios_by_round"].get(side, ()))
        print(f", {ratio:.2f}x of the {PEER}'s (by round {by_round})" if ratio else "")
    print(f"written to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
