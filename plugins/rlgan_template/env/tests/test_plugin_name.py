"""plugin_name keeps rlgan's contract, computes its days right, and can be learnt."""

from __future__ import annotations

import torch

from rlgan.testing import EnvConformance

from rlgan_plugin_name.env import PluginNameConfig, PluginNameEnv


class TestConformance(EnvConformance):
    """All checks of the conformance kit."""

    env = "plugin_name"


def test_days_by_hand() -> None:
    """Profit is 4 a sale, less 2 a piece bought, 3 an order and 0.1 a piece left over."""
    env = PluginNameEnv(PluginNameConfig(), torch.device("cpu"), torch.float32)
    state, order, demand = {"stock": torch.tensor([3, 18, 5])}, torch.tensor([4, 10, 0]), torch.tensor([5, 1, 9])
    state, profit, terminated = env.day(state, order, demand)
    assert state["stock"].tolist() == [2, 19, 0]
    # 5 sold, 4 bought, 2 left; 1 sold, 2 bought since the shelf is full, 19 left; 5 sold
    assert torch.allclose(profit, torch.tensor([20 - 8 - 3 - 0.2, 4 - 4 - 3 - 1.9, 20.0]))
    assert not terminated.any()


def test_dqn_learns_it(rlgan_run) -> None:
    """Random play earns 172 in 30 days, the best policy 247."""
    result = rlgan_run("agent=dqn", "env=plugin_name", "steps=20k", "agent.lr=1e-3", "eval.episodes=100")
    assert result["return_mean"] > 215
