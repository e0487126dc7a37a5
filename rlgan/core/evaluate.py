"""Evaluation on fresh copies: raw rewards over whole games, equally many in each copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlgan.core.protocols import Policy


def play(
    env: Any,
    act: Callable[..., Any],
    carry: Callable[[int], Any],
    episodes: int,
    on_row: Callable[[dict[str, Tensor]], None] | None = None,
) -> dict[str, Any]:
    """Play ``episodes`` whole games, rounded up to equally many in each copy of ``env``.

    The first-finished games of many copies are the short ones, so each copy's first k games are counted, whenever they
    end. Returns raw ``returns`` and ``lengths`` in order of copy and game. ``on_row`` sees every row, with the
    observation ``before`` it, its ``action``, and whether it ``counts``, as a step of a counted game.
    """
    n, device = env.num_envs, env.device
    quota = -(-episodes // n)
    obs = torch.cat([env.start(g) for g in range(env.groups)])
    first = torch.ones(n, dtype=torch.bool, device=device)
    memory, step = carry(n), torch.zeros((), dtype=torch.int64, device=device)
    total, length = torch.zeros(n, dtype=torch.float64, device=device), torch.zeros(n, device=device)
    games: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    while any(len(g) < quota for g in games):
        if memory is not None:
            shape = [(first.view(-1, *[1] * (m.dim() - 1)), m) for m in memory]
            memory = tuple(torch.where(f, c, m) for (f, m), c in zip(shape, carry(n), strict=True))
        with torch.no_grad():
            out, memory = act(obs, memory, step, False)
        for g in range(env.groups):
            env.send(g, out["action"][env.columns(g)])
        steps = [env.receive(g) for g in range(env.groups)]
        row = {name: torch.cat([s[name] for s in steps]) for name in ("obs", "reward", "valid", "first", "over")}
        before, obs, first = obs, row["obs"], row["first"]
        total += row["reward"]
        length += row["valid"]
        if on_row is not None:
            open_copies = torch.tensor([len(g) < quota for g in games], device=device)
            on_row({**row, "before": before, "action": out["action"], "counts": row["valid"] & open_copies})
        for i in row["over"].nonzero().flatten().tolist():
            if len(games[i]) < quota:
                games[i].append((float(total[i]), int(length[i])))
        total[row["over"]] = 0.0
        length[row["over"]] = 0.0
    flat = [game for copy in games for game in copy]
    return {"returns": [r for r, _ in flat], "lengths": [n for _, n in flat]}


def summary(returns: list[float], lengths: list[int]) -> dict[str, Any]:
    """Mean, standard deviation, interquartile mean and lengths of evaluation games."""
    values = torch.tensor(returns, dtype=torch.float64)
    ordered, cut = values.sort().values, len(values) // 4
    return {
        "return_mean": float(values.mean()),
        "return_std": float(values.std(correction=0)),
        "return_iqm": float(ordered[cut : len(ordered) - cut].mean()),
        "length_mean": sum(lengths) / len(lengths),
        "episodes": len(returns),
        "returns": returns,
    }


def reference(env: Any, policy: Policy) -> Callable[..., Any]:
    """Make an ``act`` of a reference policy, which sees the true state of a device env."""

    def act(obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[dict[str, Tensor], None]:
        return {"action": policy(env.state, env.rng)}, None

    return act
