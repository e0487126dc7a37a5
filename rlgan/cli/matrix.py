"""A matrix: one process for each run, one after the other, so that a crash stays in its cell."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from rlgan.runconfig import Run


def run_each(runs: Sequence[Run], program: Sequence[str] = (sys.executable, "-m", "rlgan", "run")) -> int:
    """Run every cell and return the worst exit code. A signal goes to the cell that runs, and ends the matrix."""
    child: subprocess.Popen[bytes] | None = None
    stopped = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = 128 + number
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, forward) for number in numbers}
    codes = [0]
    try:
        for i, run in enumerate(runs, 1):
            if stopped:
                break
            print(f"[{i}/{len(runs)}] rlgan run {shlex.join(run.overrides)}", file=sys.stderr, flush=True)
            # Its own process group: otherwise a terminal's Ctrl-C would reach it twice, which means "stop at once".
            child = subprocess.Popen([*program, *run.overrides], process_group=0)
            code = child.wait()
            codes.append(code if code >= 0 else 128 - code)
            if codes[-1]:
                print(f"[{i}/{len(runs)}] ended with exit code {codes[-1]}", file=sys.stderr, flush=True)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return stopped or max(codes)
