"""What HostVecEnv costs over the bare ``AtariVectorEnv`` it steps: the same games, frame by frame, in turns.

    python benchmarks/host_overhead.py --copies 32 --steps 100 --rounds 40

Each round times both, one after the other, and the order changes from round to round. The ratio is the median of the
rounds' ratios, so that other work on the machine, which comes and goes, touches both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import ale_py
import numpy as np
import torch

from rlgan.simulators.host import HostVecEnv
from rlgan_envs.atari import AtariConfig, make


def bare(rom: str, copies: int) -> Callable[[np.ndarray], None]:
    env = ale_py.AtariVectorEnv(rom, copies, reward_clipping=False)
    # The seed that HostVecEnv gives its first reset, so that both play the same games.
    env.reset(seed=int(np.random.SeedSequence([0, 0, 0]).generate_state(1)[0]) >> 2)

    def run(actions: np.ndarray) -> None:
        for row in actions:
            env.step(row)

    return run


def ours(rom: str, copies: int) -> Callable[[np.ndarray], None]:
    config = AtariConfig(fire=False)
    env = HostVecEnv(lambda n: make(config, rom, n), copies, "cpu", seed=0, barrier=40_000, timeout=120, name=rom)
    env.start(0)

    def run(actions: np.ndarray) -> None:
        for row in torch.from_numpy(actions):
            env.send(0, row)
            env.receive(0)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rom", default="breakout")
    parser.add_argument("--copies", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100, help="rows of all copies in one timing")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    runs = {"bare": bare(args.rom, args.copies), "rlgan": ours(args.rom, args.copies)}
    rng = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(args.rounds + 1):
        actions = rng.integers(0, 4, (args.steps, args.copies))
        for name in sorted(runs, reverse=round_ % 2 == 1):
            began = time.perf_counter()
            runs[name](actions)
            if round_:  # the first round warms up
                rates[name].append(args.steps * args.copies / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratio = statistics.median(a / b for a, b in zip(rates["rlgan"], rates["bare"], strict=True))
    print(f"{medians['rlgan']:,.0f} steps/s against {medians['bare']:,.0f} bare: {ratio:.3f}")
    result = {
        "rom": args.rom,
        "copies": args.copies,
        "steps": args.steps,
        "steps_per_s": medians,
        "ratio": ratio,
        "rates": {name: [round(rate) for rate in values] for name, values in rates.items()},
        "cores": os.cpu_count(),
        "ale_py": ale_py.__version__,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
