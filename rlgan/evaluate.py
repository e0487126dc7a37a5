"""Evaluation on fresh copies: raw rewards over whole games, equally many in each copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlgan.core.protocols import Policy
from rlgan.core.stream import Stream
from rlgan.errors import EnvError

ENDLESS = 100_000
"""Steps after which a game without a time limit is given up."""


def play(
    env: Any,
    act: Callable[..., Any],
    carry: Callable[[int], Any],
    episodes: int,
    on_row: Callable[[dict[str, Tensor]], None] | None = None,
) -> dict[str, Any]:
    """Play ``episodes`` whole games, rounded up to equally many in each copy of ``env``.

    The first-finished games of many copies are the short ones, so each copy's first k games are counted, whenever they
    end. Returns raw ``returns`` and ``lengths`` in order of copy and game. ``on_row`` sees every row, with whether a
    game is ``over`` with it, and whether it ``counts``, as a step of a counted game. The copies are of one group.

    Raises:
        EnvError: a game has no end, and its env no time limit.
    """
    n, device = env.num_envs, env.device
    quota = -(-episodes // n)
    begun = torch.zeros((), dtype=torch.int64, device=device)
    stream = Stream(env, lambda obs, memory, step, explore: act(obs, memory, begun, False), carry)
    stream.begin()
    total, length = torch.zeros(n, dtype=torch.float64, device=device), torch.zeros(n, device=device)
    games: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    while any(len(g) < quota for g in games):
        row = stream.receive(0)
        total += row["reward"]
        length += row["valid"]
        if env.max_steps is None and length.max() > ENDLESS:
            raise EnvError(
                f"a game of {env.name} is not over after {ENDLESS:,} steps, and nothing limits it: write "
                "env.max_steps=1000 (in a run that there is: max_steps under env in its config.yaml); an env without "
                "this key needs a max_steps of its own"
            )
        if on_row is not None:
            open_copies = torch.tensor([len(g) < quota for g in games], device=device)
            on_row({**row, "over": stream.over, "counts": row["valid"] & open_copies})
        for i in stream.over.nonzero().flatten().tolist():
            if len(games[i]) < quota:
                games[i].append((float(total[i]), int(length[i])))
        total[stream.over] = 0.0
        length[stream.over] = 0.0
    stream.check()
    flat = [game for copy in games for game in copy]
    return {"returns": [r for r, _ in flat], "lengths": [n for _, n in flat]}


def reference(env: Any, policy: Policy) -> Callable[..., Any]:
    """Make an ``act`` of a reference policy, which sees the true state of a device env."""

    def act(obs: Tensor, carry: None, step: Tensor, explore: bool) -> tuple[dict[str, Tensor], None]:
        return {"action": policy(env.state, env.rng)}, None

    return act
