"""The hexagonal city from above: idle vehicles, vehicles on their way, and the orders of the last slot."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from rlgan_envs.fleet_city import HOUR

SIDE, TOP = 640, 60
"""Width of the map and height of the head, in pixels."""
PAPER, GRID, INK = (250, 250, 248), (224, 227, 231), (40, 44, 52)
IDLE, BUSY, ORDER, LOST = (66, 133, 190), (150, 180, 205), (232, 120, 50), (200, 60, 55)
WARM = np.array((252, 214, 178)) - np.array(PAPER)
"""What the colour of a zone with many orders differs by."""
MANY = 3
"""Orders in a slot that colour a zone fully."""
SPOTS = [(0.0, 0.0), *((0.5 * math.cos(k * math.pi / 3), 0.5 * math.sin(k * math.pi / 3)) for k in range(6))]
"""Where vehicles of a zone stand, in radii; more than seven are written as a number."""


def draw(state: dict[str, Any], place: list[list[int]], size: int) -> np.ndarray:
    """The picture (700, 640, 3) uint8 of one copy's state; see `rlgan_envs.fleet.Fleet`.

    Blue dots are idle vehicles; rings are on their way to the zone that they are drawn in. Zones are the warmer the
    more orders came from them in the last slot, and a red border has one that lost some.
    """
    import cv2

    style: dict[str, Any] = {"lineType": cv2.LINE_AA}
    frame = np.full((SIDE + TOP, SIDE, 3), PAPER, np.uint8)
    radius = SIDE / (math.sqrt(3) * (2 * size + 1.4))

    def middle(q: int, r: int) -> tuple[float, float]:
        return SIDE / 2 + radius * math.sqrt(3) * (q + r / 2), TOP + SIDE / 2 + radius * 1.5 * r

    def corners(q: int, r: int, inner: float) -> np.ndarray:
        x, y = middle(q, r)
        turns = (math.pi / 6 + k * math.pi / 3 for k in range(6))
        edge = [(x + inner * radius * math.cos(a), y + inner * radius * math.sin(a)) for a in turns]
        return np.array(edge).round().astype(np.int32)

    for zone, (q, r) in enumerate(place):
        warmth = min(state["asked"][zone] / MANY, 1.0)
        colour = tuple(int(v) for v in np.array(PAPER) + warmth * WARM)
        cv2.fillPoly(frame, [corners(q, r, 1.0)], colour, **style)
        cv2.polylines(frame, [corners(q, r, 1.0)], True, GRID, 1, **style)
        if state["lost"][zone]:
            cv2.polylines(frame, [corners(q, r, 0.9)], True, LOST, 2, **style)
    time = int(state["time"])
    drivers = list(zip(state["cell"], state["free"], strict=True))
    idle = Counter(cell for cell, free in drivers if free <= time)
    coming = Counter(cell for cell, free in drivers if free > time)
    dot = max(2, round(radius / 7))
    for zone, (q, r) in enumerate(place):
        x, y = middle(q, r)
        marks = [(IDLE, -1)] * idle[zone] + [(BUSY, 1)] * coming[zone]
        for (a, b), (colour, filled) in zip(SPOTS, marks, strict=False):
            cv2.circle(frame, (round(x + a * radius), round(y + b * radius)), dot, colour, filled, **style)
        if len(marks) > len(SPOTS):
            where = round(x - 0.15 * radius), round(y + 0.85 * radius)
            cv2.putText(frame, str(len(marks)), where, cv2.FONT_HERSHEY_SIMPLEX, 0.35, INK, 1, **style)
    hour, minute = divmod(time, HOUR)
    words = [
        (f"{hour:02d}:{minute * 60 // HOUR:02d}", INK, 12),
        (f"fares {state['fares']:.0f}", INK, 80),
        (f"served {state['served']:g} of {state['come']:g}", ORDER, 190),
        (f"idle {sum(idle.values())}", IDLE, 380),
        (f"on the way {sum(coming.values())}", BUSY, 460),
    ]
    for word, colour, x in words:
        cv2.putText(frame, word, (x, 36), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, **style)
    return frame
