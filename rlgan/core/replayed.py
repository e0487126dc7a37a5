"""The rows of a replay on disk, as segments; and what they must be before a run goes on with them.

A checkpoint's hashes find damage; whoever can write it can write fitting ones. What is forged ends here, as a
ValueError, and not in the training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete

from rlgan.core.buffers import Ring
from rlgan.core.stream import Stream
from rlgan.store.segments import read_segment, write_segment
from rlgan.store.state import tensor

PIECE_BYTES = 8 << 20
"""Size before compression of one segment."""
FLAGS = ("first", "terminated", "truncated", "valid")
Segments = list[dict[str, Any]]
"""References to segments, oldest first."""


def write(root: Path, ring: Ring, segments: Segments) -> Segments:
    """Write the rows that came since the last segment, and return all segments that the ring needs."""
    start = segments[-1]["first"] + segments[-1]["rows"] if segments else 0
    kept = [ref for ref in segments if ref["first"] + ref["rows"] > ring.written[0] - ring.capacity]
    return kept + [write_segment(root, first, rows) for first, rows in ring.pieces(start, PIECE_BYTES)]


def read(root: Path, ring: Ring, segments: Segments, stream: Stream) -> None:
    """Put the rows back into a ring whose write heads are loaded, and judge them."""
    _check_heads(ring, segments, stream)
    for ref in segments:
        ring.restore(ref["first"], read_segment(root, ref))
    if ring.fields:
        _check_rows(ring, stream)


def _check_heads(ring: Ring, segments: Segments, stream: Stream) -> None:
    """The write heads: equal, and every row that they promise lies in a segment; others would be left-over memory."""
    head = ring.written[0]
    if ring.written != [head] * len(stream.columns) or head * ring.copies > stream.rows:
        raise ValueError(f"its replay has write heads {ring.written!r:.60} after {stream.rows} rows")
    row = max(0, head - ring.capacity)
    for ref in segments:
        if ref["first"] > row:
            break
        row = max(row, ref["first"] + ref["rows"])
    if row != head:
        raise ValueError(f"its segments hold the replay up to row {row} of {head}")


def _check_rows(ring: Ring, stream: Stream) -> None:
    """The rows: the fields that the env gives, and actions that it takes."""
    shape, like, space = (ring.capacity, ring.copies), stream.obs[0], stream.env.single_action_space
    tensor(ring.fields["obs"], (*shape, *like.shape[2 if ring.stack > 1 else 1 :]), like.dtype, "replayed observation")
    for name in FLAGS:
        tensor(ring.fields[name], shape, torch.bool, f"replayed {name}")
    tensor(ring.fields["reward"], shape, torch.float32, "replayed reward")
    dtype = torch.from_numpy(np.empty(0, space.dtype)).dtype
    numbers = torch.int64 if isinstance(space, Discrete) else dtype  # in which agents number actions
    tensor(ring.fields["action"], (*shape, *(space.shape or ())), numbers, "replayed action")
    if not isinstance(space, Discrete):
        return
    for _, rows in ring.pieces(0, PIECE_BYTES):
        low, high = (int(x) for x in rows["action"].aminmax())
        if low < space.start or high >= space.start + space.n:
            raise ValueError(f"its replay has actions from {low} to {high} and the env takes {space}")
