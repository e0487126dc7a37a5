"""What a value network tells of each action's return: its mean, its distribution over atoms, or its quantiles.

Shapes: B rows, A actions, K numbers for each action. A network gives (B, A * K).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.protocols import Batch, Observation, mapped
from rlgan.errors import UsageError
from rlgan.nn.torsos import unfit_image

HeadName = Literal["q", "c51", "qr"]
LossName = Literal["huber", "mse"]


class Head(Protocol):
    """Reads a network's numbers and says how wrong they are."""

    each: int
    """K."""

    def values(self, out: Tensor) -> Tensor:
        """Mean returns (B, A) by what the network gives (B, A * K)."""

    def loss(self, q: nn.Module, target: nn.Module, batch: Batch, double: bool) -> tuple[Tensor, Tensor]:
        """Loss of each row (B,), unweighted, and Q(s, a) (B,).

        The goal is ``reward + discount * Z_target(next, a*)``, where a* is the best action by the target, or with
        ``double`` by the online network.
        """

    def priority(self, loss: Tensor) -> Tensor:
        """What a replay shall draw rows by, (B,), from their losses."""


class Mean:
    """Q(s, a) itself (Mnih et al. 2015)."""

    each = 1

    def __init__(self, kind: LossName) -> None:
        self.kind = kind

    def values(self, out: Tensor) -> Tensor:
        """What the network gives."""
        return out

    def loss(self, q: nn.Module, target: nn.Module, batch: Batch, double: bool) -> tuple[Tensor, Tensor]:
        """Huber, with slope 1 beyond an error of 1, or half the squared error."""
        with torch.no_grad():
            following = target(batch["next_obs"])
            if double:
                best = q(batch["next_obs"]).argmax(-1, keepdim=True)
                value = following.gather(1, best).squeeze(1)
            else:
                value = following.amax(-1)
            goal = batch["reward"] + batch["discount"] * value
        taken = q(batch["obs"]).gather(1, batch["action"].unsqueeze(1)).squeeze(1)
        if self.kind == "huber":
            return F.smooth_l1_loss(taken, goal, reduction="none"), taken
        return 0.5 * (taken - goal).square(), taken

    def priority(self, loss: Tensor) -> Tensor:
        """The size of the error, which the loss tells."""
        size = (2 * loss).sqrt()
        return torch.where(loss > 0.5, loss + 0.5, size) if self.kind == "huber" else size


class Categorical:
    """A distribution over K atoms between two bounds (Bellemare et al. 2017, C51)."""

    def __init__(self, atoms: int, low: float, high: float, device: torch.device) -> None:
        self.each = atoms
        self.support = torch.linspace(low, high, atoms, device=device)

    def values(self, out: Tensor) -> Tensor:
        """Means of the distributions."""
        return out.unflatten(-1, (-1, self.each)).softmax(-1) @ self.support

    def loss(self, q: nn.Module, target: nn.Module, batch: Batch, double: bool) -> tuple[Tensor, Tensor]:
        """Kullback-Leibler divergence of the projected goal from the network's distribution."""
        with torch.no_grad():
            prob = _following(self, q, target, batch, double).softmax(-1)
            goal = project(prob, batch["reward"], batch["discount"], self.support)
        log_prob = _of_action(q(batch["obs"]), batch["action"], self.each).log_softmax(-1)
        return (torch.xlogy(goal, goal) - goal * log_prob).sum(-1), log_prob.exp() @ self.support

    def priority(self, loss: Tensor) -> Tensor:
        """The divergence (Hessel et al. 2018), which rounding alone takes below 0."""
        return loss.clamp_min(0.0)


