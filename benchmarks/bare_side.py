"""The limit beside `vs_sb3.py`: the same algorithm as a loop without any framework around it.

Plain torch and the vector simulators themselves; nothing is recorded, evaluated, saved or checked, and nothing could be
resumed. What a toolkit loses against it is the price of being one. Optimisers and the pure steps of envs are this
project's. Prints one line of JSON, as `sb3_side.py` does.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import bare_continuous
import bare_dqn
import bare_on_policy
import torch

COMPILED = ("sac-pendulum", "td3-pendulum", "sac-halfcheetah", "ppo-cartpole", "a2c-cartpole")
"""Rows that have a compiled form."""


def rate(row: str, steps: int, warm: int, starts: int, compiled: bool) -> float:
    """Steps/s of a row."""
    if row == "dqn-cartpole":
        return bare_dqn.cartpole(steps, warm)
    if row == "dqn-breakout":
        return bare_dqn.breakout(steps, warm, starts)
    if row == "ppo-breakout":
        return bare_on_policy.ppo_breakout(steps, warm)
    if row in bare_on_policy.CARTPOLES:
        return bare_on_policy.CARTPOLES[row](steps, warm, compiled)
    return bare_continuous.continuous(row, steps, warm, starts, compiled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=["dqn-cartpole", "dqn-breakout", "ppo-breakout", *COMPILED])
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True, help="steps before the slope is taken")
    parser.add_argument("--learning-starts", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compile", action="store_true", help="the best compiled form")
    args = parser.parse_args()
    if args.compile and args.row not in COMPILED:
        parser.error(f"{args.row} has no compiled form")
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    libc = ctypes.CDLL(None)
    # keep freed memory, as a run of rlgan does
    libc.mallopt(-3, 32 << 20)
    libc.mallopt(-1, 2**31 - 1)
    found = rate(args.row, args.steps, args.warm, args.learning_starts, args.compile)
    print(json.dumps({"steps_per_s": found}))


if __name__ == "__main__":
    main()
