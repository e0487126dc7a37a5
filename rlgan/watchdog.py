"""Ends a process whose simulator hangs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from rlgan.errors import EnvError


class Watchdog(threading.Thread):
    """``with watchdog:`` around a call that may hang: after ``timeout`` seconds the process ends with exit code 4.

    It counts its own ticks, so a process that was stopped or suspended does not look hung.

    Args:
        timeout: Seconds that one call may take.
        env: Name of the env, for the sentence that is printed.
        saved: Says what is saved of the run, for the same.
    """

    def __init__(self, timeout: float, env: str, saved: Callable[[], str]) -> None:
        super().__init__(name="rlgan-watchdog", daemon=True)
        self._timeout = timeout
        self._sentence = f"Env {env} did not answer within {timeout:g} seconds, so the process was ended"
        self._saved = saved
        self._tick = min(0.5, timeout / 5)
        self._calls, self._busy = 0, False
        self._closed = threading.Event()
        self.start()

    def __enter__(self) -> None:
        self._calls += 1
        self._busy = True

    def __exit__(self, *error: object) -> None:
        self._busy = False

    def run(self) -> None:
        """Watch until closed."""
        waited, seen = 0.0, 0
        while not self._closed.wait(self._tick):
            if not self._busy or seen != self._calls:
                waited, seen = 0.0, self._calls
                continue
            waited += self._tick
            if waited >= self._timeout:
                try:
                    print(f"{self._sentence}; {self._saved()}", file=sys.stderr, flush=True)
                finally:
                    os._exit(EnvError.exit_code)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
