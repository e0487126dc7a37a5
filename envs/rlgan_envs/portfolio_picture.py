"""The picture of one portfolio: its wealth beside that of the references in the same bars, and its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rlgan.core.protocols import State

HEIGHT, WIDTH, LEFT, RIGHT = 480, 720, 64, 16
TOP, MIDDLE, BOTTOM = 84, 352, 440
"""Edges of the two panels, in pixels: wealth above, weights below."""
PAPER, INK, FAINT, GRID, OWN = (250, 250, 248), (40, 44, 52), (120, 125, 133), (226, 229, 233), (214, 69, 65)
COLOURS = {
    "buy-and-hold": (120, 125, 133),
    "constant-rebalanced": (66, 133, 190),
    "minimum-variance": (120, 170, 90),
    "best-constant": (240, 160, 60),
    "kelly": (60, 64, 72),
}
"""References that are drawn, as far as the market has them; cash is the line at 1."""


class Chart:
    """Plays the references of an env beside the copy that it is asked to draw; a new episode begins new curves."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.policies: dict[str, Any] = {name: p for name, p in env.references().items() if name in COLOURS}
        self.t = self.start = -1

    @torch.no_grad()
    def draw(self, state: State) -> np.ndarray:
        """The picture after this bar, (480, 720, 3) uint8, of one copy's state (1, ...)."""
        t, start = int(state["t"]), int(state["start"])
        if start != self.start or t < self.t:
            fresh = {**self.env.reset(1, None), **{name: state[name] for name in ("start", "end")}, "t": state["start"]}
            self.states = dict.fromkeys(self.policies, fresh)
            self.curves: dict[str, list[float]] = {name: [0.0] for name in ("", *self.policies)}
            self.start = self.t = start
        # between two pictures of a film the own curve is drawn straight
        own = self.curves[""]
        own += np.linspace(own[-1], float(state["log_wealth"]), t - self.t + 1)[1:].tolist()
        while self.t < t:
            for name, policy in self.policies.items():
                self.states[name], _, _ = self.env.step(self.states[name], policy(self.states[name], None), None)
                self.curves[name].append(float(self.states[name]["log_wealth"]))
            self.t += 1
        return self._picture(int(state["end"]) - start, state["weights"][0].tolist())

    def _picture(self, bars: int, weights: list[float]) -> np.ndarray:
        import cv2

        frame = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
        style: dict[str, Any] = {"lineType": cv2.LINE_AA}

        def text(words: str, x: int, y: int, colour: tuple[int, int, int], size: float = 0.42) -> None:
            cv2.putText(frame, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, **style)

        low = min(-0.05, *(min(curve) for curve in self.curves.values()))
        high = max(0.05, *(max(curve) for curve in self.curves.values()))
        gone = len(self.curves[""]) - 1
        for value in (low, 0.0, high):
            y = round(MIDDLE - (value - low) / (high - low) * (MIDDLE - TOP))
            cv2.line(frame, (LEFT, y), (WIDTH - RIGHT, y), FAINT if value == 0 else GRID, 1)
            text(f"{np.exp(value):.3g}", 8, y + 5, FAINT)
        at = np.unique(np.linspace(0, gone, 1 + min(gone, WIDTH)).round().astype(int))
        x = LEFT + at / bars * (WIDTH - LEFT - RIGHT)
        shown = [*((name, COLOURS[name]) for name in self.policies), ("", OWN)]
        for k, (name, colour) in enumerate(shown):
            curve = np.array(self.curves[name])[at]
            y = MIDDLE - (curve - low) / (high - low) * (MIDDLE - TOP)
            cv2.polylines(
                frame, [np.stack((x, y), 1).round().astype(np.int32)], False, colour, 1 if name else 2, **style
            )
            column, row = LEFT + 218 * (k % 3), 18 + 20 * (k // 3)
            cv2.rectangle(frame, (column, row), (column + 14, row + 12), colour, -1)
            text(f"{name or 'this portfolio'} {np.exp(curve[-1]):.3g}", column + 22, row + 11, INK)
        text("wealth", 8, TOP - 12, FAINT)
        width = (WIDTH - LEFT - RIGHT) / len(weights)
        cv2.line(frame, (LEFT, BOTTOM), (WIDTH - RIGHT, BOTTOM), FAINT, 1)
        for k, weight in enumerate(weights):
            corner = (round(LEFT + k * width + 1), round(BOTTOM - weight / max(weights) * (BOTTOM - MIDDLE - 24)))
            colour = FAINT if k == 0 else OWN
            cv2.rectangle(frame, corner, (round(LEFT + (k + 1) * width - 1), BOTTOM), colour, -1)
        text(f"weights: cash, then the assets; the largest is {max(weights):.2g}", LEFT, BOTTOM + 18, FAINT)
        text(f"bar {gone:,} of {bars:,}", WIDTH - RIGHT - 150, BOTTOM + 18, FAINT)
        return frame
