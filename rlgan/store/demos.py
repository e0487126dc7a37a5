"""Demonstrations: what an agent saw and did, as one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gymnasium.spaces import Box, Discrete
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlgan.errors import RlganError, UsageError

KIND = "rlgan demonstrations"


def save(path: Path, obs: Tensor, action: Tensor, about: dict[str, Any]) -> None:
    """Write rows ``obs`` (M, ...) and ``action`` (M, ...); ``about`` names the env and says how the rows came about.

    Raises:
        RlganError: the file cannot be written.
    """
    rows = {"obs": obs.cpu().contiguous(), "action": action.cpu().contiguous()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(rows, path, {"kind": KIND, "about": json.dumps(about)})
    except (OSError, SafetensorError) as error:
        raise RlganError(f"the demonstrations {path} could not be written: {error}") from error


def load(path: Path, env: str, observation: Box, action: Discrete) -> tuple[Tensor, Tensor]:
    """Read what was seen (M, ...) and done (M,) in demonstrations of ``env``, whose spaces the others are.

    Raises:
        UsageError: there is no such file, it holds something else, or demonstrations of another env.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("kind") != KIND or {"obs", "action"} - set(file.keys()):
                raise _unfit(path, "hold none")
            about = json.loads(header["about"])
            obs, acted = file.get_tensor("obs"), file.get_tensor("action")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise _unfit(path, f"cannot be read ({f'{error}'.splitlines()[0]})") from error
    if about.get("env") != env:
        raise _unfit(path, f"are of env={about.get('env')} and this run is in env={env}")
    if not len(obs) or len(obs) != len(acted):
        raise _unfit(path, f"are damaged: {len(obs)} observations and {len(acted)} actions")
    lowest, highest = int(acted.min()), int(acted.max())
    if obs.shape[1:] != observation.shape or not action.start <= lowest <= highest < action.start + action.n:
        shown = f"they show {tuple(obs.shape[1:])} and actions {lowest} to {highest}"
        raise _unfit(path, f"do not fit this env: {shown}, and it has {observation.shape} and {action}")
    return obs, acted


def _unfit(path: Path, reason: str) -> UsageError:
    """The error that says why the file does not serve, and where a better one comes from."""
    return UsageError(f"the demonstrations {path} {reason}: record some with `rlgan eval DIR demos=PATH`")
