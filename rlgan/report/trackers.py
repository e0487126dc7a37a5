"""Trackers: plugins that are told about a run and can neither stop nor slow it."""

from __future__ import annotations

import copy
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BACKLOG = 1000
"""Calls that may wait for one tracker."""


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Trackers:
    """Tells each tracker of a run's events, each in a thread of its own.

    A tracker that raises, takes longer than ``deadline`` seconds over one call, or falls ``BACKLOG`` calls behind is
    switched off for the rest of the run with one warning.
    """

    def __init__(self, objects: dict[str, object], deadline: float, warn: Callable[[str], None] = _warn):
        self._workers = [_Worker(name, tracker, deadline, warn) for name, tracker in objects.items()]
        self._deadline = deadline

    def run_start(self, info: dict[str, Any]) -> None:
        """Before the first step. ``info``: the resolved ``config``, ``dir``, and ``step`` where a run is resumed."""
        self._tell("run_start", info)

    def metrics(self, row: dict[str, Any]) -> None:
        """Each row of the record."""
        self._tell("metrics", row)

    def checkpoint(self, path: Path) -> None:
        """Each checkpoint, once it is on the disk."""
        self._tell("checkpoint", path)

    def run_end(self, summary: dict[str, Any]) -> None:
        """At the end; waits for all trackers together at most ``deadline`` seconds."""
        self._tell("run_end", summary)
        until = time.monotonic() + self._deadline
        for worker in self._workers:
            worker.finish(until)
        self._workers = []

    def _tell(self, event: str, argument: Any) -> None:
        for worker in self._workers:
            worker.tell(event, argument)


class _Worker:
    def __init__(self, name: str, tracker: object, deadline: float, warn: Callable[[str], None]):
        self.name, self.tracker, self.deadline, self.warn = name, tracker, deadline, warn
        self.calls: queue.Queue[tuple[str, Any] | None] = queue.Queue(BACKLOG)
        self.off = threading.Event()
        self.lock = threading.Lock()
        self.current: tuple[str, float] | None = None
        """The call under way and when it began."""
        # A daemon: a tracker that hangs must not keep the process alive.
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def tell(self, event: str, argument: Any) -> None:
        current = self.current
        if current and time.monotonic() - current[1] > self.deadline:
            self._switch_off(f"{current[0]} took longer than {self.deadline:g} s")
        if self.off.is_set() or not hasattr(self.tracker, event):
            return
        try:
            # A copy, so that what a tracker does to it stays with the tracker.
            self.calls.put_nowait((event, copy.deepcopy(argument)))
        except queue.Full:
            self._switch_off(f"it is {BACKLOG} calls behind")

    def finish(self, until: float) -> None:
        if self.off.is_set():
            return
        try:
            self.calls.put(None, timeout=max(until - time.monotonic(), 0.001))
        except queue.Full:
            self._switch_off(f"it was not done within {self.deadline:g} s of the end")
            return
        self.thread.join(max(until - time.monotonic(), 0.001))
        if self.thread.is_alive():
            self._switch_off(f"it was not done within {self.deadline:g} s of the end")

    def _work(self) -> None:
        while (call := self.calls.get()) is not None and not self.off.is_set():
            event, argument = call
            self.current = (event, time.monotonic())
            try:
                getattr(self.tracker, event)(argument)
            except BaseException as error:  # a plugin's sys.exit() must not end its thread unseen
                self._switch_off(f"{event} raised {type(error).__name__}: {error}")
                return
            finally:
                self.current = None

    def _switch_off(self, reason: str) -> None:
        with self.lock:
            if self.off.is_set():
                return
            self.off.set()
        self.warn(f"warning: tracker {self.name!r} is switched off for this run: {reason}")
