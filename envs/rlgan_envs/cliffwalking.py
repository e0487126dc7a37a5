"""Cliff walking (Sutton & Barto 2018, example 6.6) with the rules of Gymnasium's CliffWalking-v1: the short path is on
the edge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt

from rlgan.core.protocols import Model, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan.tables import TableEnv, grid

HEIGHT, WIDTH = 4, 12
START, GOAL = 36, 47
"""The lower corners; all cells between them are the cliff."""
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left."""
SLIPS = (-1, 0, 1)
"""Where a slippery ground may take one instead, as numbers to add to the move's."""
CELL = 60


@dataclass(frozen=True)
class CliffWalkingConfig:
    """Settings of cliff walking."""

    slippery: bool = False
    """Move as asked with probability 1/3, else to one of the two sides."""
    max_steps: Annotated[int, Gt(0)] = 200
    """Length at which an episode is truncated; Gymnasium has no limit."""


class CliffWalking(TableEnv):
    """State and observation are the number of the cell, row by row; actions are up, right, down, left.

    Reward -1 a step; a step into the cliff costs 100 and leads back to the start. Terminated at the goal.
    """

    fps = 6

    def __init__(
        self, config: CliffWalkingConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        slips = SLIPS if config.slippery else (0,)
        moved = (torch.arange(len(MOVES))[:, None] + torch.tensor(slips)) % len(MOVES)
        there = grid(HEIGHT, WIDTH, MOVES)[:, moved]  # (S, A, K)
        fallen = (there > START) & (there < GOAL)
        table = Model(
            next=there.masked_fill(fallen, START).to(device),
            prob=torch.full(there.shape, 1 / len(slips), dtype=torch.float64, device=device),
            reward=torch.where(fallen, -100.0, -1.0).double().to(device),
            terminated=(there == GOAL).to(device),
            gamma=1.0,
        )
        super().__init__(table, torch.tensor([START], device=device), config.max_steps, dtype)

    def render(self, state: State, i: int) -> np.ndarray:
        """The cliff from above, (240, 720, 3) uint8."""
        import cv2

        frame = np.full((HEIGHT * CELL, WIDTH * CELL, 3), (214, 226, 196), np.uint8)
        frame[START // WIDTH * CELL :, CELL:-CELL] = (92, 74, 66)
        for x in range(CELL, WIDTH * CELL, CELL):
            cv2.line(frame, (x, 0), (x, HEIGHT * CELL), (190, 204, 170), 1)
        for y in range(CELL, HEIGHT * CELL, CELL):
            cv2.line(frame, (0, y), (WIDTH * CELL, y), (190, 204, 170), 1)
        for x in range(CELL, (WIDTH - 1) * CELL, 20):  # hatched, as cliffs are on maps
            y = HEIGHT * CELL
            cv2.line(frame, (x, y - CELL), (x + 10, y - CELL + 16), (206, 160, 120), 2, cv2.LINE_AA)
        y, x = START // WIDTH * CELL, START % WIDTH * CELL
        cv2.rectangle(frame, (x + 7, y + 7), (x + CELL - 7, y + CELL - 7), (138, 150, 120), 2)
        y, x = GOAL // WIDTH * CELL, GOAL % WIDTH * CELL
        cv2.line(frame, (x + 20, y + 10), (x + 20, y + 52), (70, 60, 50), 3, cv2.LINE_AA)
        flag = np.array([(x + 21, y + 10), (x + 48, y + 20), (x + 21, y + 30)], np.int32)
        cv2.fillPoly(frame, [flag], (58, 150, 84), cv2.LINE_AA)
        s = int(state["s"][i])
        middle = (s % WIDTH * CELL + CELL // 2, s // WIDTH * CELL + CELL // 2)
        cv2.circle(frame, middle, 15, (214, 112, 42), -1, cv2.LINE_AA)
        cv2.circle(frame, middle, 15, (120, 58, 18), 2, cv2.LINE_AA)
        return frame


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Cliff walking."""
    yield EnvSpec(
        "cliffwalking",
        CliffWalking,
        CliffWalkingConfig,
        "walk along a cliff to the goal; the rules of Gymnasium's CliffWalking-v1, with their model",
        scores=(
            Score("random", -2079.12, "policy evaluation over 200 steps of the model"),
            Score("optimum", -13.0, "backward induction over 200 steps of the model"),
        ),
        scored=unchanged,
        tags=("toy text", "discrete", "model"),
    )
