"""The figures of the course, drawn from what benchmarks/course.py keeps. Each takes {label: {"words", "seeds"}}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from rlgan.bench.statistics import bootstrap, mean
from rlgan.report.record import short
from rlgan_envs.cliffwalking import GOAL, HEIGHT, START, WIDTH

INK, SOFT, GRID = "#22262e", "#5a606b", "#e7e9ee"
COLOURS = ("#1f5fbf", "#c8501e", "#2c8a57", "#7d4aa8")
RESAMPLES = 2000
POINTS = 120
"""Places on the axis of steps to which the records of all seeds are brought."""
Floats = NDArray[np.float64]
Commands = dict[str, Any]

rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": SOFT, "axes.edgecolor": "#9aa0aa"})


def interval(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean over seeds (S, P) and its 95% bootstrap interval, each (P,)."""
    points = [bootstrap(mean, values[:, [p]], resamples=RESAMPLES) for p in range(values.shape[1])]
    value, low, high = np.asarray([(point.value, point.low, point.high) for point in points]).T
    return value, low, high


def on_grid(command: dict[str, Any], key: str, x: str = "step", after: float = 0) -> tuple[Floats, Floats]:
    """The places (P,) and the entry of all seeds there (S, P): straight lines between records, up to the shortest run.

    Records without the entry, as of a time in which no game ended, are passed over.
    """
    curves = []
    for seed in command["seeds"].values():
        points = [(a, b) for a, b in zip(seed[x], seed[key], strict=True) if isinstance(b, int | float)]
        curves.append(np.asarray(points, np.float64).T)
    grid = np.linspace(max(after, *(c[0, 0] for c in curves)), min(c[0, -1] for c in curves), POINTS)
    return grid, np.stack([np.interp(grid, *curve) for curve in curves])


def curve(axes: Axes, x: Floats, values: Floats, colour: str, thin: float = 0.4) -> None:
    """One thin line a seed, their mean and its interval."""
    axes.plot(x, values.T, color=colour, linewidth=0.8, alpha=thin)
    middle, low, high = interval(values)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, middle, color=colour, linewidth=2.2, solid_capstyle="round")


