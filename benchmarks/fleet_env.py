"""The native fleet alone: 1,024 copies on one core, with automatic reset and statistics.

Valid steps per second of one process; ``--processes 2``: of two at once with one thread each. ``random`` gives random
logits, ``nearest`` those of that policy, ``captured`` is ``random`` as one compiled call a step.
"""

from __future__ import annotations

import torch
from rates import parser, rate, report, valid_steps
from torch import Tensor

from rlgan import assembly
from rlgan.core.capture import capture
from rlgan.core.vec import VecEnv
from rlgan_envs.fleet import Fleet, FleetConfig

SIDES = ("random", "nearest", "captured")


def measure(side: str, copies: int, seconds: float, size: int) -> float:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    assembly.settle_processor()
    env = VecEnv(Fleet(FleetConfig(size=size), "cpu"), copies, "cpu")
    env.reset(seed=0)
    env.rng = None
    nearest, width = env.env.references()["nearest"], env.single_action_space.shape[0]

    def step(_: dict[str, Tensor]) -> Tensor:
        return env.step(nearest(env.state, None) if side == "nearest" else torch.randn(copies, width))[0]

    call = capture(step, "compile") if side == "captured" else step
    return rate(lambda: call({}), lambda: valid_steps(env), seconds)


def main() -> None:
    options = parser(__doc__, list(SIDES), ["random", "nearest"], copies=1_024, seconds=4.0)
    options.add_argument("--size", type=int, default=3)
    given = options.parse_args()
    report(measure, given, given.size)


if __name__ == "__main__":
    main()
