"""The conformance kit names each fault that a reward model can have, and finds none where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rlgan import RewardSpec
from rlgan.errors import ConformanceError, UsageError
from rlgan.nn.optimise import Adam, optimise
from rlgan.registry import Registry
from rlgan.store import demos
from rlgan.testing import RewardConformance, check_reward
from rlgan.testing.probe import PAIRS
from rlgan_rewards.gail import GAILConfig


@dataclass(frozen=True)
class SurpriseConfig:
    """Settings."""

    every: int = 4
    """Rows between updates."""
    batch_size: int = 16
    """Rows per update."""


class Surprise:
    """Rewards what a linear model does not foresee. Correct; the faults are in its subclasses."""

    when: Any = "collect"

    def __init__(self, spaces: Any, config: SurpriseConfig, device: torch.device) -> None:
        if not isinstance(spaces.observation, Box) or len(spaces.observation.shape) != 1:
            raise UsageError(f"surprise reads vectors, this env gives {spaces.observation}")
        self.every, self.batch_size = config.every, config.batch_size
        size = spaces.observation.shape[0]
        self.model, self.updated = nn.Linear(size, size).to(device), torch.zeros((), dtype=torch.int64, device=device)
        self.optimiser = Adam(self.model.parameters(), 1e-2)

    def errors(self, rows):
        return (self.model(rows["obs"]) - rows["next_obs"]).square().mean(-1)

    def reward(self, rows, learner):
        return rows["reward"] + self.errors(rows)

    def update(self, rows):
        loss = (self.errors(rows) * rows["weight"]).mean()
        self.updated.add_(1)
        return {"loss": loss.detach(), "norm": optimise(self.optimiser, loss, 10.0)}

    def state_dict(self):
        return {"model": self.model.state_dict(), "updated": self.updated, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, tree):
        self.model.load_state_dict(tree["model"])
        self.updated.copy_(tree["updated"])
        self.optimiser.load_state_dict(tree["optimiser"])


class OneForAll(Surprise):
    def reward(self, rows, learner):
        return super().reward(rows, learner).mean()


class Column(Surprise):
    def reward(self, rows, learner):
        return super().reward(rows, learner).unsqueeze(-1)


class Yes(Surprise):
    def reward(self, rows, learner):
        return super().reward(rows, learner) > 0


class NotFinite(Surprise):
    def reward(self, rows, learner):
        return super().reward(rows, learner) / rows["valid"]


class Leaks(Surprise):
    def reward(self, rows, learner):
        with torch.enable_grad():
            return super().reward(rows, learner)


class NoSuchTime(Surprise):
    when = "always"


class HalfRows(Surprise):
    def __init__(self, spaces, config: SurpriseConfig, device):
        super().__init__(spaces, config, device)
        self.every = config.every / 2


class NoRows(Surprise):
    def __init__(self, spaces, config: SurpriseConfig, device):
        super().__init__(spaces, config, device)
        self.batch_size = 0


class Fades(Surprise):
    """Keeps state: each visit is worth less than the one before."""

    seen = 0

    def reward(self, rows, learner):
        self.seen += 1
        return super().reward(rows, learner) / self.seen


class CountsRows(Surprise):
    """Keeps state that no reward shows."""

    def reward(self, rows, learner):
        self.updated.add_(rows["reward"].numel())
        return super().reward(rows, learner)


class ClipsInPlace(Surprise):
    def reward(self, rows, learner):
        rows["reward"].clamp_(-1, 0.5)
        return super().reward(rows, learner)


class UpdatesInPlace(Surprise):
    def update(self, rows):
        rows["next_obs"].sub_(rows["obs"])
        return super().update(rows)


class Normalises(Surprise):
    def reward(self, rows, learner):
        reward = super().reward(rows, learner)
        return reward - reward.mean()


class NumpyDraws(Surprise):
    def reward(self, rows, learner):
        return super().reward(rows, learner) + np.random.rand()


class AsksInReward(Surprise):
    def reward(self, rows, learner):
        reward = super().reward(rows, learner)
        return reward if reward.max() > 0 else reward * 2


class ItemInUpdate(Surprise):
    def update(self, rows):
        return {"loss": torch.tensor(super().update(rows)["loss"].item())}


class Frozen(Surprise):
    def update(self, rows):
        self.updated.add_(1)
        return {"loss": self.errors(rows).mean().detach()}


class PlainMetric(Surprise):
    def update(self, rows):
        return {**super().update(rows), "rows": 16}


class ForgetsModel(Surprise):
    def state_dict(self):
        return {**super().state_dict(), "model": {}}

    def load_state_dict(self, tree):
        super().load_state_dict({**tree, "model": self.model.state_dict()})


class ForgetsCount(Surprise):
    def load_state_dict(self, tree):
        super().load_state_dict({**tree, "updated": self.updated})


FAULTS = {
    OneForAll: r"returned float32 of \(\) on cpu from reward; it must be floats of \(16, 8\)",
    Column: r"returned float32 of \(16, 8, 1\) on cpu from reward; it must be floats of \(16, 8\)",
    Yes: r"returned bool of \(16, 8\) on cpu from reward; it must be floats of \(16, 8\)",
    NotFinite: r"gives a reward that is not finite",
    Leaks: r"returned a reward with its graph, even under no_grad: detach it",
    NoSuchTime: r"has when='always'; it must be 'collect' or 'sample'",
    HalfRows: r"has every=2\.0; it must be a whole number of at least 1",
    NoRows: r"has batch_size=0; it must be a whole number of at least 1",
    Fades: r"gives another value of the reward for the same random numbers: the same rows earn the same, until an upd",
    CountsRows: r"changes its updated in reward: the same rows earn the same, until an update",
    ClipsInPlace: r"changes a row's 'reward' in place in reward: return new tensors instead",
    UpdatesInPlace: r"changes a row's 'next_obs' in place in update: return new tensors instead",
    Normalises: r"mixes rows: a reward changes with another row",
    NumpyDraws: r"draws from NumPy's global generator in reward: use torch's default generator alone",
    AsksInReward: r"reads tensors back in reward, .*: `if tensor` at test_testing_reward.py:\d+",
    ItemInUpdate: r"reads tensors back in update, .*: item\(\) at test_testing_reward.py:\d+",
    Frozen: r"learns nothing: update changes no parameter",
    PlainMetric: r"returned the metric 'rows' as int; it must be a 0-d tensor",
    ForgetsModel: r"forgets model\.weight in state_dict or load_state_dict: after 4 updates it is not the same in a f",
    ForgetsCount: r"forgets updated in state_dict or load_state_dict",
}


@pytest.mark.parametrize("when", ["collect", "sample"])
@pytest.mark.parametrize("reward", FAULTS, ids=lambda reward: reward.__name__)
def test_each_planted_fault_is_named(reward: type[Surprise], when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Surprise, "when", when)
    with pytest.raises(ConformanceError, match=rf"^reward model {reward.__name__} {FAULTS[reward]}") as caught:
        check_reward(reward)
    assert "\n" not in str(caught.value)


class TestSurprise(RewardConformance):
    reward = Surprise


class TestSurpriseWhereRowsAreDrawn(RewardConformance):
    class reward(Surprise):
        when = "sample"

    spaces = (Box(-1.0, 1.0, (7,), np.float32), Discrete(2))


def test_what_a_model_refuses_is_not_tried() -> None:
    spec = RewardSpec("surprise", Surprise, SurpriseConfig, "surprise")
    with pytest.raises(UsageError) as error:
        check_reward(spec, spaces=(Discrete(3), Discrete(2)))
    assert str(error.value) == (
        "reward model surprise refuses all that it is tried with (surprise reads vectors, this env gives Discrete(3)): "
        "give spaces=(OBSERVATION, ACTION)."
    )


def test_rnd_passes() -> None:
    check_reward("rnd")


def test_gail_passes_with_demonstrations(tmp_path: Path) -> None:
    demos.save(tmp_path / "d", torch.randn(50, 4), torch.randint(3, (50,)), {"env": "probe"})
    check_reward("gail", GAILConfig(tmp_path / "d"), spaces=PAIRS[0])
    with pytest.raises(
        UsageError, match=r"^the settings of reward model gail have no defaults to check with \(.*demos"
    ):
        check_reward("gail")
    assert {e.name for e in Registry().names("rewards") if e.distribution == "rlgan"} == {"gail", "rnd"}
