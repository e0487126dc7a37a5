"""TensorBoard: every number of the record as a scalar, in ``<run>/tensorboard``. Written by tensorboardX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlgan import NoConfig, TrackerSpec, hookimpl

FLUSH_SECONDS = 10


class TensorBoard:
    """Names are ``train/loss``, ``eval/return_mean``, ``time/steps_per_s``; the step is the run's."""

    def __init__(self, config: NoConfig, run_dir: Path):
        from tensorboardX import SummaryWriter

        self._make = SummaryWriter
        self._folder = str(Path(run_dir) / "tensorboard")
        self._writer: Any = None

    def run_start(self, info: dict[str, Any]) -> None:
        """Open the event file; where a run is resumed, TensorBoard drops what an earlier one wrote past ``step``."""
        step = info.get("step") or None
        purge = None if step is None else step + 1
        self._writer = self._make(self._folder, purge_step=purge, flush_secs=FLUSH_SECONDS)
        text = json.dumps(info.get("config", {}), indent=2, default=str)
        self._writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()), step or 0)

    def metrics(self, row: dict[str, Any]) -> None:
        """Write the numbers of one row."""
        step, kind = row["step"], row["kind"]
        groups = {kind: row, "time" if kind == "train" else f"{kind}_time": row.get("time", {})}
        for group, values in groups.items():
            for name, value in values.items():
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    def checkpoint(self, path: Path) -> None:
        """Let the events on the disk reach as far as the checkpoint."""
        self._writer.flush()

    def run_end(self, summary: dict[str, Any]) -> None:
        """Close the event file."""
        self._writer.close()


@hookimpl
def rlgan_specs():
    """Yield the tracker."""
    yield TrackerSpec("tensorboard", TensorBoard, NoConfig, "scalars for TensorBoard", extra="trackers")
