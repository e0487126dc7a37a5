"""Throughput on a device: repeated calls, copies that double in number, and native envs alone. Parts of `device.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from rates import random_actions, valid_steps

from rlgan import assembly
from rlgan.core.capture import capture
from rlgan.core.protocols import Batch
from rlgan.core.vec import VecEnv
from rlgan_envs.cartpole import CartPole, CartPoleConfig
from rlgan_envs.dispatch import Dispatch, DispatchConfig
from rlgan_envs.inventory import Inventory, InventoryConfig
from rlgan_envs.portfolio import Portfolio, PortfolioConfig

GROWTH = 1.1
"""Doubling the copies must bring at least so much more throughput to be tried again."""
UNROLL = {"eager": 1, "graph": 4, "compile": 2, "compile-graph": 2}
"""Env steps in one call."""
NATIVE: dict[str, Callable[[torch.device, bool], Any]] = {
    "cartpole": lambda device, small: CartPole(CartPoleConfig(), device),
    "inventory": lambda device, small: Inventory(InventoryConfig(), device),
    "portfolio": lambda device, small: Portfolio(
        PortfolioConfig("synthetic" if small else "nyse_o", window=31), device
    ),
    "dispatch": lambda device, small: Dispatch(DispatchConfig(matching="greedy"), device),
}
COPIES = {"cartpole": (1 << 18, 1 << 25), "inventory": (1 << 18, 1 << 25), "portfolio": (1 << 13, 1 << 18)}
COPIES |= {"dispatch": (1 << 15, 1 << 20)}
"""Fewest and most copies of each env that are tried."""


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(call: Callable[[], Any], seconds: float, device: torch.device) -> float:
    """Calls per second, after a warm-up of a tenth of the time."""
    burst = 1
    for limit in (seconds / 10, seconds):
        settle(device)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < limit:
            for _ in range(burst):
                call()
            settle(device)
            count += burst
        burst = 8 if count >= 8 else 1  # calls that take long are waited for one by one
    return count / (time.perf_counter() - began)


def doubling(first: int, last: int, measure: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Measure numbers of copies that double until ``steps_per_s`` grows by less than GROWTH, or memory ends."""
    points: list[dict[str, Any]] = []
    copies = first
    while copies <= last:
        try:
            point = {"copies": copies, **measure(copies)}
        except torch.OutOfMemoryError as error:
            points.append({"copies": copies, "stopped": f"out of memory: {str(error)[:100]}"})
            break
        stalled = bool(points) and point["steps_per_s"] < GROWTH * points[-1]["steps_per_s"]
        points.append(point)
        print(f"  {point}", flush=True)
        if stalled:
            break
        copies *= 2
    return points


def copy_bandwidth(size: int, seconds: float, device: torch.device) -> float:
    """Bytes per second, read and written, of copying ``size`` floats."""
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    return rate(lambda: target.copy_(source), seconds, device) * 8 * size


def replayable(env: VecEnv, unroll: int) -> Callable[[Batch], Any]:
    """``unroll`` steps with random actions that end with the state where they found it, as a CUDA graph needs."""
    act = random_actions(env)
    state, over = {name: value.clone() for name, value in env.state.items()}, env.over.clone()

    def steps(_: Batch) -> Any:
        env.state, env.over = state, over
        for _ in range(unroll):
            obs = env.step(act())[0]
        for name, value in state.items():
            value.copy_(env.state[name])
        over.copy_(env.over)
        return obs

    return steps


def alone(name: str, mode: Any, device: torch.device, small: bool) -> Callable[[int], dict[str, Any]]:
    """Measures valid steps per second of so many copies of a native env under random actions."""

    def at(copies: int) -> dict[str, Any]:
        env = VecEnv(NATIVE[name](device, small), copies, device)
        unroll, calls = UNROLL[mode], 0
        steps = capture(replayable(env, unroll), mode)

        def call() -> None:
            nonlocal calls
            calls += 1
            steps({})

        rows_per_s = rate(call, 0.1 if small else 0.5, device) * unroll * copies
        # rows that lead to the start of a game are no steps
        return {"steps_per_s": rows_per_s * valid_steps(env) / (calls * unroll * copies)}

    return at


def env_alone(device: torch.device, small: bool) -> dict[str, Any]:
    """Native envs, as eager calls and as a graph, over numbers of copies."""
    bandwidth = copy_bandwidth(1 << 20 if small else 1 << 28, 0.1 if small else 0.5, device)
    result: dict[str, Any] = {"ok": True, "copy_bytes_per_s": bandwidth}
    for name, (least, most) in COPIES.items():
        first, last = (64, 128) if small else (least, most)
        modes = ("eager", "graph") if device.type == "cuda" else ("eager",)
        result[name] = {mode: doubling(first, last, alone(name, mode, device, small)) for mode in modes}
    return result


def env_compiled(device: torch.device, small: bool) -> dict[str, Any]:
    """Native envs as compiled calls, on CUDA replayed as graphs, at one number of copies each."""
    sizes = {"cartpole": 64} if small else {"inventory": 1 << 20, "portfolio": 1 << 16}
    mode = assembly.pick_capture("compile", device)
    return {"ok": True, **{name: doubling(n, n, alone(name, mode, device, small)) for name, n in sizes.items()}}
