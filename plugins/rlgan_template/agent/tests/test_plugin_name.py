"""plugin_name keeps rlgan's contract, computes its loss right, and learns."""

from __future__ import annotations

import math

import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rlgan.core.protocols import Spaces
from rlgan.testing import AgentConformance

from rlgan_plugin_name.agent import PluginNameAgent, PluginNameConfig


class TestConformance(AgentConformance):
    """All checks of the conformance kit."""

    agent = "plugin_name"


def test_losses_by_hand() -> None:
    """With networks of zeros the policy is uniform over two actions and the value is 0."""
    spaces = Spaces(Box(-1, 1, (3,)), Discrete(2), steps=1000)
    agent = PluginNameAgent(spaces, PluginNameConfig(), torch.device("cpu"))
    for parameter in agent.optimiser.parameters:
        torch.nn.init.zeros_(parameter)
    batch = {
        "obs": torch.ones(2, 3),
        "action": torch.tensor([0, 1]),
        "advantage": torch.tensor([3.0, 1.0]),
        "target": torch.tensor([2.0, 0.0]),
        "weight": torch.tensor([2.0, 0.0]),
        "step": torch.tensor(250),
    }
    out = agent.update(batch)
    # advantages become +-1 / sqrt(2); the second row has no weight
    assert float(out["policy_loss"]) == pytest.approx(math.log(2) / math.sqrt(2))
    assert float(out["value_loss"]) == pytest.approx(4.0)
    assert float(out["entropy"]) == pytest.approx(math.log(2))
    assert float(agent.optimiser.lr) == pytest.approx(0.75 * PluginNameConfig().lr)


def test_it_learns_cartpole(rlgan_run) -> None:
    """Random play lasts 22 steps of 500."""
    assert rlgan_run("agent=plugin_name", "env=cartpole", "steps=30k")["return_mean"] > 80
