"""Taxi (Dietterich 2000) with the rules of Gymnasium's Taxi: fetch a passenger and bring them where they want to go."""

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

SIZE, PLACES, IN_TAXI = 5, 4, 4
STANDS = (0, 4, 20, 23)
"""Cells where passengers wait and want to go: red, green, yellow, blue."""
WALLS = (1, 6, 15, 17, 20, 22)
"""Cells with a wall on their right."""
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""South, north, east, west; then come pick up and drop."""
EAST, WEST, PICK_UP, DROP = 2, 3, 4, 5
CELL = 80
COLOURS = ((206, 66, 60), (62, 152, 84), (226, 182, 48), (60, 104, 190))


@dataclass(frozen=True)
class TaxiConfig:
    """Settings of the taxi."""

    max_steps: Annotated[int, Gt(0)] = 200
    """Length at which an episode is truncated; 200 as in Gymnasium."""


class Taxi(TableEnv):
    """State and observation ``((row * 5 + column) * 5 + passenger) * 4 + destination``; passenger 4 is in the taxi.

    Actions are south, north, east, west, pick up, drop. Reward -1 a step, -10 for picking up or dropping where there is
    nobody to pick up or no stand to drop at, 20 for the delivery, which terminates. Starts are uniform, with the
    passenger at another stand than the destination.
    """

    def __init__(self, config: TaxiConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        states = torch.arange(SIZE * SIZE * (PLACES + 1) * PLACES)
        cell, passenger, destination = states // 20, states // 4 % 5, states % 4
        stands = torch.tensor([*STANDS, -1])
        there = grid(SIZE, SIZE, MOVES)
        for left in WALLS:
            there[left, EAST], there[left + 1, WEST] = left, left + 1
        next = there[cell] * 20 + states[:, None] % 20
        next = torch.cat([next, states[:, None].expand(-1, 2)], 1)  # (S, A)
        reward = torch.full(next.shape, -1.0, dtype=torch.float64)
        terminated = torch.zeros(next.shape, dtype=torch.bool)

        boards = cell == stands[passenger]
        next[:, PICK_UP] += boards * (IN_TAXI - passenger) * 4
        reward[~boards, PICK_UP] = -10.0

        at = (cell[:, None] == stands[:PLACES]).long() * torch.arange(1, PLACES + 1)
        stand, alights = at.sum(1) - 1, (at.sum(1) > 0) & (passenger == IN_TAXI)
        delivered = alights & (stand == destination)
        next[:, DROP] += alights * (stand - IN_TAXI) * 4
        reward[~alights, DROP] = -10.0
        reward[delivered, DROP] = 20.0
        terminated[delivered, DROP] = True

        outcomes = (next, torch.ones_like(reward), reward, terminated)
        table = Model(*(part[..., None].to(device) for part in outcomes), gamma=1.0)
        starts = states[(passenger != IN_TAXI) & (passenger != destination)]
        super().__init__(table, starts.to(device), config.max_steps, dtype)

    def render(self, state: State, i: int) -> np.ndarray:
        """The town from above, (400, 400, 3) uint8. The destination is framed; the passenger is a dot."""
        import cv2

        s = int(state["s"][i])
        cell, passenger, destination = s // 20, s // 4 % 5, s % 4
        frame = np.full((SIZE * CELL, SIZE * CELL, 3), (240, 238, 232), np.uint8)

        def corner(cell: int) -> tuple[int, int]:
            return cell % SIZE * CELL, cell // SIZE * CELL

        for k, stand in enumerate(STANDS):
            x, y = corner(stand)
            pale = tuple(round(0.45 * c + 0.55 * 245) for c in COLOURS[k])
            cv2.rectangle(frame, (x, y), (x + CELL, y + CELL), pale, -1)
        for at in range(CELL, SIZE * CELL, CELL):
            cv2.line(frame, (at, 0), (at, SIZE * CELL), (214, 210, 202), 1)
            cv2.line(frame, (0, at), (SIZE * CELL, at), (214, 210, 202), 1)
        x, y = corner(STANDS[destination])
        cv2.rectangle(frame, (x + 5, y + 5), (x + CELL - 6, y + CELL - 6), COLOURS[destination], 5)
        for wall in WALLS:
            x, y = corner(wall)
            cv2.line(frame, (x + CELL, y), (x + CELL, y + CELL), (58, 54, 50), 6)
        x, y = corner(cell)
        cv2.rectangle(frame, (x + 14, y + 26), (x + CELL - 14, y + CELL - 20), (52, 52, 58), -1)
        cv2.rectangle(frame, (x + 26, y + 14), (x + CELL - 26, y + 28), (52, 52, 58), -1)
        for wheel in (x + 26, x + CELL - 26):
            cv2.circle(frame, (wheel, y + CELL - 18), 8, (18, 18, 20), -1, cv2.LINE_AA)
        inside = passenger == IN_TAXI
        x, y = corner(cell if inside else STANDS[passenger])
        dot = (x + CELL // 2, y + 42) if inside else (x + 18, y + 20)
        cv2.circle(frame, dot, 11, (214, 112, 42), -1, cv2.LINE_AA)
        cv2.circle(frame, dot, 11, (255, 255, 255), 2, cv2.LINE_AA)
        return frame


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Taxi."""
    yield EnvSpec(
        "taxi",
        Taxi,
        TaxiConfig,
        "fetch a passenger and bring them to their stand; the rules of Gymnasium's Taxi, with their model",
        scores=(
            Score("random", -771.09, "policy evaluation over 200 steps of the model"),
            Score("optimum", 7.93, "backward induction over 200 steps of the model"),
        ),
        scored=unchanged,
        tags=("toy text", "discrete", "model"),
    )