def dress(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "", steps: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=SOFT, length=0, labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if steps:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def head(figure: Figure, title: str, note: str) -> None:
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold")
    figure.text(0.012, 0.012, note, ha="left", fontsize=8.5, color=SOFT)


def seeds_of(commands: Commands) -> str:
    counts = {len(command["seeds"]) for command in commands.values()}
    return f"{counts.pop()} seeds" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"


def dqn(commands: Commands) -> Figure:
    """Returns above, Q values below, a column for each combination."""
    figure = Figure(figsize=(12, 5.8), layout="constrained")
    panels = figure.subplots(2, len(commands), sharex=True, sharey="row")
    bound = 100.0
    for i, (label, command) in enumerate(commands.items()):
        curve(panels[0, i], *on_grid(command, "return_mean"), COLOURS[i])
        dress(panels[0, i], label, "", "" if i else "return of a game in training")
        curve(panels[1, i], *on_grid(command, "q"), COLOURS[i])
        panels[1, i].axhline(bound, color=INK, linewidth=1.1, linestyle=(0, (5, 3)))
        dress(panels[1, i], "", "steps", "" if i else r"mean $Q(s, a)$ of what is learned from")
    panels[0, 0].set(xlim=(0, None), ylim=(0, 500))
    top = max(float(on_grid(command, "q")[1].max()) for command in commands.values())
    if top > 5 * bound:
        panels[1, 0].set_yscale("symlog", linthresh=100, linscale=2)
    panels[1, 0].set_ylim(0, max(1.25 * bound, 1.08 * top))
    panels[1, 0].annotate(
        r"no policy earns more: $1/(1-\gamma)=100$",
        (0.03, bound),
        (0, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=8.5,
        color=INK,
    )
    note = f"{seeds_of(commands)}: thin lines; their mean and its 95% interval: thick line and band."
    head(figure, "What replay and the target network do for DQN on cart-pole", note)
    figure.get_layout_engine().set(rect=(0, 0.035, 1, 0.965))
    return figure


def monte_carlo(commands: Commands) -> Figure:
    """Error of the values of random play over steps."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    ends = []
    for i, (label, command) in enumerate(commands.items()):
        x, values = on_grid(command, "error", "saved")
        curve(axes, x, values, COLOURS[i], thin=0.18)
        ends.append((float(values.mean(0)[-1]), label, COLOURS[i]))
    axes.set(xlim=(0, None), ylim=(0, None))
    name_ends(axes, ends)
    dress(axes, "", "steps", "root mean squared error of the table")
    note = f"{seeds_of(commands)}: thin lines; their mean and its 95% interval: thick line and band."
    head(figure, "Learning the values of random play on the frozen lake", note)
    figure.get_layout_engine().set(rect=(0, 0.035, 1, 0.965))
    return figure


def name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names of curves (height of the last point, name, colour) at the right edge, moved apart where they would meet."""
    heights = [(axes.transScale + axes.transLimits).transform((1.0, end[0]))[1] for end in ends]
    place = -np.inf
    for height, (_, label, colour) in sorted(zip(heights, ends, strict=True)):
        place = max(height, place + 0.055)
        style = {"color": colour, "fontweight": "bold", "fontsize": 9.5, "va": "center", "annotation_clip": False}
        axes.annotate(label, (1.0, place), (6, 0), xycoords="axes fraction", textcoords="offset points", **style)


def cliff(commands: Commands) -> Figure:
    """Returns in training, and the greedy paths over the values of cells."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.12))
    axes, ends = left.subplots(), []
    for i, (label, command) in enumerate(commands.items()):
        # before, the games that have ended are the few short ones
        x, values = on_grid(command, "return_mean", after=4000)
        curve(axes, x, values, COLOURS[i])
        ends.append((float(values[:, -20:].mean()), label, COLOURS[i]))
    axes.set(xlim=(0, None), ylim=(-150, 0))
    name_ends(axes, ends)
    dress(axes, "While they learn, a tenth of the moves random", "steps", "return of a game in training")
    grids = right.subplots(2, 1)
    for i, (label, command) in enumerate(commands.items()):
        seeds = list(command["seeds"].values())
        draw_cliff(grids[i], np.mean([seed["values"] for seed in seeds], 0), [s["path"] for s in seeds], COLOURS[i])
        lengths = sorted({len(seed["path"]) - 1 for seed in seeds})
        steps = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        dress(grids[i], f"{label}: what it does without chance, {steps} steps", steps=False)
        grids[i].set_axis_off()
    note = f"{seeds_of(commands)}. Left: thin lines, their mean and its 95% interval. "
    note += "Right: one path a seed; numbers: value of the best action, mean over seeds."
    head(figure, "On-policy and off-policy beside a cliff", note)
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    return figure


def draw_cliff(axes: Axes, values: Floats, paths: Sequence[Sequence[int]], colour: str) -> None:
    """The grid with a number in each cell, the cliff hatched, and paths a little apart."""
    for cell in range(HEIGHT * WIDTH):
        y, x = divmod(cell, WIDTH)
        over = START < cell < GOAL
        face = "#4c443f" if over else "#f3f5f9"
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
        if not over and cell != GOAL:
            axes.text(x + 0.06, y + 0.86, f"{values[cell]:.0f}", ha="left", va="center", fontsize=7, color="#868d99")
    axes.text(WIDTH / 2, HEIGHT - 0.5, "cliff: -100", ha="center", va="center", color="#e9dfd6", fontsize=10)
    for k, path in enumerate(paths):
        shift = 0.42 * (k / max(len(paths) - 1, 1) - 0.5)
        points = np.asarray([(c % WIDTH + 0.55 + shift, c // WIDTH + 0.42 + shift) for c in path])
        axes.plot(*points.T, color=colour, linewidth=0.9, solid_joinstyle="round")
    axes.add_patch(Rectangle((0.03, HEIGHT - 0.97), 0.94, 0.94, fill=False, edgecolor="#9aa0aa", linewidth=1.2))
    x, y = GOAL % WIDTH, GOAL // WIDTH
    axes.plot([x + 0.25, x + 0.25], [y + 0.1, y + 0.92], color=INK, linewidth=1.6, zorder=4)
    axes.add_patch(
        Polygon([(x + 0.25, y + 0.1), (x + 0.68, y + 0.24), (x + 0.25, y + 0.38)], color="#2c8a57", zorder=4)
    )
    axes.set(xlim=(-0.05, WIDTH + 0.05), ylim=(HEIGHT + 0.05, -0.05), aspect="equal")


def baseline(commands: Commands) -> Figure:
    """Returns in training, and the variance of the gradient on the same games."""
    figure = Figure(figsize=(12, 4.9), layout="constrained")
    axes, noise = figure.subplots(1, 2)
    ends = []
    for i, (label, command) in enumerate(commands.items()):
        x, values = on_grid(command, "return_mean")
        curve(axes, x, values, COLOURS[i])
        ends.append((float(values.mean(0)[-1]), label, COLOURS[i]))
    axes.set(xlim=(0, None), ylim=(0, 205))
    name_ends(axes, ends)
    dress(axes, "Learning", "steps", "return of a game in training")
    command, ends = commands["value baseline"], []
    for key, label, colour in (("mean", "mean return", COLOURS[2]), ("value", "learned value", COLOURS[1])):
        seeds = command["seeds"].values()
        rows = [{"saved": s["saved"], key: np.divide(s["noise"][key], s["noise"]["nothing"])} for s in seeds]
        x, values = on_grid({"seeds": dict(enumerate(rows))}, key, "saved")
        curve(noise, x, values, colour)
        ends.append((float(values.mean(0)[-1]), label, colour))
    noise.axhline(1, color=COLOURS[0], linewidth=2.2)
    noise.set(xlim=(0, None), ylim=(0, 1.15))
    name_ends(noise, [*ends, (1.0, "nothing", COLOURS[0])])
    xlabel = "steps of the run with the value baseline"
    dress(noise, "Variance of one game's gradient, by what is subtracted", xlabel, "share of that without a baseline")
    note = f"{seeds_of(commands)}: thin lines; their mean and its 95% interval. Right: the same games for all three."
    head(figure, "What a baseline does for REINFORCE on cart-pole", note)
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    return figure


def families(commands: Commands) -> Figure:
    """Returns over steps, and over seconds of one core."""
    figure = Figure(figsize=(12, 4.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for i, command in enumerate(commands.values()):
        for axes, x in zip(panels, ("step", "core"), strict=True):
            curve(axes, *on_grid(command, "return_mean", x), COLOURS[i])
    for i, label in enumerate(commands):
        panels[0].plot([], [], color=COLOURS[i], linewidth=2.2, label=label)
    panels[0].set_ylim(0, 505)
    panels[0].set_xscale("log")
    panels[1].set_xscale("log")
    panels[0].legend(frameon=False, loc="upper left")
    dress(panels[0], "Over steps", "steps (logarithmic)", "return of a game in training")
    dress(panels[1], "Over seconds", "seconds of one core (logarithmic)", "", steps=False)
    panels[1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    note = f"{seeds_of(commands)}: thin lines; their mean and its 95% interval: thick line and band."
    head(figure, "Value-based, policy-based and actor-critic on cart-pole", note)
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    return figure
