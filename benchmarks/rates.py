"""Steps per second of envs made of tensors: what their benchmarks share."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor

from rlgan.core.vec import VecEnv


def rate(call: Callable[[], object], steps: Callable[[], int], seconds: float) -> float:
    """Steps per second of calls repeated for about ``seconds``."""
    for _ in range(20):
        call()
    began, start = time.perf_counter(), steps()
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            call()
    return (steps() - start) / (time.perf_counter() - began)


def random_actions(env: VecEnv) -> Callable[[], Tensor]:
    """Draws uniform actions for all copies; normal ones where the space has no bounds."""
    space, n, device = env.single_action_space, env.num_envs, env.device
    if isinstance(space, Box):
        shape = (n, *space.shape)
        if not space.is_bounded():
            return lambda: torch.randn(shape, device=device)
        low, high = (torch.from_numpy(bound).to(device) for bound in (space.low, space.high))
        return lambda: torch.rand(shape, device=device) * (high - low) + low
    assert isinstance(space, Discrete | MultiDiscrete)
    if isinstance(space, Discrete):
        size = int(space.n)  # compiled code cannot read it off a NumPy number
        return lambda: torch.randint(size, (n,), device=device)
    sizes = torch.from_numpy(space.nvec).to(device)
    return lambda: (torch.rand(n, *sizes.shape, device=device) * sizes).long()


def valid_steps(env: VecEnv) -> int:
    """Steps of finished games and of those still running."""
    statistics = env.statistics
    running = statistics.length.masked_fill(env.over, 0.0)
    return int(statistics.sums["length"].double().sum() + running.double().sum())


def parser(
    doc: str | None, sides: list[str], default: list[str], copies: int, seconds: float
) -> argparse.ArgumentParser:
    """The options that all have."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def side(word: str) -> str:
        if word not in sides:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(sides)}")
        return word

    # argparse takes no list that is empty for one of its choices
    found.add_argument("sides", nargs="*", type=side, default=default, metavar="SIDE", help=f"of {', '.join(sides)}")
    found.add_argument("--copies", type=int, default=copies)
    found.add_argument("--processes", type=int, default=1)
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--seconds", type=float, default=seconds, help="of each measurement")
    found.add_argument("--save", action="store_true", help="put what is measured into docs/results/env_rates.json")
    return found


def report(measure: Callable[..., float], given: argparse.Namespace, *more: Any) -> None:
    """Print the median over rounds of ``measure(side, copies, seconds, *more)``, summed over processes at once."""
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for side in given.sides:
            jobs = [(side, given.copies, given.seconds, *more)] * given.processes
            sums = [sum(pool.starmap(measure, jobs, chunksize=1)) for _ in range(given.rounds)]
            median, raw = statistics.median(sums), " ".join(f"{value:,.0f}" for value in sums)
            print(f"{side:9} median {median:12,.0f} valid steps/s, processes {given.processes}   raw {raw}")
            if given.save:
                row = " ".join(map(str, (Path(sys.argv[0]).stem, *more, side)))
                measured = {"copies": given.copies, "processes": given.processes, "steps_per_s": [*map(round, sums)]}
                machine.save("env_rates", row, {"machine": machine.describe(), **measured})
