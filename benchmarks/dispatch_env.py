"""The native dispatch alone: 1,024 copies on one core, with automatic reset and statistics.

Valid steps per second of one process; ``--processes 2``: of two at once with one thread each, which is what two
cores give. ``greedy`` gives random values and matches on the device, ``nearest`` the scores of that policy likewise,
``hungarian`` random values matched copy by copy by SciPy, ``captured`` is ``greedy`` as one compiled call a step.
"""

from __future__ import annotations

import torch
from rates import parser, random_actions, rate, report, valid_steps
from torch import Tensor

from rlgan import assembly
from rlgan.core.capture import capture
from rlgan.core.vec import VecEnv
from rlgan_envs.dispatch import Dispatch, DispatchConfig

SIDES = ("greedy", "nearest", "hungarian", "captured")


def measure(side: str, copies: int, seconds: float, drivers: int) -> float:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    assembly.settle_processor()
    matching = "hungarian" if side == "hungarian" else "greedy"
    env = VecEnv(Dispatch(DispatchConfig(drivers=drivers, matching=matching), "cpu"), copies, "cpu")
    env.reset(seed=0)
    env.rng = None
    nearest, random = env.env.references()["nearest"], random_actions(env)

    def step(_: dict[str, Tensor]) -> Tensor:
        return env.step(nearest(env.state, None) if side == "nearest" else random())[0]

    call = capture(step, "compile") if side == "captured" else step
    return rate(lambda: call({}), lambda: valid_steps(env), seconds)


def main() -> None:
    options = parser(__doc__, list(SIDES), ["greedy", "nearest"], copies=1_024, seconds=4.0)
    options.add_argument("--drivers", type=int, default=25)
    given = options.parse_args()
    report(measure, given, given.drivers)


if __name__ == "__main__":
    main()
