"""plugin_name keeps rlgan's contract, computes its loss right, and learns."""

from __future__ import annotations

import math

import pytest
import torch

from rlgan.testing import GeneratorConformance

from rlgan_plugin_name.generator import divergence, reconstruction


class TestConformance(GeneratorConformance):
    """All checks of the conformance kit."""

    generator = "plugin_name"


def test_losses_by_hand() -> None:
    """Logits of 0 are probabilities of a half. A code's distance is (mean^2 + variance - 1 - log variance) / 2."""
    real = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.0]])
    assert float(reconstruction(torch.zeros(2, 3), real)) == pytest.approx(3 * math.log(2))
    assert float(divergence(torch.ones(2, 4), torch.ones(2, 4))) == pytest.approx(4 * (1 + math.e - 1 - 1) / 2)


def test_it_learns_digits(rlgan_run) -> None:
    """No sample of an untrained network is recognised."""
    result = rlgan_run("generator=plugin_name", "data=digits", "data.source=uci", "steps=1k")
    assert result["recognised"] > 0.3 and result["classes"] >= 6
