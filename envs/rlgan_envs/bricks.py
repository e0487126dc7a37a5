"""A wall of bricks, a ball and a paddle on 10 x 10 cells: the classic arcade game from its rules, small enough to learn
on a processor in minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Interval
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor

from rlgan.core.protocols import Policy, State
from rlgan.hookspecs import hookimpl
from rlgan.specs import EnvSpec, Score, unchanged

SIZE = 10
BOTTOM = SIZE - 1
"""Row of the paddle."""
STAY = 1
"""Action 0 moves the paddle left, 2 right."""
FLIGHT = 24
"""Steps that the look-ahead policy plays out: the longest way of the ball up and down again, with bricks hit on it."""
CELL = 48
"""Side of a cell in a picture, in pixels."""
NIGHT, PADDLE, BALL = (17, 19, 31), (226, 232, 240), (250, 250, 250)
BRICKS = ((239, 83, 80), (255, 167, 38), (255, 213, 79), (102, 187, 106))
"""Colours of the rows of the wall, from the top."""


@dataclass(frozen=True)
class BricksConfig:
    """Settings of bricks."""

    rows: Annotated[int, Interval(ge=1, le=4)] = 3
    """Rows of ten bricks in the wall."""
    sticky: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0
    """Probability that the paddle repeats its last action instead of the one chosen."""
    max_steps: Annotated[int, Gt(0)] = 1000
    """Length at which an episode is truncated."""


class Bricks:
    """State: ``ball`` (n, 4) int64, its row, column and last direction (down, right) in cells a step; ``paddle`` (n,)
    int64, the column of its middle; ``bricks`` (n, 10, 10) bool; ``action`` (n,) int64, the last one done.

    In one step the paddle moves by a cell, then the ball:

    - Above the paddle's three cells it is struck upwards: to the left by the left one, to the right by the right one,
      and on to its side by the middle one. At a side wall it turns to the other side.
    - Into the cell ahead it moves if that is free. If it holds a brick, the brick vanishes for a reward of 1, and the
      ball turns back: it stays in its row for this step and moves only aside, where no other brick is in the way. The
      ceiling turns it back in the same way.
    - In the bottom row it is lost: terminated.
    - When no brick is left, the next stroke of the paddle brings a new wall.

    The wall begins in the second row. The ball starts below it, falling to either side in one of the eight inner
    columns, and the paddle starts in the middle, in time for every start.
    """

    fps = 15

    def __init__(self, config: BricksConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.max_steps, self.sticky, self.rows = config.max_steps, config.sticky, config.rows
        self.device, self.dtype = device, dtype
        self.wall = torch.zeros(SIZE, SIZE, dtype=torch.bool, device=device)
        self.wall[1 : 1 + config.rows] = True
        self.observation_space = Box(0, 1, (4, SIZE, SIZE), np.uint8)
        self.action_space = Discrete(3)

    def reset(self, n: int, rng: Generator | None) -> State:
        """A whole wall, and one of sixteen starts of the ball."""
        column = torch.randint(1, BOTTOM, (n,), generator=rng, device=self.device)
        side = 2 * torch.randint(2, (n,), generator=rng, device=self.device) - 1
        down = torch.ones_like(side)
        return {
            "ball": torch.stack((down * (1 + self.rows), column, down, side), 1),
            "paddle": torch.full_like(column, BOTTOM // 2),
            "bricks": self.wall.expand(n, -1, -1).clone(),
            "action": torch.full_like(column, STAY),
        }

    def observe(self, state: State) -> Tensor:
        """Planes (n, 4, 10, 10) of 0 and 1: paddle, ball, the cell behind the ball, bricks.

        The cell behind is where the ball came from or, after it turned back, would have come from without the turn; the
        ceiling itself counts as the top row. So ball and cell behind tell the direction.
        """
        row, column, down, right = state["ball"].unbind(1)
        middle, plane = BOTTOM * SIZE + state["paddle"], SIZE * SIZE
        ball, behind = row * SIZE + column, (row - down).clamp(min=0) * SIZE + column - right
        cells = torch.stack((middle - 1, middle, middle + 1, plane + ball, 2 * plane + behind), 1)
        bricks = state["bricks"].flatten(1).to(torch.uint8)
        planes = torch.zeros(len(row), 3 * plane, dtype=torch.uint8, device=self.device).scatter(1, cells, 1)
        return torch.cat((planes, bricks), 1).view(-1, 4, SIZE, SIZE)

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Move the paddle, then the ball."""
        if self.sticky:
            repeats = torch.rand(action.shape, generator=rng, device=self.device) < self.sticky
            action = torch.where(repeats, state["action"], action)
        paddle = (state["paddle"] + action - STAY).clamp(1, BOTTOM - 1)
        row, column, down, right = state["ball"].unbind(1)

        struck = (row == BOTTOM - 1) & (down > 0) & ((column - paddle).abs() <= 1)
        down = torch.where(struck, -1, down)
        aim = torch.where(struck & (column != paddle), column - paddle, right)
        aim = torch.where((column + aim < 0) | (column + aim > BOTTOM), -aim, aim)

        bricks = state["bricks"].flatten(1)
        # no brick lies in the top row nor in the bottom one, where rows outside of the court are looked up
        ahead = ((row + down).clamp(0, BOTTOM) * SIZE + column + aim).unsqueeze(1)
        beside = (row * SIZE + column + aim).unsqueeze(1)
        hit = bricks.gather(1, ahead).squeeze(1)
        back = hit | (row + down < 0)
        stuck = back & bricks.gather(1, beside).squeeze(1)
        bricks = bricks.scatter(1, ahead, False)
        bricks = torch.where((struck & ~bricks.any(1)).unsqueeze(1), self.wall.flatten(), bricks)

        ball = torch.stack(
            (
                torch.where(back, row, (row + down).clamp(max=BOTTOM)),
                torch.where(stuck, column, column + aim),
                torch.where(back, -down, down),
                # a ball stuck beside a wall still points at the wall, so that the cell behind it exists
                torch.where(stuck, right, aim),
            ),
            1,
        )
        following = {"ball": ball, "paddle": paddle, "bricks": bricks.view_as(state["bricks"]), "action": action}
        return following, hit.to(self.dtype), ball[:, 0] == BOTTOM

    def references(self) -> dict[str, Policy]:
        """Random moves; staying below the ball; the same, choosing the stroke that hits most bricks on its flight."""

        def random(state: State, rng: Generator | None) -> Tensor:
            return torch.randint(3, state["paddle"].shape, generator=rng, device=self.device)

        def track(state: State, rng: Generator | None) -> Tensor:
            stroke = torch.randint(-1, 2, state["paddle"].shape, generator=rng, device=self.device)
            return (state["ball"][:, 1] + stroke - state["paddle"]).sign() + STAY

        def look_ahead(state: State, rng: Generator | None) -> Tensor:
            row, column, down, _ = state["ball"].unbind(1)
            follow = (column - state["paddle"]).sign() + STAY
            worth = torch.stack([self._flight(state, torch.full_like(follow, a), rng) for a in range(3)], 1)
            ties = torch.rand(worth.shape, generator=rng, device=self.device)
            return torch.where((row == BOTTOM - 1) & (down > 0), (worth + ties).argmax(1), follow)

        return {"random": random, "tracking": track, "look-ahead": look_ahead}

    def _flight(self, state: State, action: Tensor, rng: Generator | None) -> Tensor:
        """Bricks (n,) hit when ``action`` is followed by staying below the ball; -1 where the ball is lost."""
        total, lost = torch.zeros(len(action), device=self.device), torch.zeros_like(action, dtype=torch.bool)
        for _ in range(FLIGHT):
            state, reward, terminated = self.step(state, action, rng)
            total, lost = total + reward, lost | terminated
            action = (state["ball"][:, 1] - state["paddle"]).sign() + STAY
        return total.masked_fill(lost, -1.0)

    def render(self, state: State, i: int) -> np.ndarray:
        """The court, (480, 480, 3) uint8."""
        import cv2

        frame = np.full((SIZE * CELL, SIZE * CELL, 3), NIGHT, np.uint8)
        for row, column in state["bricks"][i].nonzero().tolist():
            top, left = row * CELL, column * CELL
            frame[top + 3 : top + CELL - 3, left + 2 : left + CELL - 2] = BRICKS[row - 1]
        middle, top = int(state["paddle"][i]) * CELL + CELL // 2, BOTTOM * CELL + CELL // 4
        cv2.line(frame, (middle - CELL - 12, top), (middle + CELL + 12, top), PADDLE, 20, cv2.LINE_AA)
        row, column = state["ball"][i, :2].tolist()
        centre = (column * CELL + CELL // 2, row * CELL + CELL // 2)
        cv2.circle(frame, centre, CELL // 3, BALL, -1, cv2.LINE_AA)
        return frame


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Bricks."""
    yield EnvSpec(
        "bricks",
        Bricks,
        BricksConfig,
        "knock bricks out of a wall with ball and paddle on 10 x 10 cells, on the device",
        scores=(
            Score("random", 0.40, "mean of 10,000 games, this env"),
            Score("tracking", 70.1, "mean of 10,000 games of references()['tracking'], standard error 0.1"),
            Score("look-ahead", 84.6, "mean of 2,000 games of references()['look-ahead'], standard error 0.2"),
        ),
        scored=unchanged,
        tags=("arcade", "discrete", "planes"),
    )
