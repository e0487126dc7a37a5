"""The city from above: idle drivers, drivers on their way, orders that wait and where they go."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from rlgan_envs.dispatch_orders import SIDE, STEPS

CELL, TOP = 60, 56
"""Side of a cell and height of the head, in pixels."""
PAPER, GRID, INK, FAINT = (250, 250, 248), (224, 227, 231), (40, 44, 52), (120, 125, 133)
IDLE, BUSY, ORDER, WAY = (66, 133, 190), (178, 208, 230), (232, 120, 50), (246, 208, 178)
SPOTS = [(a, b) for b in (12, 30, 48) for a in (12, 30, 48)]
"""Where things in one cell are drawn; those beyond nine are drawn over the last."""


def draw(state: dict[str, Any]) -> np.ndarray:
    """The picture (596, 540, 3) uint8 of one copy's state; see `rlgan_envs.dispatch.Dispatch`.

    Blue dots are idle drivers; pale ones are on their way to the cell that they are drawn in; an orange square is an
    order that waits, with a line to its goal.
    """
    import cv2

    style: dict[str, Any] = {"lineType": cv2.LINE_AA}
    frame = np.full((SIDE * CELL + TOP, SIDE * CELL, 3), PAPER, np.uint8)
    for k in range(SIDE + 1):
        cv2.line(frame, (k * CELL, TOP), (k * CELL, TOP + SIDE * CELL), GRID, 1)
        cv2.line(frame, (0, TOP + k * CELL), (SIDE * CELL, TOP + k * CELL), GRID, 1)
    taken: dict[int, int] = defaultdict(int)

    def spot(cell: int) -> tuple[int, int]:
        a, b = SPOTS[min(taken[cell], len(SPOTS) - 1)]
        taken[cell] += 1
        return cell // SIDE * CELL + a, TOP + cell % SIDE * CELL + b

    time = int(state["time"])
    orders = zip(*(state[name] for name in ("origin", "goal", "begin", "end")), strict=True)
    waiting = [(origin, goal) for origin, goal, begin, end in orders if begin <= time <= end]
    squares = [spot(origin) for origin, _ in waiting]
    for (_, goal), at in zip(waiting, squares, strict=True):
        cv2.line(frame, at, (goal // SIDE * CELL + CELL // 2, TOP + goal % SIDE * CELL + CELL // 2), WAY, 1, **style)
    for x, y in squares:
        cv2.rectangle(frame, (x - 6, y - 6), (x + 6, y + 6), ORDER, -1)
    drivers = sorted(zip(state["free"], state["cell"], strict=True), key=lambda driver: driver[0] > time)
    for free, cell in drivers:
        cv2.circle(frame, spot(cell), 6, IDLE if free <= time else BUSY, -1, **style)
    idle = sum(free <= time for free, _ in drivers)
    come = sum(begin <= time for begin in state["begin"])
    words = [
        (f"step {time} of {STEPS}", INK, 10),
        (f"served {state['served']:g} of {come}", INK, 130),
        (f"idle {idle}", IDLE, 290),
        (f"on the way {len(drivers) - idle}", BUSY, 360),
        (f"waiting {len(waiting)}", ORDER, 455),
    ]
    for word, colour, x in words:
        cv2.putText(frame, word, (x, 34), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, **style)
    return frame
