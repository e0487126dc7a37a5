"""Quality against diversity over temperatures: one figure of a generator of sequences against another, as a picture."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlgan.errors import RlganError, UsageError
from rlgan.report import names

DATA, PICTURE = "plane.json", "plane.png"
UNITS = {
    "nll_oracle": "nats for a token that is made (NLL_oracle): lower is likelier",
    "nll_test": "nats for a token held out (NLL_test): lower forgets less",
    "bleu_4": "BLEU-4 against held-out lines: higher is more like them",
    "self_bleu_4": "self-BLEU-4: lower is more varied",
}
"""What an axis shows, by the entry of a row."""
_COLOURS = ("#1f5fbf", "#c8501e")
_GREY, _INK = "#8a8f98", "#22262e"


def write(
    folder: Path, found: dict[str, Any], against: dict[str, Any] | None, points: Mapping[str, Sequence[float]]
) -> Path:
    """Write ``plane.json`` and ``plane.png`` into a run's directory and return the picture's path.

    Args:
        folder: the run's directory.
        found: ``run``, the names of both axes as ``plane``, ``protocol``, and ``rows`` by temperature.
        against: the same of another run, drawn beside it.
        points: known places (x, y); those without x are lines across.

    Raises:
        RlganError: a file cannot be written.
    """
    picture, text = folder / PICTURE, json.dumps(found)
    try:
        (folder / DATA).write_text(text, encoding="utf-8")
        temporary = folder / f".{PICTURE}-{os.getpid()}"
        draw(found["plane"], [found, *([against] if against else [])], points).savefig(temporary, format="png", dpi=150)
        os.replace(temporary, picture)
    except OSError as error:
        raise RlganError(f"the picture {picture} could not be written: {error.strerror or error}") from error
    return picture


def read(folder: Path, protocol: str, axes: Sequence[str]) -> dict[str, Any]:
    """What `write` left in the directory of another run, whose data must be the same; it has both ``axes``.

    Raises:
        UsageError: there is none, or it is of other data.
    """
    path = folder / DATA
    right = f"rlgan eval {shlex.quote(str(folder))} temperatures=[0.5,0.7,1]"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        other, _ = str(found["protocol"]), str(found["run"])
        if _data(other) == _data(protocol):
            _line(found, axes)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: write it first, by `{right}`") from error
    if _data(other) != _data(protocol):
        raise UsageError(f"{path} was judged on {other}, and this run on {protocol}: compare runs of the same data")
    return found


def _data(protocol: str) -> tuple[str, str]:
    """The kind of data and what follows; a file's path is left out, since the hash of its content says more."""
    name, hashed, rest = protocol.partition(" sha256=")
    return (name.partition(":")[0] if hashed else name, rest)


def _line(run: dict[str, Any], plane: Sequence[str]) -> dict[float, tuple[float, float]]:
    """The places (x, y) of a run by rising temperature."""
    x, y = plane
    return dict(sorted((float(row["temperature"]), (float(row[x]), float(row[y]))) for row in run["rows"]))


def draw(plane: Sequence[str], runs: Sequence[dict[str, Any]], points: Mapping[str, Sequence[float]]) -> Any:
    """The picture as a matplotlib figure: each run is a line through its temperatures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, y = plane
    written: list[Any] = []
    figure = Figure(figsize=(7.6, 5.8), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.11, 0.11, 0.85, 0.83))
    for run, colour in zip(runs, _COLOURS, strict=False):
        line = _line(run, plane)
        axes.plot(*zip(*line.values(), strict=True), "o-", color=colour, linewidth=1.8, markersize=6, label=run["run"])
        for temperature, place in line.items():
            written.append(names.write(axes, f"{temperature:g}", place, colour))
    for who, known in points.items():
        if len(known) == 1:
            axes.axhline(known[0], color=_GREY, linewidth=1.1, linestyle=(0, (5, 3)))
            written.append(names.write(axes, who, (0.01, known[0]), _GREY, across=True))
        else:
            axes.plot(*known, "D", color=_INK, markersize=6)
            written.append(names.write(axes, who, known, _INK))
    axes.set_xlabel(UNITS.get(x, x), color=_INK)
    axes.set_ylabel(UNITS.get(y, y), color=_INK)
    axes.grid(color="#e7e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#555b66", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    names.spread(axes, written)
    axes.legend(loc="best", title="temperatures", framealpha=0.9, edgecolor="none")
    return figure
