"""Small envs as tables, and dynamic programming on them. Shapes: S states, A actions, K outcomes of one, n copies.

Sutton & Barto (2018), chapter 4; Puterman (1994), section 8.5, for the average reward.
"""

from __future__ import annotations

import torch
from gymnasium.spaces import Discrete
from torch import Generator, Tensor

from rlgan.core.protocols import Bound, Model, Policy, State


class Bellman:
    """Bellman's operators of a model, folded for sweeps: expected rewards (S, A), and what each successor counts for.

    Args:
        model: The env's.
        gamma: Discount; None is the average reward per step, where values are relative to that of state 0.
    """

    def __init__(self, model: Model, gamma: float | None) -> None:
        self.average = gamma is None
        self.next = model.next
        self.reward = (model.prob * model.reward).sum(-1)
        self.weight = (model.prob * (1.0 if gamma is None else gamma)).masked_fill(model.terminated, 0.0)
        self.states = torch.arange(len(self.next), device=self.next.device)

    def q(self, value: Tensor) -> Tensor:
        """Values of all actions (S, A), if the successors have ``value`` (S,)."""
        return self.reward + (self.weight * value[self.next]).sum(-1)

    def under(self, value: Tensor, policy: Tensor) -> Tensor:
        """Values of the actions (S,) of ``policy`` (S,) int64, if the successors have ``value`` (S,)."""
        at = self.states, policy
        return self.reward[at] + (self.weight[at] * value[self.next[at]]).sum(-1)

    def settle(self, value: Tensor, swept: Tensor, damping: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The next values (S,) after a sweep, and how far it was from changing nothing, the ``residual`` ().

        It is the largest change; with the average criterion it is the difference between the largest and the smallest
        one, which enclose the ``gain`` (), the reward per step. There a share ``damping`` of each change is made.
        """
        change = swept - value
        if not self.average:
            return swept, {"residual": change.abs().amax()}
        low, high = change.aminmax()
        value = value + damping * change
        return value - value[0], {"residual": high - low, "gain": (low + high) / 2}


def horizon_values(model: Model, gamma: float, steps: int, best: bool = True) -> Tensor:
    """What the next ``steps`` steps bring from each state, (S,): by the best actions, or by uniformly random ones.

    The best actions may depend on the time that is left, as under a time limit.
    """
    bellman = Bellman(model, gamma)
    value = torch.zeros_like(bellman.reward[:, 0])
    for _ in range(steps):
        q = bellman.q(value)
        value = q.amax(-1) if best else q.mean(-1)
    return value


def best_average(model: Model, tolerance: float = 1e-9, sweeps: int = 100_000) -> tuple[float, Tensor]:
    """The most reward per step for ever, and the best actions (S,), by relative value iteration.

    Raises:
        ValueError: ``sweeps`` sweeps did not settle it to within ``tolerance``.
    """
    bellman = Bellman(model, None)
    value = torch.zeros_like(bellman.reward[:, 0])
    for _ in range(sweeps):
        best = bellman.q(value).max(-1)
        value, metrics = bellman.settle(value, best.values, 1.0)
        if float(metrics["residual"]) <= tolerance:
            return float(metrics["gain"]), best.indices
    raise ValueError(f"{sweeps} sweeps left a residual of {float(metrics['residual']):g}")


class TableEnv:
    """An env that is its table: the state ``s`` (n,) int64 is a number, and the agent sees it.

    Args:
        table: The rules.
        starts: States (M,) int64, among which an episode's first one is drawn uniformly.
        max_steps: Length at which an episode is truncated.
        dtype: Of rewards.
    """

    fps = 4

    def __init__(self, table: Model, starts: Tensor, max_steps: int, dtype: torch.dtype) -> None:
        self.table, self.starts, self.max_steps, self.dtype = table, starts, max_steps, dtype
        states, actions, _ = table.next.shape
        self.observation_space, self.action_space = Discrete(states), Discrete(actions)
        # summed on the CPU: on CUDA torch.cumsum promises no order
        self.until = table.prob.cpu().cumsum(-1)[..., :-1].to(table.prob.device)
        """Where in [0, 1) one outcome ends and the next begins, (S, A, K - 1)."""

    def reset(self, n: int, rng: Generator | None) -> State:
        """Uniform over ``starts``."""
        pick = torch.randint(len(self.starts), (n,), generator=rng, device=self.starts.device)
        return {"s": self.starts[pick]}

    def observe(self, state: State) -> Tensor:
        """The state's number, (n,)."""
        return state["s"]

    def step(self, state: State, action: Tensor, rng: Generator | None) -> tuple[State, Tensor, Tensor]:
        """Draw one of the outcomes."""
        s = state["s"]
        place = torch.rand(s.shape, generator=rng, device=s.device, dtype=torch.float64)
        outcome = s, action, (place[:, None] >= self.until[s, action]).sum(-1)
        reward, terminated = self.table.reward[outcome], self.table.terminated[outcome]
        return {"s": self.table.next[outcome]}, reward.to(self.dtype), terminated

    def model(self) -> Model:
        """The rules."""
        return self.table

    def references(self) -> dict[str, Policy | Bound]:
        """Random actions; the best actions of the model as if the time limit were far; the best possible return."""
        table, actions = self.table, int(self.action_space.n)
        gamma = 1.0 if table.gamma is None else table.gamma
        planned = Bellman(table, gamma).q(horizon_values(table, gamma, self.max_steps)).argmax(-1)

        def random(state: State, rng: Generator | None) -> Tensor:
            return torch.randint(actions, state["s"].shape, generator=rng, device=state["s"].device)

        optimum = float(horizon_values(table, 1.0, self.max_steps)[self.starts].mean())
        return {
            "random": random,
            "planned": lambda state, rng: planned[state["s"]],
            "optimum": Bound(optimum, f"backward induction over {self.max_steps} steps", "computed from the model"),
        }


def grid(height: int, width: int, moves: tuple[tuple[int, int], ...]) -> Tensor:
    """Where each move (rows down, columns right) leads from each cell, numbered row by row, (S, A); walls stop it."""
    cell = torch.arange(height * width)[:, None]
    down, right = torch.tensor(moves).T
    row, column = cell // width + down, cell % width + right
    return row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
