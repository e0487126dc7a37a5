"""What the references of `dispatch` serve: share of orders, its standard error and the mean pickup distance.

Each policy plays the same days, matched by the Hungarian algorithm and greedily, and with ``env.decline``; the bound is
the linear programme in hindsight, over the first days of another draw.
"""

from __future__ import annotations

import argparse
import time

import machine
import torch

from rlgan import assembly
from rlgan_envs.dispatch import Dispatch, DispatchConfig
from rlgan_envs.dispatch_orders import STEPS
from rlgan_envs.dispatch_planning import best_days


def play(env: Dispatch, name: str, days: int, seed: int) -> list[float]:
    """Mean share of orders served, its standard error, mean pickup distance in cells."""
    rng, policy = torch.Generator().manual_seed(seed), env.references()[name]
    state = env.reset(days, rng)
    for _ in range(STEPS):
        state, _, _ = env.step(state, policy(state, rng), rng)
    found = env.metrics(state)
    share, pickup = found["served"].double(), found["pickup"].double()
    return [round(float(x), 4) for x in (share.mean(), share.std() / days**0.5, pickup.mean())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drivers", type=int, nargs="*", default=[25, 75])
    parser.add_argument(
        "--policies", nargs="*", default=["random", "nearest", "hungarian", "value-table", "cell-values"]
    )
    parser.add_argument("--days", type=int, default=2_000)
    parser.add_argument("--bound-days", type=int, default=200)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    assembly.settle_processor()
    rows: dict[str, list[float]] = {}
    for drivers in args.drivers:
        for settings in ({}, {"matching": "greedy"}, {"decline": True}):
            env = Dispatch(DispatchConfig(drivers=drivers, **{"matching": "hungarian", **settings}), "cpu")
            for name in args.policies:
                words = " ".join(f"{key}={value}" for key, value in {"drivers": drivers, **settings}.items())
                rows[f"{name} {words}"] = found = play(env, name, args.days, args.seed)
                print(
                    f"{name:12} {words:28} served {found[0]:.4f} ± {found[1]:.4f}   pickup {found[2]:.2f}", flush=True
                )
        if args.bound_days:
            share = best_days(env, args.bound_days, args.seed).double() / env.config.orders
            mean, error = float(share.mean()), float(share.std() / args.bound_days**0.5)
            rows[f"lp drivers={drivers}"] = [round(mean, 4), round(error, 4)]
            print(f"{'lp':12} drivers={drivers:<20} served {mean:.4f} ± {error:.4f}", flush=True)
    result = {
        "unit": "share of orders served, standard error, mean pickup distance in cells",
        "days": args.days,
        "bound_days": args.bound_days,
        "rows": rows,
        "command": "python benchmarks/dispatch_references.py",
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
    }
    machine.save("dispatch", "references", result)


if __name__ == "__main__":
    main()
