"""Returns and advantages over time-first rows. Shapes: T rows, N copies; ``next_value`` is V of the true next one.

Two different masks: ``terminated`` stops the bootstrap; ``terminated | truncated`` cuts the sum. An invalid row always
follows a cut, so no function needs ``valid``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), (T, N).

    ``A_t = delta_t + gamma lam (1 - cut_t) A_{t+1}`` with
    ``delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)``.
    """
    delta = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    decay = gamma * lam * (~(terminated | truncated)).to(delta.dtype)
    running, backward = torch.zeros_like(delta[0]), []
    for step, share in zip(reversed(delta.unbind()), reversed(decay.unbind()), strict=True):
        running = torch.addcmul(step, share, running)
        backward.append(running)
    return torch.stack(backward[::-1])


def lambda_returns(
    reward: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, lam: float
) -> Tensor:
    """Lambda returns (Sutton & Barto 2018, eq. 12.18 with state values), (T, N).

    ``G_t = r_t + gamma (1 - terminated_t) [(1 - lam) V(s_{t+1}) + lam G_{t+1}]``, where a truncated row and the last
    one bootstrap from V alone. With ``lam=1`` these are Monte-Carlo returns, with ``lam=0`` one-step targets.
    """
    cut = terminated | truncated
    target = torch.empty_like(reward)
    running = next_value[-1]
    for t in range(len(reward) - 1, -1, -1):
        mixed = torch.where(cut[t], next_value[t], torch.lerp(next_value[t], running, lam))
        running = reward[t] + gamma * mixed.masked_fill(terminated[t], 0.0)
        target[t] = running
    return target


def reward_to_go(reward: Tensor, terminated: Tensor, truncated: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Monte-Carlo returns (T, N), ``G_t = r_t + gamma G_{t+1}`` up to the end of the episode, and where they are whole.

    Nothing is bootstrapped: a truncated episode ends like any other. Rows whose episode does not end within the rollout
    have no return; they are False in the second result (T, N).
    """
    cut = terminated | truncated
    total, whole = torch.empty_like(reward), torch.empty_like(cut)
    running, ended = torch.zeros_like(reward[0]), torch.zeros_like(cut[0])
    for t in range(len(reward) - 1, -1, -1):
        running = reward[t] + gamma * running.masked_fill(cut[t], 0.0)
        ended = ended | cut[t]
        total[t], whole[t] = running, ended
    return total, whole


def n_step(reward: Tensor, terminated: Tensor, truncated: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of windows of n rows that start at row 0: ``reward`` and both flags are (n, B).

    Returns the discounted sum up to and with the first cut (B,), the ``discount`` of the value that follows (B,):
    gamma^k for the true length k, 0 where the window terminated, and k (B,) int64.
    """
    n = len(reward)
    total, weight = reward[0], torch.full_like(reward[0], gamma)
    stopped, alive = terminated[0], ~(terminated[0] | truncated[0])
    length = torch.ones_like(alive, dtype=torch.int64)
    for i in range(1, n):
        total = torch.addcmul(total, weight * alive, reward[i])
        length = length + alive
        weight = torch.where(alive, weight * gamma, weight)
        stopped = stopped | (alive & terminated[i])
        alive = alive & ~(terminated[i] | truncated[i])
    return total, weight.masked_fill(stopped, 0.0), length
