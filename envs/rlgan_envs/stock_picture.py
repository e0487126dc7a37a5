"""The chart of one store, period by period: stock, what is on order, demand, orders."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

HEIGHT, WIDTH, LEFT, RIGHT = 480, 720, 56, 16
TOP, MIDDLE, BOTTOM = 64, 300, 448
"""Edges of the two panels, in pixels: stock above, orders and demand below."""
PERIODS = 60
"""Periods that are shown at once."""
PAPER, INK, FAINT, GRID = (250, 250, 248), (40, 44, 52), (120, 125, 133), (226, 229, 233)
STOCK, UNDER_WAY, SHORT, ORDER, DEMAND = (66, 133, 190), (178, 208, 230), (214, 69, 65), (240, 160, 60), (60, 64, 72)


class Period(NamedTuple):
    """What one period shows, in units."""

    stock: float
    under_way: float
    demand: float
    order: float
    short: float


class Chart:
    """Remembers the last ``PERIODS`` periods of the copy that it is asked to draw; a new episode begins a new chart."""

    def __init__(self) -> None:
        self.seen: deque[Period] = deque(maxlen=PERIODS)
        self.time, self.short = -1.0, 0.0

    def draw(self, state: dict[str, Any]) -> np.ndarray:
        """The picture after this period, (480, 720, 3) uint8, of one copy's state; see `rlgan_envs.stock.Stock`."""
        time, short = state["periods"], state["short"]
        stock, *orders = state["pipeline"]
        if time not in (self.time, self.time + 1):
            self.seen.clear()
        if time != self.time:
            missed = short - self.short if self.seen else 0.0
            self.seen.append(Period(stock, sum(orders), state["demand"], state["order"], missed))
        self.time, self.short = time, short
        return self._picture()

    def _picture(self) -> np.ndarray:
        import cv2

        frame = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
        style: dict[str, Any] = {"lineType": cv2.LINE_AA}
        width = (WIDTH - LEFT - RIGHT) / PERIODS

        def text(words: str, x: int, y: int, colour: tuple[int, int, int], size: float = 0.45) -> None:
            cv2.putText(frame, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, **style)

        def panel(low: float, high: float, top: int, bottom: int) -> Any:
            for value in {low, 0.0, high}:
                y = round(bottom - (value - low) / (high - low) * (bottom - top))
                cv2.line(frame, (LEFT, y), (WIDTH - RIGHT, y), FAINT if value == 0 else GRID, 1)
                text(f"{value:g}", 8, y + 5, FAINT)
            return lambda value: round(bottom - (value - low) / (high - low) * (bottom - top))

        def bar(k: int, scale: Any, start: float, end: float, colour: tuple[int, int, int], inset: float = 1) -> None:
            left, right = round(LEFT + k * width + inset), round(LEFT + (k + 1) * width - inset)
            cv2.rectangle(frame, (left, scale(max(start, end))), (right, scale(min(start, end))), colour, -1)

        seen = list(self.seen)
        above = panel(
            min(0, *(p.stock for p in seen)), _round(max(0, *(p.stock + p.under_way for p in seen))), TOP, MIDDLE
        )
        below = panel(0, _round(max(max(p.order, p.demand) for p in seen)), MIDDLE + 36, BOTTOM)
        for k, p in enumerate(seen):
            if p.under_way:
                bar(k, above, max(p.stock, 0), max(p.stock, 0) + p.under_way, UNDER_WAY)
            if p.stock:
                bar(k, above, 0, p.stock, STOCK if p.stock > 0 else SHORT)
            if p.order:
                bar(k, below, 0, p.order, ORDER)
            centre = (round(LEFT + (k + 0.5) * width), below(p.demand))
            cv2.circle(frame, centre, 3, SHORT if p.short else DEMAND, -1, **style)
        now, words = seen[-1], (("stock", STOCK), ("under way", UNDER_WAY), ("order", ORDER), ("demand", DEMAND))
        values = (now.stock, now.under_way, now.order, now.demand)
        for k, ((word, colour), value) in enumerate(zip((*words,), values, strict=True)):
            x = LEFT + 150 * k
            cv2.rectangle(frame, (x, 22), (x + 14, 36), colour, -1)
            text(f"{word} {value:g}", x + 22, 34, INK, 0.5)
        text("not met", WIDTH - RIGHT - 66, 34, SHORT, 0.5)
        text(f"period {self.time:g}", LEFT, HEIGHT - 10, FAINT)
        return frame


def _round(value: float) -> float:
    """A little more than ``value``, on a grid that rarely changes."""
    step = 5 if value < 40 else 20
    return step * (value // step + 1)
