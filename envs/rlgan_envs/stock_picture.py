"""The chart of one store, period by period: stock, what is on order, orders, demand, and how much was not met."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from rlgan.report import record

HEIGHT, WIDTH, LEFT, RIGHT = 480, 720, 56, 16
TOP, MIDDLE, BOTTOM = 64, 300, 448
"""Edges of the two panels, in pixels: stock above, orders and demand below."""
PERIODS = 60
"""Periods that are shown at once."""
PAPER, INK, FAINT, GRID = (250, 250, 248), (40, 44, 52), (120, 125, 133), (226, 229, 233)
STOCK, UNDER_WAY, SHORT, ORDER, DEMAND = (66, 133, 190), (178, 208, 230), (214, 69, 65), (240, 160, 60), (60, 64, 72)
LEGEND = (("stock", STOCK), ("under way", UNDER_WAY), ("order", ORDER), ("demand", DEMAND), ("not met", SHORT))


class Period(NamedTuple):
    """What one period shows, in units, in the order of the legend."""

    stock: float
    under_way: float
    order: float
    demand: float
    short: float


class Chart:
    """Remembers the last ``PERIODS`` periods of the copy that it is asked to draw; a new episode begins a new chart."""

    def __init__(self) -> None:
        self.seen: deque[Period] = deque(maxlen=PERIODS)
        self.time, self.short = -1.0, 0.0

    def draw(self, state: dict[str, Any], whose: str = "") -> np.ndarray:
        """The picture after this period, (480, 720, 3) uint8, of one copy's state; see `rlgan_envs.stock.Stock`.

        ``whose`` is written below.
        """
        time, short = state["periods"], state["short"]
        stock, *orders = state["pipeline"]
        if time not in (self.time, self.time + 1):
            self.seen.clear()
        if time != self.time:
            missed = short - self.short if self.seen else 0.0
            self.seen.append(Period(stock, sum(orders), state["order"], state["demand"], missed))
        self.time, self.short = time, short
        return self._picture(whose)

    def _picture(self, whose: str) -> np.ndarray:
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
                text(_said(value), 4, y + 5, FAINT, 0.4)
            return lambda value: round(bottom - (value - low) / (high - low) * (bottom - top))

        def bar(k: int, scale: Any, start: float, end: float, colour: tuple[int, int, int], inset: float = 1) -> None:
            left, right = round(LEFT + k * width + inset), round(LEFT + (k + 1) * width - inset)
            cv2.rectangle(frame, (left, scale(max(start, end))), (right, scale(min(start, end))), colour, -1)

        seen = list(self.seen)
        above = panel(
            min(0, *(p.stock for p in seen)), _round(max(max(p.stock, 0) + p.under_way for p in seen)), TOP, MIDDLE
        )
        below = panel(0, _round(max(max(p.order, p.demand) for p in seen)), MIDDLE + 36, BOTTOM)
        for k, p in enumerate(seen):
            if p.under_way:
                bar(k, above, max(p.stock, 0), max(p.stock, 0) + p.under_way, UNDER_WAY)
            if p.stock:
                bar(k, above, 0, p.stock, STOCK if p.stock > 0 else SHORT)
            if p.order:
                bar(k, below, 0, p.order, ORDER)
            if p.short:
                bar(k, below, max(p.demand - p.short, 0), p.demand, SHORT, 3.5)
            cv2.circle(frame, (round(LEFT + (k + 0.5) * width), below(p.demand)), 3, DEMAND, -1, **style)
        x = LEFT
        for (word, colour), value in zip(LEGEND, seen[-1], strict=True):
            if word == "demand":
                cv2.circle(frame, (x + 5, 29), 3, colour, -1, **style)
            else:
                cv2.rectangle(frame, (x, 24), (x + 10, 34), colour, -1)
            text(f"{word} {_said(value)}", x + 16, 34, INK)
            (length, _), _ = cv2.getTextSize(f"{word} 88.8M", cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
            x += 16 + length + 14
        text(f"{whose}period {self.time:g}", LEFT, HEIGHT - 10, FAINT)
        return frame


def _round(value: float) -> float:
    """A little more than ``value``, on a grid that rarely changes."""
    step = 5 if value < 40 else max(20, 10 ** math.floor(math.log10(value)) / 5)
    return step * (value // step + 1)


def _said(value: float) -> str:
    """Units in few letters: ``12``, ``275k``, ``-1.54M``."""
    return "-" * (value < 0) + record.short(abs(value))
