"""Tests run on one thread and in plain output, and need no GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# read by torch, ale-py and child processes when they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CI", "true")


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A run inside a test leaves the processor flushing denormal numbers, which hypothesis refuses to work with."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    chosen = [item for item in items if item.get_closest_marker("gpu")]
    if not chosen:
        return
    import torch

    if not torch.cuda.is_available():
        for item in chosen:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
