"""Heads and tops of value networks: projections and losses by hand, streams, and the statistics of noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.nn import functional as F

from rlgan.core.capture import capture
from rlgan.core.protocols import Spaces
from rlgan.errors import UsageError
from rlgan.nn.tops import Dueling, NoisyLinear, Top, without_noise
from rlgan.nn.torsos import MLP, NatureCNN, PlanesCNN, value_network
from rlgan.nn.value_heads import Categorical, Quantiles, make_head, project, quantile_huber
from rlgan.registry import Registry
from rlgan.testing import check_agent
from rlgan_agents.dqn import DQN, DQNConfig

CPU = torch.device("cpu")
VECTOR = Box(-np.inf, np.inf, (2,), np.float32)


class Fixed(nn.Module):
    """Gives the same numbers (A * K) for each row."""

    def __init__(self, numbers):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(numbers).flatten())

    def forward(self, x):
        return self.w.expand(len(x), -1)


def rows(action, reward, discount):
    n = len(action)
    return {
        "obs": torch.zeros(n, 1),
        "next_obs": torch.zeros(n, 1),
        "action": torch.tensor(action),
        "reward": torch.tensor(reward),
        "discount": torch.tensor(discount),
    }


# --- atoms ---


def test_projection_by_hand():
    support = torch.tensor([0.0, 1.0, 2.0, 3.0])
    prob = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).expand(6, -1)
    reward = torch.tensor([0.0, 0.25, 1.0, 1.75, -9.0, 9.0])
    discount = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0, 1.0])
    expected = [
        [0.1, 0.2, 0.3, 0.4],  # each lands on its own atom
        [0.075, 0.175, 0.275, 0.475],  # a quarter of each goes one up; the top atom is cut to itself
        [0.0, 0.1 + 0.1, 0.1 + 0.3 + 0.2, 0.2],  # lands on 1, 1.5, 2, 2.5
        [0.0, 0.25, 0.75, 0.0],  # after an end the reward alone, 1.75
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
    assert torch.allclose(project(prob, reward, discount, support), torch.tensor(expected), atol=1e-6)


def test_projection_keeps_the_mass_and_within_the_bounds_the_mean():
    torch.manual_seed(0)
    support = torch.linspace(-10, 10, 51)
    prob = torch.randn(200, 51).softmax(-1)
    reward, discount = torch.randn(200), torch.rand(200) * 0.8
    got = project(prob, reward, discount, support)
    assert torch.allclose(got.sum(1), torch.ones(200), atol=1e-5)
    # |reward| + 0.8 * 10 may pass 10: those rows are left out
    inside = reward.abs() + discount * 10 < 10
    assert inside.sum() > 150
    assert torch.allclose((got @ support)[inside], (reward + discount * (prob @ support))[inside], atol=1e-4)


def test_categorical_loss_is_torchs_divergence():
    torch.manual_seed(0)
    head = Categorical(5, -1.0, 3.0, CPU)
    q, target = Fixed(torch.randn(3, 5).tolist()), Fixed(torch.randn(3, 5).tolist())
    batch = rows([2, 0], [0.5, -0.25], [0.9, 0.0])
    online, other = q.w.detach().view(3, 5).softmax(-1), target.w.detach().view(3, 5).softmax(-1)
    assert torch.allclose(head.values(q.w)[None], (online @ head.support)[None])
    for double in (False, True):
        loss, value = head.loss(q, target, batch, double)
        best = int((online if double else other).mul(head.support).sum(-1).argmax())
        goal = project(other[best].expand(2, -1), batch["reward"], batch["discount"], head.support)
        expected = F.kl_div(online[batch["action"]].log(), goal, reduction="none").sum(-1)
        assert torch.allclose(loss, expected, atol=1e-6)
        assert torch.allclose(value, online[batch["action"]] @ head.support, atol=1e-6)
        assert torch.equal(head.priority(loss), loss)
    assert bool((loss > 0).all())
    loss.sum().backward()
    assert target.w.grad is None and bool((q.w.grad.view(3, 5)[1] == 0).all())


def test_a_divergence_below_zero_by_rounding_is_no_priority():
    head = Categorical(51, -10.0, 10.0, CPU)
    reward, none = torch.linspace(-9.0, 9.0, 181), torch.zeros(181)
    known = project(torch.full((181, 51), 1 / 51), reward, none, head.support)
    q = torch.nn.Linear(181, 51, bias=False)
    q.weight.data = known.log().clamp_min(-100.0).T
    batch = {
        "obs": torch.eye(181),
        "next_obs": torch.eye(181),
        "action": none.long(),
        "reward": reward,
        "discount": none,
    }
    with torch.no_grad():
        loss, _ = head.loss(q, q, batch, False)
    assert float(loss.min()) < -1e-6 and float(loss.max()) < 1e-5
    assert bool((head.priority(loss) >= 0).all())


def test_bounds_that_are_none_are_refused():
    for low, high in ((10.0, -10.0), (1.0, 1.0)):
        with pytest.raises(UsageError, match=f"agent.v_min={low:g} and agent.v_max={high:g}: write bounds"):
            make_head("c51", "huber", 51, low, high, CPU)
    assert make_head("qr", "huber", 7, 1.0, 1.0, CPU).each == 7


# --- quantiles ---


def test_quantile_huber_by_hand():
    # u = goal - taken: for 0 they are 0.5 and 3, for 2 they are -1.5 and 1; huber 0.125, 2.5 and 1, 0.5
    taken, goal, levels = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.5, 3.0]]), torch.tensor([0.25, 0.75])
    expected = (0.25 * 0.125 + 0.25 * 2.5) / 2 + (0.25 * 1.0 + 0.75 * 0.5) / 2
    assert float(quantile_huber(taken, goal, levels)) == pytest.approx(expected)


def test_quantiles_reach_those_of_the_goal():
    # within an error of 1 the loss is that of expectiles; far beyond it, of quantiles
    torch.manual_seed(0)
    head = Quantiles(5, CPU)
    assert head.levels.tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    goal = 1000 * torch.arange(1001.0)[None]
    taken = nn.Parameter(torch.full((1, 5), 5e5))
    optimiser = torch.optim.SGD([taken], 3e5)
    for k in range(400):
        optimiser.param_groups[0]["lr"] = 3e5 * 0.98**k
        optimiser.zero_grad()
        quantile_huber(taken, goal, head.levels).sum().backward()
        optimiser.step()
    assert taken[0].tolist() == pytest.approx([1e5, 3e5, 5e5, 7e5, 9e5], rel=0.01)


def test_quantile_head_takes_the_best_mean():
    head = Quantiles(2, CPU)
    q, target = Fixed([[0.0, 1.0], [2.0, 4.0]]), Fixed([[10.0, 20.0], [5.0, 6.0]])
    batch = rows([0], [1.0], [0.5])
    assert head.values(q(batch["obs"])).tolist() == [[0.5, 3.0]]
    for double, goal in ((False, [6.0, 11.0]), (True, [3.5, 4.0])):
        loss, value = head.loss(q, target, batch, double)
        expected = quantile_huber(torch.tensor([[0.0, 1.0]]), torch.tensor([goal]), head.levels)
        assert float(loss) == pytest.approx(float(expected)) and float(value) == 0.5


@pytest.mark.parametrize(("head", "extra"), [("c51", {"v_min": 0.0, "v_max": 20.0}), ("qr", {"atoms": 11})])
@pytest.mark.parametrize("dueling", [False, True])
def test_distributions_reach_the_closed_form_of_a_chain(head, extra, dueling):
    # as in test_dqn: action 0 stays with reward 0, action 1 moves on with reward 1, so V = 1 / (1 - 0.9) = 10
    torch.manual_seed(0)
    config = DQNConfig(lr=3e-3, hidden=(32,), head=head, dueling=dueling, double=True, **extra)
    agent = DQN(Spaces(VECTOR, Discrete(2), 1000), config, CPU)
    state, action, eye = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), torch.eye(2)
    batch = {
        "obs": eye[state],
        "next_obs": eye[torch.where(action == 1, 1 - state, state)],
        "action": action,
        "reward": action.float(),
        "discount": torch.full((4,), 0.9),
        "weight": torch.ones(4),
        "step": torch.tensor(0),
    }
    for k in range(3000):
        agent.update(batch)
        if k % 20 == 0:
            agent.sync()
    expected = torch.tensor([[9.0, 10.0]] * 2)
    assert (agent.head.values(agent.q(eye)) - expected).abs().max() < 0.15


# --- streams ---


@pytest.mark.parametrize("each", [1, 4])
def test_streams_add_up_to_the_value_and_advantages_to_nothing(each):
    torch.manual_seed(0)
    layer, x = Dueling(Top(each, dueling=True), 6, 3 * each), torch.randn(5, 12)
    out = layer(x).view(5, 3, each)
    value = F.linear(x[:, :6], layer.value.weight, layer.value.bias)
    advantage = F.linear(x[:, 6:], layer.advantage.weight, layer.advantage.bias).view(5, 3, each)
    assert torch.allclose(out.mean(1), value, atol=1e-6)
    assert torch.allclose(out - out[:, :1], advantage - advantage[:, :1], atol=1e-6)


def test_streams_fit_every_network():
    top = Top(each=2, dueling=True)
    for shape, hidden, kind in (((4, 84, 84), (), NatureCNN), ((4, 10, 10), (), PlanesCNN), ((3,), (16,), MLP)):
        net = value_network(Box(0, 1, shape, np.float32), 6, hidden, "float32", CPU, top)
        assert type(net) is kind and net(torch.rand(5, *shape)).shape == (5, 6)
    # without hidden layers both streams read all inputs
    net = value_network(Box(0, 1, (3,), np.float32), 6, (), "float32", CPU, top)
    x = torch.rand(5, 3)
    expected = F.linear(x, net.layers[0].value.weight, net.layers[0].value.bias)
    assert torch.allclose(net(x).view(5, 3, 2).mean(1), expected, atol=1e-6)


# --- noise ---


def test_noise_has_the_mean_and_the_variance_of_its_formula():
    torch.manual_seed(0)
    layer = NoisyLinear(3, 2, 0.5)
    bound = 1 / math.sqrt(3)
    assert bool((layer.weight.abs() <= bound).all()) and bool((layer.weight_sigma == 0.5 * bound).all())
    assert bool((layer.bias_sigma == 0.5 * bound).all())
    x = torch.tensor([[1.0, -2.0, 0.5]])
    mean = F.linear(x, layer.weight, layer.bias)
    assert torch.equal(without_noise(layer, x), mean)
    draws = layer(x.expand(400_000, -1)) - mean
    # f(e)^2 = |e|, so E f^2 = sqrt(2 / pi) and E f^4 = 1; the noise is s (sum_i x_i f_i + 1) f_out
    scale, second = (0.5 * bound) ** 2, math.sqrt(2 / math.pi)
    variance = scale * (float(x.square().sum()) * second + 1) * second
    assert draws.mean(0).tolist() == pytest.approx([0.0, 0.0], abs=0.005)
    assert draws.var(0).tolist() == pytest.approx([variance] * 2, rel=0.02)
    # both outputs share the noise that comes in, their own signs make them uncorrelated
    assert float((draws[:, 0] * draws[:, 1]).mean()) == pytest.approx(0.0, abs=0.005)


def test_noise_is_that_of_noisy_weights():
    torch.manual_seed(0)
    layer, x = NoisyLinear(4, 3, 0.5), torch.randn(6, 4)
    torch.manual_seed(1)
    got = layer(x)
    torch.manual_seed(1)
    for row, e, shown in zip(x, torch.randn(6, 7), got, strict=True):
        f = e.sign() * e.abs().sqrt()
        weight = layer.weight + layer.weight_sigma * torch.outer(f[4:], f[:4])
        assert torch.allclose(shown, F.linear(row, weight, layer.bias + layer.bias_sigma * f[4:]), atol=1e-6)


def test_noise_is_fresh_for_each_update_and_each_copy_and_gone_in_evaluation():
    torch.manual_seed(0)
    config = DQNConfig(noisy=True, dueling=True, hidden=(16,), epsilon_start=0.0, epsilon_end=0.0)
    agent = DQN(Spaces(VECTOR, Discrete(4), 1000), config, CPU)
    same = torch.ones(64, 2)
    one, two = agent.q(same), agent.q(same)
    assert len(one.unique(dim=0)) == len(two.unique(dim=0)) == 64, "each row has noise of its own"
    assert not torch.equal(one, two)
    step = torch.tensor(0)
    explored = agent.act(same, None, step, True)[0]["action"]
    assert len(explored.unique()) > 1, "copies in the same state do not do the same"
    assert not torch.equal(explored, agent.act(same, None, step, True)[0]["action"])
    evaluated = agent.act(same, None, step, False)[0]["action"]
    assert len(evaluated.unique()) == 1
    assert torch.equal(evaluated, agent.act(same, None, step, False)[0]["action"])
    for layer in agent.q.modules():
        assert not isinstance(layer, NoisyLinear) or layer.noisy


def test_the_scale_of_the_noise_is_learned():
    torch.manual_seed(0)
    config = DQNConfig(noisy=True, hidden=(16,), lr=1e-2)
    agent = DQN(Spaces(VECTOR, Discrete(2), 1000), config, CPU)
    batch = rows([0, 1], [1.0, -1.0], [0.0, 0.0]) | {"weight": torch.ones(2), "step": torch.tensor(0)}
    batch |= {"obs": torch.eye(2), "next_obs": torch.eye(2)}
    before = [layer.weight_sigma.abs().mean() for layer in agent.q.layers]
    for _ in range(500):
        agent.update(batch)
    # nothing is left to explore, and noise costs
    for was, layer in zip(before, agent.q.layers, strict=True):
        assert float(layer.weight_sigma.detach().abs().mean()) < 0.7 * float(was)


# --- all of it ---

FLAGS = {
    "prioritised": {"prioritised": True, "n_step": 3},
    "noisy": {"noisy": True, "dueling": True},
    "c51": {"head": "c51", "double": True},
    "qr": {"head": "qr", "atoms": 7},
    "all": {"prioritised": True, "n_step": 3, "noisy": True, "dueling": True, "head": "c51", "double": True},
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_keep_the_contract_of_agents(name):
    check_agent(
        Registry().get("agents", "dqn"), DQNConfig(capacity=2_000, learning_starts=100, hidden=(16,), **FLAGS[name])
    )


@pytest.mark.parametrize("name", ["qr", "all"])
def test_a_compiled_update_is_the_eager_one(name):
    config = DQNConfig(hidden=(16, 16), **FLAGS[name])
    torch.manual_seed(0)
    agents = [DQN(Spaces(VECTOR, Discrete(3), 1000), config, CPU) for _ in range(2)]
    agents[1].load_state_dict(agents[0].state_dict())
    updates = [agents[0].update, capture(agents[1].update, "compile")]
    for k in range(3):
        batch = {"obs": torch.randn(8, 2), "next_obs": torch.randn(8, 2), "action": torch.randint(3, (8,))}
        batch |= {"reward": torch.randn(8), "discount": torch.full((8,), 0.9), "weight": torch.rand(8)}
        outs = []
        for update in updates:
            torch.manual_seed(k)
            outs.append(update({**batch, "step": torch.tensor(k)}))
        assert outs[0].keys() == outs[1].keys()
        for key, value in outs[0].items():
            assert torch.allclose(value, outs[1][key], rtol=1e-4, atol=1e-5), key
    for one, two in zip(agents[0].q.parameters(), agents[1].q.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)
