"""A native store alone, by default `inventory`, with random orders on one core, with automatic reset and statistics.

Valid steps per second, eager and captured (several steps in one compiled call), of one process; ``--processes 2``: of
two that run at once with one thread each, which is what two cores give. ``or-gym`` is OR-Gym's lost-sales chain,
stepped in Python, where it is installed (`pip install --no-deps or-gym==0.5.0`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from rates import parser, random_actions, rate, report, valid_steps
from torch import Tensor

from rlgan.core.capture import capture
from rlgan.core.vec import VecEnv
from rlgan_envs.inventory import Inventory, InventoryConfig
from rlgan_envs.inventory_multi import InventoryMulti, InventoryMultiConfig
from rlgan_envs.inventory_serial import InventorySerial, InventorySerialConfig

ENVS: dict[str, Callable[[], Any]] = {
    "inventory": lambda: Inventory(InventoryConfig(), "cpu"),
    "inventory-multi": lambda: InventoryMulti(InventoryMultiConfig(), "cpu"),
    "inventory-serial": lambda: InventorySerial(InventorySerialConfig(), "cpu"),
}
UNROLL = 2
"""Steps in one compiled call."""


def store(name: str, copies: int) -> VecEnv:
    env = VecEnv(ENVS[name](), copies, "cpu")
    env.reset(seed=0)
    env.rng = None
    return env


def eager(name: str, copies: int, seconds: float) -> float:
    env = store(name, copies)
    orders = random_actions(env)
    return rate(lambda: env.step(orders()), lambda: valid_steps(env), seconds)


def captured(name: str, copies: int, seconds: float) -> float:
    env = store(name, copies)
    orders = random_actions(env)

    def steps(_: dict[str, Tensor]) -> Tensor:
        for _ in range(UNROLL):
            obs = env.step(orders())[0]
        return obs

    call = capture(steps, "compile")
    return rate(lambda: call({}), lambda: valid_steps(env), seconds)


def or_gym(name: str, copies: int, seconds: float) -> float:
    """One env of OR-Gym with random orders; ImportError where it is missing."""
    # it was written for an old gym and an old NumPy
    sys.modules.update({"gym": gymnasium, "gym.spaces": gymnasium.spaces, "gym.utils": gymnasium.utils})
    np.Inf = np.inf
    from or_gym.envs.supply_chain.inventory_management import InvManagementLostSalesEnv

    env, count = InvManagementLostSalesEnv(), 0
    env.reset()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        count += 1
        if env.step(env.action_space.sample())[2]:
            env.reset()
    return count / (time.perf_counter() - began)


SIDES: dict[str, Callable[[str, int, float], float]] = {"eager": eager, "captured": captured, "or-gym": or_gym}


def measure(side: str, copies: int, seconds: float, name: str) -> float:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return SIDES[side](name, copies, seconds)


def main() -> None:
    options = parser(__doc__, list(SIDES), ["eager", "captured"], copies=16_384, seconds=2.0)
    options.add_argument("--env", choices=ENVS, default="inventory")
    given = options.parse_args()
    report(measure, given, given.env)


if __name__ == "__main__":
    main()
