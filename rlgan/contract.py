"""What a plugin gives, compared with what it declares, before a run begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rlgan.core.protocols import DataSet, Env
from rlgan.core.rows import about, blank
from rlgan.core.vec import STUCK, called, choices, mask_width
from rlgan.errors import EnvError, PluginError


def check_rows(env: Env, n: int, device: torch.device, name: str) -> None:
    """Reset and step ``n`` copies once, and compare shapes, dtypes and devices with what the env declares.

    Draws from the default generator: a run calls it inside `seeding.fork`.

    Raises:
        EnvError: the first thing that is wrong.
    """
    for attribute in ("observation_space", "action_space", "max_steps"):
        if not hasattr(env, attribute):
            raise EnvError(f"env {name} has no {attribute}: every env must declare it")
    state = called(name, "in its reset", env.reset, n, None)
    if not isinstance(state, dict) or not state:
        raise EnvError(f"env {name} returned {about(state)} from reset; it must be a dict of tensors ({n}, ...)")
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.shape[:1] != (n,) or value.device.type != device.type:
            said = f"the state's {key!r} as {about(value)} from reset"
            raise EnvError(f"env {name} returned {said}; it must be a tensor ({n}, ...) on {device.type}")
    shown = blank(env.observation_space, n, device)
    _compare(name, "the observation", called(name, "in its observe", env.observe, state), shown)
    actions = batch_space(env.action_space, n)
    actions.seed(0)
    action = torch.from_numpy(np.asarray(actions.sample())).to(device)
    result = called(name, "in its step", env.step, {key: value.clone() for key, value in state.items()}, action, None)
    if not isinstance(result, tuple) or len(result) != 3:
        raise EnvError(f"env {name} returned {about(result)} from step; it must be (state, reward, terminated)")
    following, reward, terminated = result
    _compare(name, "the state", following, state, " from step")
    floating = reward.dtype if isinstance(reward, Tensor) and reward.is_floating_point() else torch.float32
    _compare(name, "the reward", reward, torch.empty(n, dtype=floating, device=device))
    _compare(name, "terminated", terminated, torch.empty(n, dtype=torch.bool, device=device))
    _compare(name, "the observation", called(name, "in its observe", env.observe, following), shown)
    if hasattr(env, "action_mask"):
        mask, width = called(name, "in its action_mask", env.action_mask, state), mask_width(env.action_space)
        _compare(name, "the action mask", mask, torch.empty((n, width), dtype=torch.bool, device=device))
        if not bool(choices(mask, env.action_space).all()):
            raise EnvError(f"env {name} {STUCK}")


def _compare(name: str, what: str, value: Any, like: Any, where: str = "") -> None:
    """EnvError unless a tensor, or a dict of them, has the keys, shapes, dtypes and devices of another."""
    if isinstance(like, dict):
        if not isinstance(value, dict) or value.keys() != like.keys():
            got = sorted(value) if isinstance(value, dict) else about(value)
            raise EnvError(f"env {name} returned {what} as {got}{where}; it must have the keys {sorted(like)}")
        for key, part in like.items():
            _compare(name, f"{what}'s {key!r}{where}", value[key], part)
    elif about(value) != about(like):
        raise EnvError(f"env {name} returned {what} as {about(value)}; it must be {about(like)}")


def check_samples(data: Any, who: str) -> None:
    """Compare what a data set gives with its contract; ``who`` begins the sentence.

    Raises:
        PluginError: the first thing that is wrong.
    """
    if not isinstance(data, DataSet):
        raise PluginError(f"{who} gives {about(data)}; it must be a DataSet")
    real, labels = data.real, data.labels
    if not isinstance(real, Tensor) or real.dim() < 2 or len(real) == 0 or real.device.type != "cpu":
        raise PluginError(f"{who} has real={about(real)}; it must be a tensor (M, ...) on the CPU with M of at least 1")
    if real.dim() == 4 and real.dtype is not torch.uint8:
        raise PluginError(f"{who} has images as {about(real)}; they must be uint8 of (M, C, H, W), from 0 to 255")
    if bool((broken := ~real.flatten(1).isfinite().all(1)).any()):
        raise PluginError(f"{who} has a sample that is not finite: number {int(broken.nonzero()[0])} of {len(real)}")
    if labels is None:
        return
    if not isinstance(labels, Tensor) or (labels.dtype, labels.shape) != (torch.int64, real.shape[:1]):
        raise PluginError(f"{who} has labels as {about(labels)}; they must be int64 of ({len(real)},)")
    if int(labels.min()) < 0:
        raise PluginError(f"{who} has the label {int(labels.min())}; labels are numbered from 0")
