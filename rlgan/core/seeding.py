"""One stream of random numbers per device, saved in the checkpoint; everything beside training runs in a fork of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive(seed: int, *path: int) -> int:
    """Return the seed of a role: independent for different paths, equal for equal ones; 31 bits."""
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint32)[0] >> 1)


def seed_all(seed: int) -> None:
    """Seed torch's default generators of the CPU and of every CUDA device."""
    torch.manual_seed(seed)


def state_dict(device: torch.device) -> dict[str, Any]:
    """Return the state of the default generators that training draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def load_state_dict(tree: dict[str, Any], device: torch.device) -> None:
    """Put the default generators where state_dict found them."""
    torch.set_rng_state(tree["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tree["cuda"], device)


@contextmanager
def fork(seed: int, device: torch.device) -> Iterator[None]:
    """Run evaluation, video or timing on random numbers of its own, leaving the training stream where it was."""
    saved = state_dict(device)
    seed_all(seed)
    try:
        yield
    finally:
        load_state_dict(saved, device)