class Quantiles:
    """K quantiles at the levels (i + 1/2) / K (Dabney et al. 2018, QR-DQN-1)."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.each = count
        self.levels = (torch.arange(count, device=device) + 0.5) / count

    def values(self, out: Tensor) -> Tensor:
        """Means of the quantiles."""
        return out.unflatten(-1, (-1, self.each)).mean(-1)

    def loss(self, q: nn.Module, target: nn.Module, batch: Batch, double: bool) -> tuple[Tensor, Tensor]:
        """Quantile Huber loss against all quantiles of the goal."""
        with torch.no_grad():
            following = _following(self, q, target, batch, double)
            goal = batch["reward"].unsqueeze(-1) + batch["discount"].unsqueeze(-1) * following
        taken = _of_action(q(batch["obs"]), batch["action"], self.each)
        return quantile_huber(taken, goal, self.levels), taken.mean(-1)

    def priority(self, loss: Tensor) -> Tensor:
        """The loss."""
        return loss


def make_head(name: HeadName, loss: LossName, count: int, low: float, high: float, device: torch.device) -> Head:
    """Choose by name; ``count`` atoms or quantiles, atoms from ``low`` to ``high``.

    Raises:
        UsageError: the bounds are no interval.
    """
    if name == "q":
        return Mean(loss)
    if name == "qr":
        return Quantiles(count, device)
    if low >= high:
        raise UsageError(
            f"agent.head=c51 puts atoms between agent.v_min={low:g} and agent.v_max={high:g}: write bounds of the "
            "return, the lower one first"
        )
    return Categorical(count, low, high, device)


def epsilon_greedy(greedy: Tensor, actions: int, epsilon: Tensor | float) -> Tensor:
    """The greedy actions (n,) from 0, each by itself replaced by a random one with probability ``epsilon``."""
    random = torch.randint(actions, greedy.shape, device=greedy.device)
    return torch.where(torch.rand(greedy.shape, device=greedy.device) < epsilon, random, greedy)


def unfit(who: str, observation: Space, action: Space) -> str | None:
    """Why a value network fits no env with these spaces, or None; ``who`` begins the sentence."""
    if not isinstance(action, Discrete):
        return f"{who} chooses among numbered actions, this env takes {action}"
    if not isinstance(observation, Box):
        return f"{who} reads arrays, this env gives {observation}"
    return unfit_image(observation)


def next_values(rollout: Batch, value: Callable[[Observation], Tensor]) -> Tensor:
    """Values (T, N, ...) of the true next observations of a rollout, whose rows hold a ``value`` (...) each.

    That of row t is the value of row t + 1, which is known but for the last one; where a simulator resets in the same
    step, final observations are looked at besides. ``value`` gives values (n,) of observations (n, ...).
    """
    last = value(mapped(lambda x: x[-1], rollout["obs"]))
    following = torch.cat([rollout["value"][1:], last[None]])
    if "final_obs" not in rollout:
        return following
    final = value(mapped(lambda x: x.flatten(0, 1), rollout["final_obs"])).view_as(following)
    ended = rollout["terminated"] | rollout["truncated"]
    return torch.where(ended.view(*ended.shape, *[1] * (final.dim() - 2)), final, following)


def project(prob: Tensor, reward: Tensor, discount: Tensor, support: Tensor) -> Tensor:
    """The distribution of ``reward + discount * Z`` on the atoms of Z, (B, K); ``prob`` (B, K) is Z's.

    Each atom's probability goes to the two atoms beside the place where it lands, the nearer one more (Bellemare et
    al. 2017, eq. 7). Written as a triangle around each atom, so nothing is lost where it lands on one.
    """
    landed = reward.unsqueeze(-1) + discount.unsqueeze(-1) * support
    landed = landed.clamp(support[0], support[-1]).unsqueeze(1)  # (B, 1, K from)
    apart = (landed - support.unsqueeze(-1)).abs() / (support[1] - support[0])  # (B, K to, K from)
    return ((1 - apart).clamp_min(0.0) @ prob.unsqueeze(-1)).squeeze(-1)


def quantile_huber(taken: Tensor, goal: Tensor, levels: Tensor) -> Tensor:
    """Sum over quantiles (B, K) of the mean over goals (B, M) of the asymmetric Huber loss, (B,).

    ``|level_i - 1[u < 0]| huber(u)`` with ``u = goal_j - taken_i`` (Dabney et al. 2018, eq. 10, kappa 1).
    """
    error = goal.unsqueeze(1) - taken.unsqueeze(2)  # (B, K, M)
    size = error.abs()
    huber = torch.where(size > 1, size - 0.5, 0.5 * error.square())
    slope = (levels.unsqueeze(-1) - (error < 0).to(error.dtype)).abs()
    return (slope * huber).mean(2).sum(1)


def _of_action(out: Tensor, action: Tensor, each: int) -> Tensor:
    """The numbers (B, K) of one action (B,)."""
    index = action.view(-1, 1, 1).expand(-1, 1, each)
    return out.unflatten(-1, (-1, each)).gather(1, index).squeeze(1)


def _following(head: Head, q: nn.Module, target: nn.Module, batch: Batch, double: bool) -> Tensor:
    """The target's numbers (B, K) of the best next action."""
    following = target(batch["next_obs"])
    best = head.values(q(batch["next_obs"]) if double else following).argmax(-1)
    return _of_action(following, best, head.each)
