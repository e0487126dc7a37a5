"""Memory of a full replay of Atari transitions: stacks of 4 frames of 84x84, kept as single frames.

Writes ``--transitions`` rows of 8 copies, draws a batch, and prints the bytes of the buffers and the growth of the
process's resident memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import machine
import torch

from rlgan.core.buffers import Ring

COPIES, STACK, SIDE = 8, 4, 84


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ring = Ring(args.transitions, COPIES, [slice(0, COPIES)], STACK, torch.device("cpu"))
    flag = torch.zeros(COPIES, dtype=torch.bool)
    row = {
        "obs": torch.randint(256, (COPIES, STACK, SIDE, SIDE), dtype=torch.uint8),
        "first": flag,
        "action": torch.zeros(COPIES, dtype=torch.int64),
        "reward": torch.zeros(COPIES),
        "terminated": flag,
        "truncated": flag,
        "valid": ~flag,
    }
    before = resident()
    for _ in range(ring.capacity):
        ring.write(0, row)
    filled = resident() - before
    ring.draw(1, 32, 1, 0.99)
    held = sum(field.nbytes for field in ring.fields.values())
    stacked = args.transitions * 2 * STACK * SIDE * SIDE
    print(
        f"{args.transitions:,} transitions: buffers {held / 1e9:.2f} GB, resident memory grew by {filled / 1e9:.2f} GB"
    )
    print(f"obs and next_obs as whole stacks would take {stacked / 1e9:.1f} GB")
    result = {
        "transitions": args.transitions,
        "buffer_bytes": held,
        "resident_bytes": filled,
        "whole_stacks_bytes": stacked,
        "command": f"python benchmarks/replay_memory.py --transitions {args.transitions}",
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
    }
    machine.save("replay_memory", "atari", result)


if __name__ == "__main__":
    main()
