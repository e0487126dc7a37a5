"""``rlgan`` and ``python -m rlgan``: the command line in a process of its own."""

import gc
import sys

from rlgan.cli.main import main


def entry() -> None:
    """Run one command and end the process with its exit code."""
    # torch's compiler makes millions of small objects that stay: to look through them again and again takes a second
    # of a run's first four, and once more at its end another one
    gc.set_threshold(100_000, 20, 20)
    code = main()
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    entry()
