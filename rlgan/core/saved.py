"""What a saved state must be before a run goes on with it: what is damaged or forged ends here, not in the training.

A checkpoint's hashes find damage; whoever can write it can write fitting ones. Each function raises ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from rlgan.core.buffers import Ring
from rlgan.core.protocols import Phase
from rlgan.core.stream import Stream, whole
from rlgan.store.tree import tensor

PIECE_BYTES = 64 << 20
FLAGS = ("first", "terminated", "truncated", "valid")


def check_progress(state: dict[str, Any], phases: Sequence[Phase], steps: int) -> None:
    """The trainer's own counts: each a whole number, and none that would keep a run going for ever."""
    rows = whole(state["stream"]["rows"], "rows")
    for name in ("phase", "updates", "summed", "began", "target"):
        whole(state[name], name)
    for name, value in state["marks"].items():
        whole(value, f"mark {name!r}")
    for name, value in state["at"].items():
        whole(value + 1, f"row of the last {name!r}")
    if state["phase"] >= len(phases):
        raise ValueError(f"it is in phase {state['phase']} of {len(phases)}")
    if state["target"] > rows + max(steps, *(phase.until or 0 for phase in phases)):
        raise ValueError(f"it is to be read at row {state['target']}, beyond the end of the run")
    if not isinstance(state["finished"], bool) or not isinstance(state["best"], (float, int, type(None))):
        raise ValueError("it does not say whether the run ended, or what was best")
    for name, value in state["sums"].items():
        if not isinstance(value, Tensor) or value.dim() or not value.is_floating_point():
            raise ValueError(f"its sum of {name!r} is not a number")


def check_heads(ring: Ring, segments: Sequence[dict[str, Any]], stream: Stream) -> None:
    """The write heads: equal, and every row that they promise lies in a segment; others would be left-over memory."""
    head = whole(ring.written[0], "write head")
    if ring.written != [head] * len(stream.columns) or head * ring.copies > stream.rows:
        raise ValueError(f"its replay has write heads {ring.written!r:.60} after {stream.rows} rows")
    row = max(0, head - ring.capacity)
    for ref in segments:
        if ref["first"] > row:
            break
        row = max(row, ref["first"] + ref["rows"])
    if row != head:
        raise ValueError(f"its segments hold the replay up to row {row} of {head}")


def check_rows(ring: Ring, stream: Stream) -> None:
    """The rows: the fields that the env gives, and actions that it takes."""
    if not ring.fields:
        return
    shape, like, space = (ring.capacity, ring.copies), stream.obs[0], stream.env.single_action_space
    tensor(ring.fields["obs"], (*shape, *like.shape[2 if ring.stack > 1 else 1 :]), like.dtype, "replayed observation")
    for name in FLAGS:
        tensor(ring.fields[name], shape, torch.bool, f"replayed {name}")
    tensor(ring.fields["reward"], shape, torch.float32, "replayed reward")
    if not isinstance(space, Discrete):
        return
    tensor(ring.fields["action"], shape, torch.int64, "replayed action")
    for _, rows in ring.pieces(0, PIECE_BYTES):
        low, high = (int(x) for x in rows["action"].aminmax())
        if low < space.start or high >= space.start + space.n:
            raise ValueError(f"its replay has actions from {low} to {high} and the env takes {space}")
