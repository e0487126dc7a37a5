"""What a run says about itself: metrics.jsonl, which is the truth, and one live line on the terminal."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from rlgan.errors import PluginError, RlganError, UsageError
from rlgan.report.statistics import OWN

_BAR = 16
HEADLINES = 3
"""Numbers of a generator's evaluation that are shown, those that a judge puts first."""


FIELDS = ("kind", "phase", "step", "rows", "updates", "time", *(f"{name}_mean" for name in OWN), "episodes")
"""What a line of the record has besides a learner's metrics."""


def free(name: str) -> str:
    """The name of a metric. PluginError: the record has a field of that name, which the metric would replace."""
    if name in FIELDS:
        raise PluginError(f"a metric is named {name!r}, which every line of the record has: give it another name")
    return name


def prepare_directory(path: Path) -> None:
    """Make a run's directory and prove that files can be written there. UsageError says why not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        raise UsageError(
            f"the run directory {path} cannot be written: {error.strerror or error}; "
            "write dir=PATH with a folder that you may write in"
        ) from error


class Record:
    """Append-only JSON lines. A crash costs at most the end of the last one, which ``read`` leaves out."""

    def __init__(self, path: Path, length: int | None = None):
        """Open a new record, or go on with one.

        Args:
            path: the file.
            length: None for a new file; to resume, the bytes to keep, as the checkpoint states them.

        Raises:
            UsageError: there is a record already, it is shorter than ``length``, or it cannot be opened.
        """
        self.path = path
        self._length = length or 0
        try:
            self._file = path.open("xb" if length is None else "r+b", buffering=0)
            if length is not None:
                present = self._file.seek(0, os.SEEK_END)
                if present < length:
                    raise UsageError(
                        f"{path} has {present} bytes, but the checkpoint was made when it had {length}: "
                        "it was changed since, so the run cannot go on from there"
                    )
                self._file.truncate(length)
                self._file.seek(length)
        except FileExistsError as error:
            raise UsageError(f"{path} is already there: resume that run, or write another dir=") from error
        except OSError as error:
            raise UsageError(f"{path} cannot be opened: {error.strerror or error}") from error

    def write(self, row: dict[str, Any]) -> None:
        """Append one line. ``time``, which holds every wall-clock number, goes last; NaN and infinities become strings.

        Raises:
            RlganError: the disk is full or fails.
        """
        ordered = {key: value for key, value in row.items() if key != "time"}
        if "time" in row:
            ordered["time"] = row["time"]
        data = memoryview(json.dumps(_strict(ordered), allow_nan=False, separators=(",", ":")).encode() + b"\n")
        try:
            while data:
                written = self._file.write(data) or 0
                self._length += written
                data = data[written:]
        except OSError as error:
            raise RlganError(
                f"{self.path} could not be written ({error.strerror or error}); "
                "the checkpoints are kept, and `rlgan resume` goes on from the newest"
            ) from error

    @property
    def length(self) -> int:
        """Bytes so far, all of them on the disk when this returns."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RlganError(f"{self.path} could not be written ({error.strerror or error})") from error
        return self._length

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All rows of a record. A torn last line is left out; UsageError names any other line that is not a JSON object."""
    rows = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    raise UsageError(f"line {number} of {path} is not a JSON object: the record is damaged")
                rows.append(row)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    return rows


def last_evaluation(path: Path, key: str) -> dict[str, Any]:
    """The newest row of a record with an evaluation that has ``key``. UsageError: there is none."""
    for row in reversed(read(path)):
        if row.get("kind") == "eval" and isinstance(row.get(key), (int, float)):
            return row
    raise UsageError(
        f"{path} holds no evaluation: the run was stopped before its first one, and `rlgan resume {path.parent}` goes "
        "on, or the record is damaged"
    )


class LiveLine:
    """Progress on a terminal: one line that is drawn over; elsewhere, and where ``CI`` is set, one plain line a row."""

    def __init__(self, total_steps: int, stream: TextIO | None = None):
        self.total = max(total_steps, 1)
        self.stream = sys.stderr if stream is None else stream
        plain = os.environ.get("CI", "").lower() in ("1", "true") or os.environ.get("TERM") == "dumb"
        self.live = self.stream.isatty() and not plain
        self._line = ""
        self._pace: float | None = None

    def show(self, row: dict[str, Any]) -> None:
        """Show a row of the record: training as the live line, an evaluation as a line that stays."""
        if row["kind"] == "eval":
            self.note(_evaluation(row))
            return
        rate = row.get("time", {}).get("steps_per_s")
        if rate:
            # of seconds a step: of steps a second, a quick start would count for minutes
            self._pace = 1 / rate if self._pace is None else 0.7 * self._pace + 0.3 / rate
        parts = self._parts(row)
        if not self.live:
            self._write("  ".join(parts) + "\n")
            return
        width = self._columns() - 1
        line = "  ".join([self._bar(row["step"]), *parts])
        if len(line) > width:
            line = "  ".join(parts)
        while len(line) > width and len(parts) > 1:
            parts.pop()
            line = "  ".join(parts)
        self._line = line[:width]
        self._write(f"\r{self._line}\x1b[K")

    def note(self, text: str) -> None:
        """Print a line that stays, above the live one."""
        self._write(f"\r\x1b[K{text}\n{self._line}" if self._line else f"{text}\n")

    def close(self) -> None:
        """Leave the live line standing."""
        if self._line:
            self._line = ""
            self._write("\n")

    def _parts(self, row: dict[str, Any]) -> list[str]:
        """From the most to the least important: a narrow terminal loses the last ones."""
        step, spent = row["step"], row.get("time", {})
        done = f"{min(step / self.total, 1):4.0%}"
        parts = [f"{done} {short(step)}/{short(self.total)}" if self.live else f"{done} {step:,}/{self.total:,} steps"]
        if "return_mean" in row and "residual" not in row:
            parts.append("return " + ("-" if row["return_mean"] is None else f"{row['return_mean']:.4g}"))
        else:
            losses = [name for name in row if name.startswith(("loss", "residual"))]
            parts += [f"{name} {row[name]:.3g}" for name in losses]
        if "steps_per_s" in spent:
            parts.append(f"{spent['steps_per_s']:,.0f} steps/s")
        if self._pace:
            parts.append(f"ETA {duration(max(self.total - step, 0) * self._pace)}")
        shares = [(name.removesuffix("_share"), value) for name, value in spent.items() if name.endswith("_share")]
        if shares:
            parts.append(" ".join(f"{name} {value:.0%}" for name, value in shares))
        if "memory_mb" in spent:
            parts.append(f"{spent['memory_mb'] / 1024:.1f} GB")
        return parts

    def _bar(self, step: int) -> str:
        full, empty = ("━", "╌") if "utf" in (getattr(self.stream, "encoding", None) or "").lower() else ("=", "-")
        done = round(min(step / self.total, 1) * _BAR)
        return full * done + empty * (_BAR - done)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            # The reader of a pipe has gone (`2>&1 | head`): progress has nobody left to see it, the run goes on.
            self._write = lambda text: None  # type: ignore[method-assign]


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42s``, ``3m 05s``, ``2h 07m``, ``3d 04h``."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m {s % 60:02d}s"
    if s < 86_400:
        return f"{s // 3600}h {s % 3600 // 60:02d}m"
    return f"{s // 86_400}d {s % 86_400 // 3600:02d}h"


def short(count: float) -> str:
    """A count as a person says it: ``412k``, ``9.88M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


def _evaluation(row: dict[str, Any]) -> str:
    if "return_mean" not in row:
        numbers = [(name, value) for name, value in row.items() if isinstance(value, (int, float)) and name != "step"]
        found = ", ".join(f"{name} {value:.4g}" for name, value in numbers[:HEADLINES])
        return f"evaluation at step {row['step']:,}: {found}"
    text = f"evaluation at step {row['step']:,}: mean return {row['return_mean']:.4g}"
    if row.get("return_std") is not None:
        text += f" ± {row['return_std']:.4g}"
    if row.get("return_iqm") is not None:
        text += f", interquartile mean {row['return_iqm']:.4g}"
    return f"{text}, {row['episodes']} games" if "episodes" in row else text


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
