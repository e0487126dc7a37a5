"""The learning curve of a run as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlgan.report.record import duration, read, short
from rlgan.specs import Score

FILE = "curve.png"
CONFIDENCE = 0.95
RESAMPLES = 2000
LARGE = 9_999.5
"""From here on, where four digits are not enough, scores have a unit."""
REACH = 1.35
"""A known score further above the data than this many times their range is named at the edge, so that it cannot flatten
the curve."""
PLACE, EDGE = (0.085, 0.12, 0.725, 0.69), 0.008
"""Left, bottom, width and height of the axes, unless what stands beside them needs more; what stays free of it, as
shares of the picture."""
_RAW, _SMOOTH, _EVAL, _GREY, _INK = "#8fb3e6", "#1f5fbf", "#c8501e", "#8a8f98", "#22262e"

Floats = NDArray[np.float64]


UNITS = {
    "return_mean": ("steps (decisions of the agent, all copies together)", "return of a game"),
    "recognised": ("steps (updates of the generator)", "share of samples recognised"),
    "nll_oracle": ("steps (updates)", "oracle's nats for a token that is made (NLL_oracle)"),
    "nll_test": ("steps (updates)", "nats for a token held out (NLL_test)"),
}
"""What the axes show, by the entry of the record that is drawn."""


def draw(run_dir: Path, title: str, key: str, scores: Sequence[Score]) -> Path:
    """Draw ``curve.png`` from a run's metrics.jsonl.

    Args:
        run_dir: the run's directory.
        title: the heading.
        key: the entry of the record's rows that is drawn.
        scores: known results, drawn as lines across.

    Returns:
        The path of the picture. UsageError if the record cannot be read.
    """
    import matplotlib

    rows = read(run_dir / "metrics.jsonl")
    style: Any = {"font.family": "sans-serif", "font.size": 10.5, "axes.edgecolor": _GREY, "text.color": _INK}
    with matplotlib.rc_context(style):
        figure = _figure(rows, title, key, {score.who: score.value for score in scores})
        path = run_dir / FILE
        temporary = run_dir / f".{FILE}-{os.getpid()}"
        figure.savefig(temporary, format="png", dpi=150, facecolor="white")
        os.replace(temporary, path)
    return path


def smooth(values: Floats, weights: Floats) -> Floats:
    """Gaussian mean (n,) over neighbouring points, a thirtieth of the curve wide, each with its weight."""
    n = len(values)
    width = max(n / 30, 1.0)
    offsets = np.arange(-int(4 * width), int(4 * width) + 1)
    kernel = np.exp(-0.5 * (offsets / width) ** 2)
    middle = slice(len(offsets) // 2, len(offsets) // 2 + n)
    return np.convolve(values * weights, kernel)[middle] / np.convolve(weights, kernel)[middle]


def interval(returns: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval of the mean of the games' returns, with a fixed seed."""
    games = np.asarray(returns, dtype=np.float64)
    draws = np.random.default_rng(0).integers(0, len(games), (RESAMPLES, len(games)))
    low, high = np.quantile(games[draws].mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def brief(value: float, digits: int = 3) -> str:
    """A score as a person says it, with this many digits where it has a unit: ``412``, ``-349.6k``, ``1.2M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(0.9995 * size, LARGE):
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{max(digits, 4)}g}"


def _figure(rows: list[dict[str, Any]], title: str, key: str, lines: dict[str, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(9.6, 5.4))
    FigureCanvasAgg(figure)
    axes = figure.add_axes(PLACE)
    train = [row for row in rows if row["kind"] == "train" and _finite(row.get(key))]
    evals = [row for row in rows if row["kind"] == "eval" and _finite(row.get(key))]
    drawn = [*_train(axes, train, key), *_evaluations(axes, evals, key)]
    last = max((row["step"] for row in rows), default=1)
    if drawn:
        _lines(axes, lines, *_limits(np.asarray(drawn), list(lines.values())))
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.012, 1.085),
            ncols=3,
            frameon=False,
            borderaxespad=0,
            fontsize=9.5,
            columnspacing=2.2,
            handletextpad=0.7,
        )
    else:
        axes.text(0.5, 0.5, "nothing to show yet", ha="center", va="center", color=_GREY, transform=axes.transAxes)
        axes.set_yticks([])
    axes.set_xlim(0, max(last, 1))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda steps, _: short(steps)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: brief(value, 9)))
    x, y = UNITS.get(key, ("steps (updates of the generator)", key))
    axes.set_xlabel(x, color=_INK, labelpad=7)
    axes.set_ylabel(y, color=_INK, labelpad=7)
    axes.grid(axis="y", color="#e7e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#555b66", length=0, pad=6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    left = _fit(figure, axes)
    figure.text(left, 0.95, title, fontsize=14.5, fontweight="bold", va="center")
    figure.text(left, 0.9, _summary(rows, evals, key, last), fontsize=10, color="#555b66", va="center")
    return figure


def _fit(figure: Any, axes: Any) -> float:
    """Make the axes so narrow that all that is written beside them is in the picture; return their left edge."""
    left, bottom, width, height = PLACE
    box = axes.get_tightbbox(figure.canvas.get_renderer()).transformed(figure.transFigure.inverted())
    before, after = max(EDGE - box.x0, 0), max(box.x1 - (1 - EDGE), 0)
    axes.set_position((left + before, bottom, width - before - after, height))
    return left + before


def _train(axes: Any, rows: list[dict[str, Any]], key: str) -> list[float]:
    if not rows:
        return []
    steps, returns, games = (
        np.asarray([row.get(name) or 1 if name == "episodes" else row[name] for row in rows], np.float64)
        for name in ("step", key, "episodes")
    )
    axes.plot(steps, returns, color=_RAW, linewidth=0.8, alpha=0.35, zorder=2)
    axes.plot(steps, returns, ".", color=_RAW, markersize=6.5, alpha=0.7, mew=0, label="training games", zorder=3)
    line = smooth(returns, games)
    axes.plot(steps, line, color=_SMOOTH, linewidth=2.2, solid_capstyle="round", label="smoothed", zorder=4)
    # The rarest points may leave the picture; the curve may not.
    return [*np.quantile(returns, [0.005, 0.995]).tolist(), float(line.min()), float(line.max())]


def _evaluations(axes: Any, rows: list[dict[str, Any]], key: str) -> list[float]:
    if not rows:
        return []
    means = np.asarray([row[key] for row in rows], np.float64)
    ranges = [interval(row["returns"]) if row.get("returns") else (row[key],) * 2 for row in rows]
    low, high = np.asarray(ranges, np.float64).T
    axes.errorbar(
        [row["step"] for row in rows],
        means,
        yerr=[np.maximum(means - low, 0), np.maximum(high - means, 0)],
        fmt="o" if key == "return_mean" else "o-",
        color=_EVAL,
        markersize=6.5,
        markeredgecolor="white",
        markeredgewidth=1.1,
        elinewidth=1.6,
        capsize=3,
        label=f"evaluation, {CONFIDENCE:.0%} interval of the mean" if rows[0].get("returns") else "evaluation",
        zorder=5,
        clip_on=False,
    )
    return [float(low.min()), float(high.max())]


def _limits(drawn: Floats, values: list[float]) -> tuple[float, float]:
    low, high = float(drawn.min()), float(drawn.max())
    span = high - low or max(abs(high), 1.0)
    near = [v for v in values if low - REACH * span <= v <= high + REACH * span]
    low, high = min([low, *near]), max([high, *near])
    pad = 0.06 * (high - low or span)
    return low - pad, high + pad


def _lines(axes: Any, lines: dict[str, float], low: float, high: float) -> None:
    """Draw the known scores, named at the right edge; names are moved apart where they would overlap."""
    axes.set_ylim(low, high)
    inside = sorted((value, who) for who, value in lines.items() if low <= value <= high)
    gap = 0.045 * (high - low)
    places = [value for value, _ in inside]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], high if i == len(places) - 1 else places[i + 1] - gap)
    for (value, who), place in zip(inside, places, strict=True):
        axes.axhline(value, color=_GREY, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
        _name(axes, place, f"{_shorten(who)}  {brief(value)}")
    above = sorted(((v, who) for who, v in lines.items() if v > high), reverse=True)
    below = sorted((v, who) for who, v in lines.items() if v < low)
    for i, (value, who) in enumerate(above):
        _name(axes, high + gap * (len(above) - i), f"↑ {_shorten(who)}  {brief(value)}")
    for i, (value, who) in enumerate(below):
        _name(axes, low - gap * (i + 1), f"↓ {_shorten(who)}  {brief(value)}")


def _name(axes: Any, height: float, text: str) -> None:
    axes.annotate(
        text,
        (1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color="#5a606b",
        fontsize=9.5,
        annotation_clip=False,
    )


def _summary(rows: list[dict[str, Any]], evals: list[dict[str, Any]], key: str, last: int) -> str:
    parts = [f"{last:,} steps"]
    if walls := [row["time"]["wall"] for row in rows if "wall" in row.get("time", {})]:
        parts.append(duration(walls[-1]))
    if evals:
        row = evals[-1]
        parts.append(f"last evaluation: {key.replace('_', ' ')} {brief(row[key], 4)}")
        if row.get("returns"):
            low, high = interval(row["returns"])
            parts[-1] += f" [{brief(low, 4)}, {brief(high, 4)}] over {len(row['returns'])} games"
    return "   ·   ".join(parts)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _shorten(who: str) -> str:
    return who if len(who) <= 18 else f"{who[:17]}…"
