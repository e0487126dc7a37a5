"""Statistics: what a forged checkpoint may not bring in."""

import pytest
import torch

from rlgan.report.statistics import Statistics


def test_a_count_of_games_that_is_no_number_is_refused():
    saved = Statistics(2, "cpu").state_dict()
    saved["sums"]["episodes"] = torch.tensor([float("inf"), 0.0])
    with pytest.raises(ValueError, match="its count of games is not finite"):
        Statistics(2, "cpu").load_state_dict(saved)
