"""Schedules on the device."""

from __future__ import annotations

from torch import Tensor


def linear(step: Tensor, start: float, end: float, over: int) -> Tensor:
    """Go from start to end within ``over`` steps and stay there; ``step`` () int64, result () float."""
    return start + (end - start) * (step / max(over, 1)).clamp(0.0, 1.0)
