"""The native dispatch alone: 1,024 copies on one core, with automatic reset and statistics.

Valid steps per second of one process; ``--processes 2``: of two at once with one thread each, which is what two
cores give. ``greedy`` gives random values and matches on the device, ``nearest`` the scores of that policy likewise,
``hungarian`` random values matched copy by copy by SciPy, ``captured`` is ``greedy`` as one compiled call a step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics

import torch
from cartpole_env import rate, valid_steps
from torch import Tensor

from rlgan import assembly
from rlgan.core.capture import capture
from rlgan.core.vec import VecEnv
from rlgan_envs.dispatch import CELLS, Dispatch, DispatchConfig

SIDES = ("greedy", "nearest", "hungarian", "captured")


def measure(side: str, copies: int, drivers: int, seconds: float) -> float:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    assembly.settle_processor()
    matching = "hungarian" if side == "hungarian" else "greedy"
    env = VecEnv(Dispatch(DispatchConfig(drivers=drivers, matching=matching), "cpu"), copies, "cpu")
    env.reset(seed=0)
    env.rng = None
    nearest = env.env.references()["nearest"]

    def step(_: dict[str, Tensor]) -> Tensor:
        return env.step(nearest(env.state, None) if side == "nearest" else torch.randn(copies, CELLS))[0]

    call = capture(step, "compile") if side == "captured" else step
    return rate(lambda: call({}), lambda: valid_steps(env), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", choices=SIDES, default=["greedy", "nearest"])
    parser.add_argument("--copies", type=int, default=1_024)
    parser.add_argument("--drivers", type=int, default=25)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    args = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for side in args.sides:
            jobs = [(side, args.copies, args.drivers, args.seconds)] * args.processes
            sums = [sum(pool.starmap(measure, jobs, chunksize=1)) for _ in range(args.rounds)]
            median, raw = statistics.median(sums), " ".join(f"{value:,.0f}" for value in sums)
            print(f"{side:9} median {median:12,.0f} valid steps/s, processes {args.processes}   raw {raw}")


if __name__ == "__main__":
    main()
