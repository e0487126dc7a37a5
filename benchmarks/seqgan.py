"""Speed of SeqGAN beside the literal code of `seqgan_textbook.py`, alternately in one process: rewards by rollouts, and
``step``, an update of the discriminator by plain convolutions and torch's own Adam.

The networks are those of the published protocol: vocabulary 5,000, 20 tokens, batch 64, 1,720 filters, float32. The
loops complete and judge 64 sequences at a time, position by position, with torch.multinomial. Both are given the same
sequences; first the rewards of one rollout are compared under the same random numbers. ``--clock cpu`` counts
processor seconds, for one thread of a busy machine.

    python benchmarks/seqgan.py --threads 2
    python benchmarks/seqgan.py step --threads 2 --capture compile
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import machine
import seqgan_textbook
import torch

from rlgan import assembly
from rlgan.core.capture import capture
from rlgan.core.protocols import DataSet
from rlgan.registry import Registry
from rlgan.tokens import Tokens
from rlgan_generators.seqgan import SeqGAN, SeqGANConfig

Seconds = Callable[[Callable[[], object]], float]
"""Time of a call."""
VOCABULARY, LENGTH = 5_000, 20
EQUAL = 1e-5
"""Rewards differ by no more."""
MOVED = {"cpu": 0.0, "cuda": 0.01}
"""Share of those that may: on CUDA a draw that falls on the edge between two words is rounded to either, and its
completion is another one."""


def protocol(rollouts: int, precision: str) -> SeqGANConfig:
    """Give the settings of the preset ``repo``."""
    spec = Registry().get("generators", "seqgan")
    values = next(preset for preset in spec.presets if preset.name == "repo").values
    own = {key.removeprefix("generator."): value for key, value in values.items() if key.startswith("generator.")}
    own |= {"rollouts": rollouts, "precision": precision, "eps_hat": False}  # as torch's Adam
    return SeqGANConfig(**{key: tuple(value) if isinstance(value, list) else value for key, value in own.items()})


def flop(gan: SeqGAN) -> float:
    """Multiplications and additions of one call: what the discriminator sees, and the logits of what is drawn."""
    c = gan.config
    pairs = list(zip(c.widths, c.filters, strict=True))
    seen = sum(count * width * c.embedding_d * (LENGTH - width + 1) for width, count in pairs) + 2 * sum(c.filters) ** 2
    rows = c.batch_size * c.rollouts
    drawn = rows * LENGTH * (LENGTH - 1) // 2 * c.hidden * VOCABULARY
    return 2.0 * ((rows * (LENGTH - 1) + c.batch_size) * seen + drawn)


def rollouts(arguments: argparse.Namespace, device: torch.device, seconds: Seconds) -> dict[str, Any]:
    """A call of the rewards, and the rewards of one rollout first."""
    torch.manual_seed(0)
    gan = SeqGAN(data(), protocol(arguments.rollouts, arguments.precision), device)
    one = SeqGAN(data(), protocol(1, arguments.precision), device)
    one.load_state_dict(gan.state_dict())
    tokens = gan.sample(64)

    torch.manual_seed(1)
    ours = one.rewards(tokens)
    torch.manual_seed(1)
    uniform = torch.rand(LENGTH - 1, 1, 64, LENGTH, device=device)
    literal = seqgan_textbook.rewards(gan.policy, gan.discriminator, tokens, 1, uniform)
    other = float(((ours - literal).abs() > EQUAL).double().mean())
    print(f"rewards of one rollout under the same random numbers: {other:.2%} differ by more than {EQUAL:.0e}")
    if arguments.precision == "float32" and other > MOVED[device.type]:
        raise SystemExit("they should be equal")

    square = torch.randn(2048, 2048, device=device)
    rate = 2 * 2048**3 / min(seconds(lambda: square @ square) for _ in range(4))
    sides = {
        "ours": lambda: gan.rewards(tokens),
        "literal": lambda: seqgan_textbook.rewards(gan.policy, gan.discriminator, tokens, arguments.rollouts),
    }
    result = alternate(sides, arguments.rounds, seconds)
    reached = flop(gan) / result["medians"]["ours"]
    print(f"{reached / 1e9:.0f} GFLOP/s, {reached / rate:.0%} of a product of 2048 x 2048 here")
    return {**result, "flop_per_s": reached, "matmul_flop_per_s": rate}


def step(arguments: argparse.Namespace, device: torch.device, seconds: Seconds) -> dict[str, Any]:
    """Updates of the discriminator, ``--updates`` at a time."""
    torch.manual_seed(0)
    gan = SeqGAN(data(), protocol(1, arguments.precision), device)
    mixed, is_real = torch.randint(VOCABULARY, (64, LENGTH), device=device), torch.arange(64, device=device) < 32
    plain = copy.deepcopy(gan.discriminator)
    adam = torch.optim.Adam(plain.parameters(), gan.config.lr_d)
    update = capture(gan.update, assembly.pick_capture(arguments.capture, device))

    def ours() -> None:
        for _ in range(arguments.updates):
            update({"mixed": mixed, "is_real": is_real})

    def textbook() -> None:
        for _ in range(arguments.updates):
            seqgan_textbook.step(plain, adam, mixed, is_real, gan.config.dropout, gan.config.decay)

    for side in (ours, textbook):
        side()
    return alternate({"ours": ours, "literal": textbook}, arguments.rounds, seconds)


def data() -> DataSet:
    """Any 64 sequences."""
    return DataSet(torch.randint(VOCABULARY, (64, LENGTH)), tokens=Tokens(tuple(map(str, range(VOCABULARY)))))


def alternate(sides: dict[str, Callable[[], object]], rounds: int, seconds: Seconds) -> dict[str, Any]:
    """Time the sides in turn."""
    raw: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side, call in sides.items():
            raw[side].append(seconds(call))
        print(f"round {number}  ours {raw['ours'][-1]:.2f} s  literal {raw['literal'][-1]:.2f} s", flush=True)
    medians = {side: statistics.median(times) for side, times in raw.items()}
    print(f"ratio {medians['literal'] / medians['ours']:.2f}")
    return {"raw": raw, "medians": medians, "ratio": medians["literal"] / medians["ours"]}


WHAT = {"rollouts": rollouts, "step": step}


def main() -> None:
    """Compare, and save where ``--save`` says so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT, nargs="?", default="rollouts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--updates", type=int, default=20, help="of step: in one round")
    parser.add_argument("--capture", default="auto", help="of step: eager, compile, graph")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", help="of ours; the loops are in float32")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--save", help="name of the row in docs/results/seqgan_WHAT.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    assembly.settle_processor()
    torch.backends.cudnn.allow_tf32 = False  # the loops' convolutions too are in float32
    device = torch.device(arguments.device)
    clock: Callable[[], float] = time.process_time if arguments.clock == "cpu" else time.perf_counter

    def seconds(call: Callable[[], object]) -> float:
        began = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - began

    result = WHAT[arguments.what](arguments, device, seconds)
    if arguments.save:
        print(
            machine.save(
                f"seqgan_{arguments.what}", arguments.save, {**vars(arguments), **result, "machine": machine.describe()}
            )
        )


if __name__ == "__main__":
    main()
