"""The native cart-pole alone: 4,096 copies, random actions, one core, with automatic reset and statistics.

Beside it the bare dynamics: the same tensor operations of one step, without reset, time limit and statistics. Prints
valid steps per second, eager and captured (several steps in one compiled call), and the share of the bare dynamics in
eager mode. All draw their actions.
"""

from __future__ import annotations

import argparse
import statistics
import time

import machine
import torch
from rates import rate, valid_steps
from torch import Tensor

from rlgan.core.capture import capture
from rlgan.core.vec import VecEnv
from rlgan_envs.cartpole import CartPole, CartPoleConfig

UNROLL = 16
"""Steps in one compiled call."""


def eager(copies: int, seconds: float) -> float:
    env = VecEnv(CartPole(CartPoleConfig(), "cpu"), copies, "cpu")
    env.reset(seed=0)
    env.rng = None
    return rate(lambda: env.step(torch.randint(2, (copies,))), lambda: valid_steps(env), seconds)


def captured(copies: int, seconds: float) -> float:
    env = VecEnv(CartPole(CartPoleConfig(), "cpu"), copies, "cpu")

    def steps(_: dict[str, Tensor]) -> Tensor:
        for _ in range(UNROLL):
            obs = env.step(torch.randint(2, (copies,)))[0]
        return obs

    call = capture(steps, "compile")
    return rate(lambda: call({}), lambda: valid_steps(env), seconds)


def bare(copies: int, seconds: float) -> float:
    env = CartPole(CartPoleConfig(), "cpu")
    state = env.reset(copies, None)
    count = 0

    # from the same state each time: without resets the poles would spin ever faster
    def step() -> None:
        nonlocal count
        env.step(state, torch.randint(2, (copies,)), None)
        count += copies

    with torch.no_grad():
        return rate(step, lambda: count, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sides = {"bare": bare, "eager": eager, "captured": captured}
    raw: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            raw[name].append(side(args.copies, args.seconds))
    medians = {name: statistics.median(values) for name, values in raw.items()}
    shares = [eager / bare for eager, bare in zip(raw["eager"], raw["bare"], strict=True)]
    for name, value in medians.items():
        print(
            f"{name:9} median {value / 1e6:6.2f}M valid steps/s   raw {' '.join(f'{v / 1e6:.2f}' for v in raw[name])}"
        )
    print(
        f"eager is {medians['eager'] / medians['bare']:.2f}x of bare (by round {' '.join(f'{s:.2f}' for s in shares)})"
    )
    result = {
        "unit": "valid steps/s",
        "copies": args.copies,
        "threads": 1,
        "median": medians,
        "raw": raw,
        "eager_over_bare": medians["eager"] / medians["bare"],
        "eager_over_bare_by_round": shares,
        "command": f"python benchmarks/cartpole_env.py --copies {args.copies} --rounds {args.rounds}",
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
    }
    machine.save("cartpole_env", "cartpole", result)


if __name__ == "__main__":
    main()
