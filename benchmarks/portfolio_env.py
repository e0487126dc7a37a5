"""The native market alone: `portfolio` with random actions, with automatic reset and statistics.

Valid steps per second on nyse_o, 36 stocks and 31 bars of closes to be seen, 4,096 copies, at a cost of 0.25%, eager
and captured (several steps in one compiled call), of one process; ``--processes 2``: of two that run at once with one
thread each, which is what two cores give. nyse_o needs ``pip install --no-deps universal-portfolios``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable

import torch
from cartpole_env import rate, valid_steps
from torch import Tensor

from rlgan.assembly import settle_processor
from rlgan.core.capture import capture
from rlgan.core.vec import VecEnv
from rlgan_envs.portfolio import LIMIT, Portfolio, PortfolioConfig

UNROLL = 2
"""Steps in one compiled call."""


def market(prices: str, window: int, copies: int) -> VecEnv:
    env = VecEnv(Portfolio(PortfolioConfig(prices, window=window), "cpu"), copies, "cpu")
    env.reset(seed=0)
    env.rng = None
    return env


def actions(env: VecEnv) -> Tensor:
    return torch.empty(env.num_envs, env.env.assets + 1).uniform_(-LIMIT, LIMIT)


def eager(env: VecEnv, seconds: float) -> float:
    return rate(lambda: env.step(actions(env)), lambda: valid_steps(env), seconds)


def captured(env: VecEnv, seconds: float) -> float:
    def steps(_: dict[str, Tensor]) -> list[Tensor]:
        return [env.step(actions(env))[0] for _ in range(UNROLL)]

    call = capture(steps, "compile")
    return rate(lambda: call({}), lambda: valid_steps(env), seconds)


SIDES: dict[str, Callable[[VecEnv, float], float]] = {"eager": eager, "captured": captured}


def measure(side: str, prices: str, window: int, copies: int, seconds: float) -> float:
    torch.set_num_threads(1)
    settle_processor()
    torch.manual_seed(0)
    return SIDES[side](market(prices, window, copies), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--prices", default="nyse_o")
    parser.add_argument("--window", type=int, default=31)
    parser.add_argument("--copies", type=int, default=4_096)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    args = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for side in args.sides:
            jobs = [(side, args.prices, args.window, args.copies, args.seconds)] * args.processes
            sums = [sum(pool.starmap(measure, jobs, chunksize=1)) for _ in range(args.rounds)]
            median, raw = statistics.median(sums), " ".join(f"{value:,.0f}" for value in sums)
            print(f"{side:9} median {median:12,.0f} valid steps/s, processes {args.processes}   raw {raw}")


if __name__ == "__main__":
    main()
