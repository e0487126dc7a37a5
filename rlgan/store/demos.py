"""Demonstrations: what an agent saw and did, as one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def load(path: Path, env: str) -> tuple[Tensor, Tensor]:
    """Read obs and action of demonstrations in ``env``.

    Raises:
        UsageError: there is no such file, it holds something else, or demonstrations of another env.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("kind") != KIND or {"obs", "action"} - set(file.keys()):
                raise UsageError(f"{path} holds no demonstrations: record some with `rlgan eval DIR demos=PATH`")
            about = json.loads(header["about"])
            obs, action = file.get_tensor("obs"), file.get_tensor("action")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, UsageError):
            raise
        reason = f"{error}".splitlines()[0]
        raise UsageError(
            f"the demonstrations {path} cannot be read ({reason}): record some with `rlgan eval DIR demos=PATH`"
        ) from error
    if about.get("env") != env:
        raise UsageError(f"the demonstrations {path} are of env={about.get('env')} and this run is in env={env}")
    if not len(obs) or len(obs) != len(action):
        raise UsageError(f"the demonstrations {path} are damaged: {len(obs)} observations and {len(action)} actions")
    return obs, action
