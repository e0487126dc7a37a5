"""The conformance kit names each fault that an agent can have, and finds none where there is none."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rlgan import AgentSpec
from rlgan.core.protocols import Phase, Replay, Rollouts
from rlgan.errors import ConformanceError, UsageError
from rlgan.nn.optimise import Adam, optimise
from rlgan.registry import Registry
from rlgan.testing import AgentConformance, check_agent


@dataclass(frozen=True)
class QConfig:
    """Settings."""

    epsilon: float = 0.3
    """Share of random actions."""


class Q:
    """Q-learning with a target network. Correct; the faults are in its subclasses."""

    def __init__(self, spaces: Any, config: QConfig, device: Any) -> None:
        self.config, self.device, self.n = config, device, int(spaces.action.n)
        size = spaces.observation.shape[0]
        self.q, self.target = nn.Linear(size, self.n), nn.Linear(size, self.n).requires_grad_(False)
        self.optimiser = Adam(self.q.parameters(), 1e-2)

    def carry(self, n):
        return None

    def act(self, obs, carry, step, explore):
        greedy = self.q(obs).argmax(-1)
        random = torch.randint(self.n, greedy.shape)
        epsilon = self.config.epsilon if explore else 0.0
        return {"action": torch.where(torch.rand(greedy.shape) < epsilon, random, greedy)}, None

    def phases(self):
        source = Replay(capacity=1_000, batch_size=16, every=8, start=100)
        return [Phase("train", source, self.update, periodic=((5, self.sync),))]

    def sync(self):
        self.target.load_state_dict(self.q.state_dict())

    def update(self, batch):
        with torch.no_grad():
            goal = batch["reward"] + batch["discount"] * self.target(batch["next_obs"]).amax(-1)
        taken = self.q(batch["obs"]).gather(1, batch["action"].unsqueeze(1)).squeeze(1)
        loss = ((taken - goal).square() * batch["weight"]).mean()
        return {"loss": loss.detach(), "norm": optimise(self.optimiser, loss, 10.0)}

    def state_dict(self):
        modules = {"q": self.q.state_dict(), "target": self.target.state_dict()}
        return {**modules, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, tree):
        self.q.load_state_dict(tree["q"])
        self.target.load_state_dict(tree["target"])
        self.optimiser.load_state_dict(tree["optimiser"])


class FloatAction(Q):
    def act(self, obs, carry, step, explore):
        out, carry = super().act(obs, carry, step, explore)
        return {"action": out["action"].float()}, carry


class ActionShape(Q):
    def act(self, obs, carry, step, explore):
        out, carry = super().act(obs, carry, step, explore)
        return {"action": out["action"][:, None]}, carry


class ActionOutside(Q):
    def act(self, obs, carry, step, explore):
        out, carry = super().act(obs, carry, step, explore)
        return {"action": out["action"] + 1 - int(explore)}, carry


class NoDict(Q):
    def act(self, obs, carry, step, explore):
        return super().act(obs, carry, step, explore)[0]["action"], None


class ScalarExtra(Q):
    def act(self, obs, carry, step, explore):
        out, carry = super().act(obs, carry, step, explore)
        return {**out, "value": torch.zeros(())}, carry


class ObsInPlace(Q):
    def act(self, obs, carry, step, explore):
        return super().act(obs.clamp_(-1, 1), carry, step, explore)


class CarryInPlace(Q):
    def carry(self, n):
        return (torch.zeros(n, 2),)

    def act(self, obs, carry, step, explore):
        return super().act(obs, None, step, explore)[0], (carry[0].add_(1),)


class NumpyDraws(Q):
    def act(self, obs, carry, step, explore):
        out, carry = super().act(obs, carry, step, explore)
        return {**out, "noise": torch.full((len(obs),), np.random.rand())}, carry


class OwnGenerator(Q):
    def __init__(self, *args):
        super().__init__(*args)
        self.rng = random.Random(0)

    def act(self, obs, carry, step, explore):
        out, carry = super().act(obs, carry, step, explore)
        return {**out, "noise": torch.full((len(obs),), self.rng.random())}, carry


class AlwaysExplores(Q):
    def act(self, obs, carry, step, explore):
        return {"action": torch.randint(self.n, (len(obs),))}, None


class BatchNorm(Q):
    def act(self, obs, carry, step, explore):
        return super().act((obs - obs.mean(0)) / obs.std(0), carry, step, explore)


class AsksInAct(Q):
    def act(self, obs, carry, step, explore):
        if explore and step < 10:
            return {"action": torch.randint(self.n, (len(obs),))}, None
        return super().act(obs, carry, step, explore)


class ItemInUpdate(Q):
    def update(self, batch):
        out = super().update(batch)
        return {"loss": torch.tensor(out["loss"].item())}


class NoStep(Q):
    """Counts an update without making one."""

    def update(self, batch):
        self.optimiser.count.add_(1)
        return {"loss": self.q(batch["obs"]).mean().detach()}


class PlainMetrics(Q):
    def update(self, batch):
        return {**super().update(batch), "loss": 0.5}


class WideMetric(Q):
    def update(self, batch):
        return {**super().update(batch), "weight": batch["weight"]}


class Graphed(Q):
    def update(self, batch):
        return {**super().update(batch), "q": self.q(batch["obs"]).mean()}


class Infinite(Q):
    def update(self, batch):
        return super().update({**batch, "reward": batch["reward"] / 0})


class ForgetsTarget(Q):
    def state_dict(self):
        tree = super().state_dict()
        del tree["target"]
        return tree

    def load_state_dict(self, tree):
        super().load_state_dict({**tree, "target": self.target.state_dict()})


class ForgetsMoments(Q):
    def load_state_dict(self, tree):
        moments = [torch.zeros_like(m) for m in self.optimiser.first]
        super().load_state_dict({**tree, "optimiser": {**tree["optimiser"], "first": moments}})


class ForgetsCounter(Q):
    taken = 0

    def update(self, batch):
        self.taken += 1
        return super().update(batch)


class ReplacesParameters(Q):
    """Its optimiser goes on with the parameters of before."""

    def load_state_dict(self, tree):
        super().load_state_dict(tree)
        self.q.weight = nn.Parameter(tree["q"]["weight"])


class Slotted:
    """A counter where no walk over attributes finds it."""

    __slots__ = ("count",)

    def __init__(self):
        self.count = 0


class HidesState(Q):
    def __init__(self, *args):
        super().__init__(*args)
        self.hidden = Slotted()

    def update(self, batch):
        self.hidden.count += 1
        return super().update(batch)

    def act(self, obs, carry, step, explore):
        out, carry = super().act(obs, carry, step, explore)
        return {**out, "noise": torch.full((len(obs),), self.hidden.count)}, carry


class Unsavable(Q):
    def state_dict(self):
        return {**super().state_dict(), "when": object()}


FAULTS = {
    FloatAction: r"with explore=True gives an action that is float32 of \(8,\) on cpu, and Discrete\(3\) asks",
    ActionShape: r"with explore=True gives an action that is int64 of \(8, 1\) on cpu, and Discrete\(3\) asks",
    ActionOutside: r"with explore=False gives an action that lies outside of Discrete\(3\) in copy \d: 3",
    NoDict: r"returned int64 of \(8,\) from act; it must be a dict with 'action'",
    ScalarExtra: r"returned act's output's 'value' as float32 of \(\); it must be \(8, \.\.\.\)",
    ObsInPlace: r"changes the observation in place in act",
    CarryInPlace: r"changes the carry's part 0 in place in act",
    NumpyDraws: r"draws from NumPy's global generator in act with explore=True: use torch's default generator alone",
    OwnGenerator: r"another value of act's output's 'noise' for the same random numbers: it draws from",
    AlwaysExplores: r"ignores explore=False: asked twice, it gives other actions in \d+% of the copies",
    BatchNorm: r"mixes copies: an action changes with the observation of another copy",
    AsksInAct: r"reads tensors back in act with explore=True, .*: `if tensor` at test_testing_agent.py:\d+",
    ItemInUpdate: r"reads tensors back in the update of phase 'train', .*: item\(\) at test_testing_agent.py:\d+",
    NoStep: r"learns nothing: the update of phase 'train' changes no parameter",
    PlainMetrics: r"returned the metric 'loss' as float; it must be a 0-d tensor",
    WideMetric: r"returned the metric 'weight' as float32 of \(16,\); it must be a 0-d tensor",
    Graphed: r"returned the metric 'q' with its graph: detach it",
    Infinite: r"has a metric 'loss' that is not finite after the update of phase 'train'",
    ForgetsTarget: r"forgets target\.weight in state_dict or load_state_dict: after 2 updates",
    ForgetsMoments: r"forgets optimiser\.first\.0 in state_dict",
    ForgetsCounter: r"forgets taken in state_dict",
    ReplacesParameters: r"replaces q\.weight in load_state_dict: copy into the live tensor, which the optimiser holds",
    HidesState: r"goes on differently after its saved state was loaded into a fresh agent: act's output",
    Unsavable: r"has a state_dict that cannot be saved: 'when' is a object; a state holds tensors",
}


@pytest.mark.parametrize("agent", FAULTS, ids=lambda agent: agent.__name__)
def test_each_planted_fault_is_named(agent: type[Q]) -> None:
    with pytest.raises(ConformanceError, match=rf"^agent {agent.__name__} .*{FAULTS[agent]}") as caught:
        check_agent(agent, QConfig())
    assert "\n" not in str(caught.value)


class TestQ(AgentConformance):
    agent = Q
    config = QConfig()


class TorchOptim(Q):
    """Correct, with an optimiser of torch, whose state appears at the first step."""

    def __init__(self, spaces, config, device):
        super().__init__(spaces, config, device)
        self.optimiser: Any = torch.optim.SGD(self.q.parameters(), 1e-2, momentum=0.9)

    def update(self, batch):
        loss = (self.q(batch["obs"]).mean(-1) - batch["reward"]).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.detach()}


class TestTorchOptim(AgentConformance):
    agent = TorchOptim
    config = QConfig()


class Recurrent(Q):
    """Correct: keeps a mean of what it saw in its carry, and learns in two phases from rollouts."""

    def carry(self, n):
        return (torch.zeros(n, 4),)

    def act(self, obs, carry, step, explore):
        mean = 0.9 * carry[0] + 0.1 * obs
        return super().act(obs + mean, None, step, explore)[0], (mean,)

    def phases(self):
        source = Rollouts(horizon=16, minibatch=64)
        return [
            Phase("first", source, self.regress, until=1_000),
            Phase("second", source, self.regress, prepare=lambda rollout: {**rollout, "extra": rollout["reward"]}),
        ]

    def regress(self, batch):
        loss = ((self.q(batch["obs"]).mean(-1) - batch["reward"]).square() * batch["weight"]).mean()
        return {"loss": loss.detach(), "norm": optimise(self.optimiser, loss, 10.0)}


class TestRecurrent(AgentConformance):
    agent = Recurrent
    config = QConfig()


def spec(agent: Callable[..., Any], refuses: Callable[..., str | None], tags: tuple[str, ...] = ()) -> AgentSpec:
    return AgentSpec("probed", agent, QConfig, "an agent", refuses, tags=tags)


def small(observation, action):
    if not isinstance(action, Discrete) or not isinstance(observation, Box) or len(observation.shape) != 1:
        return "vectors and numbered actions only"
    return None


def test_every_pair_of_spaces_that_is_not_refused_is_tried() -> None:
    with pytest.raises(ConformanceError, match=r"^agent probed .* lies outside of Discrete\(3, start=2\) in copy \d: "):
        check_agent(spec(Q, small))
    check_agent(spec(Q, lambda o, a: small(o, a) or ("starts at 0" if a.start else None)))
    with pytest.raises(ConformanceError, match=r"^agent probed refuses all spaces that it is tried with: Box"):
        check_agent(spec(Q, lambda o, a: "no"))


def test_an_agent_may_draw_in_evaluation_if_it_says_so() -> None:
    class Samples(Q):
        def act(self, obs, carry, step, explore):
            return {"action": torch.distributions.Categorical(logits=self.q(obs), validate_args=False).sample()}, None

    def refuses(observation, action):
        return small(observation, action) or ("starts at 0" if action.start else None)

    with pytest.raises(ConformanceError, match="has the tag 'samples-in-evaluation'"):
        check_agent(spec(Samples, refuses))
    check_agent(spec(Samples, refuses, ("samples-in-evaluation",)))


def test_a_config_that_is_not_annotated_is_asked_for() -> None:
    with pytest.raises(UsageError, match="annotate its config, or give config=SETTINGS"):
        check_agent(lambda spaces, config, device: Q(spaces, config, device))


def test_a_phase_without_batches_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlgan.testing.learner.ROWS", 2_000)

    class Waits(Q):
        def phases(self):
            return [Phase("train", Replay(capacity=100, batch_size=16, every=8, start=10**9), self.update)]

    with pytest.raises(ConformanceError, match=r"gets no batch in phase 'train' within 2,000 rows"):
        check_agent(Waits, QConfig())


# some policies of stable-baselines3 keep the last distribution, which decides nothing; tests/test_sb3.py compares bits
KEEPS = {"sb3.a2c", "sb3.ppo", "sb3.sac"}
BUILT_IN = [e.name for e in Registry().names("agents") if e.distribution == "rlgan" and e.name not in KEEPS]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_agent_passes(name: str) -> None:
    check_agent("reference:random" if name == "reference" else name)
