"""What lessons of the course measure on a finished run, beside its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rlgan
from rlgan import trained
from rlgan.core import seeding
from rlgan.core.returns import reward_to_go
from rlgan.store import checkpoint
from rlgan_envs.frozenlake import FrozenLake, FrozenLakeConfig

GAMES = 64
"""Games by which the noise of a gradient is estimated."""


def _saved(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """Step and state of the learner at each checkpoint of a run, oldest first."""
    paths = (folder / "checkpoints").glob("step_*")
    found = [checkpoint.load(path, segments=False) for path in paths]
    return [(one.step, one.tree["learner"]) for one in sorted(found, key=lambda one: one.step)]


def random_values() -> Tensor:
    """Q (S, A) of uniformly random actions on the frozen lake, by solving Bellman's equation."""
    model = FrozenLake(FrozenLakeConfig(), "cpu").model()
    states, actions, outcomes = model.next.shape
    weight = (model.gamma * model.prob).masked_fill(model.terminated, 0.0).reshape(states * actions, outcomes)
    goes = torch.zeros(states * actions, states, dtype=torch.float64)
    goes.scatter_add_(1, model.next.reshape(states * actions, outcomes), weight)
    chosen = goes.repeat_interleave(actions, 1) / actions  # to each pair (s', a')
    reward = (model.prob * model.reward).sum(-1).flatten()
    return torch.linalg.solve(torch.eye(states * actions, dtype=torch.float64) - chosen, reward).view(states, actions)


def table_errors(folder: Path) -> dict[str, Any]:
    """Root of the mean squared error of a table against the values of random actions, over checkpoints.

    The mean is over the pairs of a state that is no end and an action.
    """
    truth = random_values()
    ends = FrozenLake(FrozenLakeConfig(), "cpu").model().next[:, :, 0].eq(torch.arange(len(truth))[:, None]).all(1)
    saved = _saved(folder)
    errors = [(state["q"]["values"] - truth)[~ends].square().mean().sqrt().item() for _, state in saved]
    return {"saved": [step for step, _ in saved], "error": [round(error, 6) for error in errors]}


def walk(folder: Path) -> dict[str, Any]:
    """Cells that the greedy policy visits on the cliff, the start included, and the best value of each cell."""
    policy, env = rlgan.load(folder), rlgan.make("cliffwalking", device="cpu")
    obs, _ = env.reset(seed=0)
    cells, over = [int(obs)], False
    while not over:
        obs, _, terminated, truncated, _ = env.step(torch.from_numpy(policy(obs.numpy())))
        cells.append(int(obs))
        over = bool(terminated | truncated)
    _, state = _saved(folder)[-1]
    return {"path": cells, "values": [round(value, 2) for value in state["q"]["values"].amax(1).tolist()]}


def gradient_noise(folder: Path) -> dict[str, Any]:
    """Variance of the policy's gradient from one game, over checkpoints, with what may be subtracted from returns.

    All are measured on the same games: nothing, the mean return of all of their rows, the learned value. Nothing is
    measured where no value was learned.
    """
    found = trained.load(folder)
    agent, device = found.learner, found.device
    if not agent.config.baseline:
        return {}
    noise: dict[str, list[float]] = {"nothing": [], "mean": [], "value": []}
    saved = _saved(folder)
    for step, state in saved:
        agent.load_state_dict(state)
        with seeding.fork(step, device):
            games = play(agent, GAMES)
        total, played = games["return"], games["played"]
        with torch.no_grad():
            _, value = agent.net.evaluate({"obs": games["obs"].flatten(0, 1)})
        subtracted = {"nothing": 0.0, "mean": total[played].mean(), "value": value.view_as(total)}
        for name, baseline in subtracted.items():
            each = game_gradients(agent.net, games, total - baseline)
            noise[name].append(float(f"{each.var(0).sum().item():.4g}"))
    return {"saved": [step for step, _ in saved], "noise": noise}


def play(agent: Any, n: int) -> dict[str, Tensor]:
    """Rows (T, n) of one whole game in each of n copies of cart-pole, with exploration: ``obs``, ``draw``, ``return``.

    ``played`` is False after a copy's game has ended.
    """
    env = rlgan.make("cartpole", n=n, device="cpu")
    obs, _ = env.reset()
    rows, playing = [], torch.ones(n, dtype=torch.bool)
    while playing.any():
        with torch.no_grad():
            out, _ = agent.act(obs, None, torch.zeros(()), True)
        following, reward, terminated, truncated, _ = env.step(out["action"])
        rows.append((obs, out["draw"], reward, terminated, truncated, playing))
        playing, obs = playing & ~(terminated | truncated), following
    obs, draw, reward, terminated, truncated, played = (torch.stack(field) for field in zip(*rows, strict=True))
    total, _ = reward_to_go(reward, terminated, truncated, agent.config.gamma)
    return {"obs": obs, "draw": draw, "return": total, "played": played}


def game_gradients(net: Any, games: dict[str, Tensor], credit: Tensor) -> Tensor:
    """Gradient (n, P) of each game's sum of ``credit log pi(draw)`` by the policy's parameters; credit is (T, n)."""
    weights, found = [*net.hidden.parameters(), *net.policy.parameters()], []
    for i, rows in enumerate(games["played"].T):
        parameters, _ = net.evaluate({"obs": games["obs"][rows, i]})
        log_prob = net.distribution.log_prob(parameters, games["draw"][rows, i])
        parts = torch.autograd.grad((log_prob * credit[rows, i]).sum(), weights)
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)
