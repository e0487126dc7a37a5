"""Frozen lake with the rules of Gymnasium's FrozenLake-v1: cross slippery ice to the goal, past the holes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge

from rlgan.core.protocols import Model, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged
from rlgan.tables import TableEnv, grid

MAPS = {
    "4x4": "SFFF FHFH FFFH HFFG",
    "8x8": "SFFFFFFF FFFFFFFF FFFHFFFF FFFFFHFF FFFHFFFF FHHFFFHF FHFFHFHF FFFHFFFG",
}
"""Rows of cells: start, frozen, hole, goal."""
LIMITS = {"4x4": 100, "8x8": 200}
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""Left, down, right, up."""
SLIPS = (-1, 0, 1)
"""Where the ice may take one instead, as numbers to add to the move's."""
CELL = 96


@dataclass(frozen=True)
class FrozenLakeConfig:
    """Settings of the frozen lake."""

    map: Literal["4x4", "8x8"] = "4x4"
    """Which of Gymnasium's two lakes."""
    slippery: bool = True
    """Move as asked with probability 1/3, else to one of the two sides."""
    max_steps: Annotated[int, Ge(0)] = 0
    """Length at which an episode is truncated; 0 = as in Gymnasium, 100 on 4x4 and 200 on 8x8."""


class FrozenLake(TableEnv):
    """State and observation are the number of the cell, row by row; actions are left, down, right, up.

    Reward 1 for the step onto the goal, else 0. Terminated on the goal and in holes.
    """

    def __init__(
        self, config: FrozenLakeConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.rows = MAPS[config.map].split()
        cells = np.array([list(row) for row in self.rows]).ravel()
        goal, over = torch.from_numpy(cells == "G"), torch.from_numpy((cells == "G") | (cells == "H"))
        slips = SLIPS if config.slippery else (0,)
        moved = (torch.arange(len(MOVES))[:, None] + torch.tensor(slips)) % len(MOVES)
        here = torch.arange(len(cells))[:, None, None]
        there = grid(len(self.rows), len(self.rows[0]), MOVES)[:, moved]  # (S, A, K)
        there = torch.where(over[here], here, there)
        table = Model(
            next=there.to(device),
            prob=torch.full(there.shape, 1 / len(slips), dtype=torch.float64, device=device),
            reward=(goal[there] & ~over[here]).double().to(device),
            terminated=over[there].to(device),
            gamma=0.99,
        )
        starts = torch.from_numpy((cells == "S").nonzero()[0]).to(device)
        super().__init__(table, starts, config.max_steps or LIMITS[config.map], dtype)

    def render(self, state: State, i: int) -> np.ndarray:
        """The lake from above, 96 pixels a cell, (H, W, 3) uint8."""
        import cv2

        height, width = len(self.rows), len(self.rows[0])
        frame = np.full((height * CELL, width * CELL, 3), (226, 239, 247), np.uint8)
        for cell, kind in enumerate("".join(self.rows)):
            y, x = cell // width * CELL, cell % width * CELL
            cv2.rectangle(frame, (x, y), (x + CELL, y + CELL), (196, 216, 230), 2)
            middle = (x + CELL // 2, y + CELL // 2)
            if kind == "H":
                cv2.circle(frame, middle, 36, (45, 92, 134), -1, cv2.LINE_AA)
                cv2.circle(frame, middle, 36, (150, 186, 212), 3, cv2.LINE_AA)
            elif kind == "S":
                cv2.rectangle(frame, (x + 10, y + 10), (x + CELL - 10, y + CELL - 10), (138, 160, 176), 2, cv2.LINE_AA)
            elif kind == "G":
                cv2.line(frame, (x + 34, y + 18), (x + 34, y + 80), (70, 60, 50), 4, cv2.LINE_AA)
                flag = np.array([(x + 36, y + 18), (x + 76, y + 32), (x + 36, y + 46)], np.int32)
                cv2.fillPoly(frame, [flag], (58, 150, 84), cv2.LINE_AA)
        s = int(state["s"][i])
        middle = (s % width * CELL + CELL // 2, s // width * CELL + CELL // 2)
        cv2.circle(frame, middle, 22, (214, 112, 42), -1, cv2.LINE_AA)
        cv2.circle(frame, middle, 22, (120, 58, 18), 2, cv2.LINE_AA)
        return frame


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Frozen lake."""
    yield EnvSpec(
        "frozenlake",
        FrozenLake,
        FrozenLakeConfig,
        "cross slippery ice past holes; the rules of Gymnasium's FrozenLake-v1, with their model",
        scores=(
            Score("random", 0.01394, "policy evaluation over 100 steps of the model"),
            Score("optimum", 0.74419, "backward induction over 100 steps of the model"),
        ),
        scored=unchanged,
        tags=("toy text", "discrete", "model"),
    )
