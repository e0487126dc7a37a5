"""The native market alone: `portfolio` with random actions, with automatic reset and statistics.

Valid steps per second on nyse_o, 36 stocks and 31 bars of closes to be seen, 4,096 copies, at a cost of 0.25%, eager
and captured (several steps in one compiled call), of one process; ``--processes 2``: of two that run at once with one
thread each, which is what two cores give. nyse_o needs ``pip install --no-deps universal-portfolios``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from rates import parser, random_actions, rate, report, valid_steps
from torch import Tensor

from rlgan.assembly import settle_processor
from rlgan.core.capture import capture
from rlgan.core.vec import VecEnv
from rlgan_envs.portfolio import Portfolio, PortfolioConfig

UNROLL = 2
"""Steps in one compiled call."""


def market(prices: str, window: int, copies: int) -> VecEnv:
    env = VecEnv(Portfolio(PortfolioConfig(prices, window=window), "cpu"), copies, "cpu")
    env.reset(seed=0)
    env.rng = None
    return env


def eager(env: VecEnv, seconds: float) -> float:
    actions = random_actions(env)
    return rate(lambda: env.step(actions()), lambda: valid_steps(env), seconds)


def captured(env: VecEnv, seconds: float) -> float:
    actions = random_actions(env)

    def steps(_: dict[str, Tensor]) -> list[Tensor]:
        return [env.step(actions())[0] for _ in range(UNROLL)]

    call = capture(steps, "compile")
    return rate(lambda: call({}), lambda: valid_steps(env), seconds)


SIDES: dict[str, Callable[[VecEnv, float], float]] = {"eager": eager, "captured": captured}


def measure(side: str, copies: int, seconds: float, prices: str, window: int) -> float:
    torch.set_num_threads(1)
    settle_processor()
    torch.manual_seed(0)
    return SIDES[side](market(prices, window, copies), seconds)


def main() -> None:
    options = parser(__doc__, list(SIDES), list(SIDES), copies=4_096, seconds=2.0)
    options.add_argument("--prices", default="nyse_o")
    options.add_argument("--window", type=int, default=31)
    given = options.parse_args()
    report(measure, given, given.prices, given.window)


if __name__ == "__main__":
    main()
