"""Names in a picture, each beside its point or upon its line, apart from one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BESIDE, UPON, APART = (6, 5), (0, 2), 11
"""How far a name is from its point, how far from its line across, and the height of one more name, in points."""
MARKER = 4
"""Half the width of a point, in points."""


def write(axes: Any, text: str, place: Sequence[float], colour: str, across: bool = False) -> Any:
    """Write a name beside its point, tied to it, or upon a line ``across`` the picture."""
    tie = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": MARKER}
    return axes.annotate(
        text,
        place,
        xycoords=("axes fraction", "data") if across else "data",
        xytext=UPON if across else BESIDE,
        textcoords="offset points",
        color=colour,
        fontsize=9,
        arrowprops=None if across else tie,
    )


def spread(axes: Any, names: Sequence[Any]) -> None:
    """Move each name to where it is whole and touches no other one, no point, and, if that is possible, no line."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # only now the axes have their limits
    renderer = axes.figure.canvas.get_renderer()
    half = MARKER * axes.figure.dpi / 72
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    points = [
        xy for line, path in zip(axes.lines, paths, strict=True) if line.get_marker() != "None" for xy in path.vertices
    ]
    taken = [Bbox([xy - half, xy + half]) for xy in points]
    for name in sorted(names, key=lambda name: -len(name.get_text())):  # long ones fit in fewer places
        tried = [
            (_cost(_put(name, *way, renderer), axes.bbox, taken, paths), way) for way in _ways(*name.get_position())
        ]
        _, way = min(tried, key=lambda each: each[0])
        taken.append(_put(name, *way, renderer).padded(half / 2))


def _ways(x: float, y: float) -> list[tuple[float, float]]:
    """Offsets in points, the nearest first: right and left, above and below."""
    sides = dict.fromkeys((x, -x, 4 * x, -4 * x))
    ways = [(side, sign * (y + APART * row)) for row in range(7) for sign in (1, -1) for side in sides]
    return sorted(ways, key=lambda way: abs(way[0]) + abs(way[1]))


def _put(name: Any, x: float, y: float, renderer: Any) -> Any:
    """Move a name by an offset from its place, and return its box in pixels, without what ties it to its point."""
    from matplotlib.text import Text

    name.set(position=(x, y), horizontalalignment="left" if x >= 0 else "right")
    name.set_verticalalignment("bottom" if y >= 0 else "top")
    return Text.get_window_extent(name, renderer)


def _cost(box: Any, whole: Any, taken: Sequence[Any], paths: Sequence[Any]) -> int:
    """How bad a place is: out of the picture is worse than upon names and points, and that is worse than upon lines."""
    outside = not (whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1)
    crossed = sum(path.intersects_bbox(box, filled=False) for path in paths)
    return 1000 * outside + 10 * sum(box.overlaps(other) for other in taken) + crossed
