"""PQN: targets and loss by hand, the value of a small chain, its optimiser beside torch's, normalised layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn
from torch.nn import functional as F

from rlgan.core.protocols import Spaces
from rlgan.nn.optimise import RAdam, optimise
from rlgan.nn.torsos import MLP, NatureCNN, PlanesCNN, start_he, value_network
from rlgan_agents.pqn import PQN, PQNConfig, pqn_loss, refuses

CPU = torch.device("cpu")
VECTOR = Box(-np.inf, np.inf, (2,), np.float32)


class Table(nn.Module):
    """Q as a table over one-hot observations."""

    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))

    def forward(self, x):
        return x @ self.w


def agent_of(**settings):
    return PQN(Spaces(VECTOR, Discrete(2), 1000), PQNConfig(hidden=(16,), **settings), CPU)


def test_targets_by_hand():
    agent = agent_of(gamma=0.5, lam=0.5, reward_scale=2.0)
    agent.q = Table([[4.0, 1.0], [2.0, 8.0]])  # greedy values 4 and 8
    eye = torch.eye(2)
    rollout = {
        "obs": eye[torch.tensor([0, 1, 0, 1])].unsqueeze(1),
        "value": torch.tensor([[4.0], [8.0], [4.0]]),
        "reward": torch.tensor([[1.0], [2.0], [3.0]]),
        "terminated": torch.tensor([[False], [False], [False]]),
        "truncated": torch.tensor([[False], [False], [False]]),
    }
    # from the end: 6 + .5 * 8 = 10; 4 + .5 * (.5 * 4 + .5 * 10) = 7.5; 2 + .5 * (.5 * 8 + .5 * 7.5) = 5.875
    assert agent.prepare(rollout)["target"][:, 0].tolist() == [5.875, 7.5, 10.0]
    # an end leaves the reward alone; a time limit the value of the true next observation
    rollout["terminated"][1] = True
    assert agent.prepare(rollout)["target"][:, 0].tolist() == [2 + 0.5 * (0.5 * 8 + 0.5 * 4), 4.0, 10.0]
    rollout["terminated"][1], rollout["truncated"][1] = False, True
    assert agent.prepare(rollout)["target"][:, 0].tolist() == [2 + 0.5 * (0.5 * 8 + 0.5 * 6), 4 + 0.5 * 4, 10.0]
    # where a simulator resets in the same step, the final observation is looked at: value 8 instead of 4
    rollout["final_obs"] = eye[torch.tensor([0, 1, 0])].unsqueeze(1)
    assert float(agent.prepare(rollout)["target"][1]) == 4 + 0.5 * 8
    for clip in (False, True):
        assert agent_of(clip_reward=clip).phases()[0].source.clip_reward == clip


def test_loss_by_hand():
    q = Table([[0.0, 1.0], [2.0, 3.0]])
    batch = {"obs": torch.eye(2), "action": torch.tensor([1, 0]), "target": torch.tensor([4.0, 0.0])}
    loss, taken = pqn_loss(q, batch | {"weight": torch.tensor([1.0, 1.0])})
    assert float(loss) == pytest.approx((4.5 + 2.0) / 2) and taken.tolist() == [1.0, 2.0]
    loss.backward()
    assert q.w.grad.tolist() == [[0.0, -1.5], [1.0, 0.0]]
    assert float(pqn_loss(q, batch | {"weight": torch.tensor([2.0, 0.0])})[0]) == pytest.approx(4.5)


def test_updates_reach_the_closed_form_of_a_chain():
    # action 0 stays with reward 0, action 1 moves to the other state with reward 1: Q = 1 + .9 V, V = 10
    torch.manual_seed(0)
    agent = agent_of(lr=3e-3, gamma=0.9, lam=0.0)
    eye, copies = torch.eye(2), 16
    for _ in range(1500):
        state, obs, reward, value = torch.randint(2, (copies,)), [], [], []
        action = torch.randint(2, (8, copies))
        for t in range(8):
            obs.append(eye[state])
            value.append(agent.q(eye[state]).detach().amax(-1))
            reward.append(action[t].float())
            state = torch.where(action[t] == 1, 1 - state, state)
        never = torch.zeros(8, copies, dtype=torch.bool)
        rollout = {"obs": torch.stack([*obs, eye[state]]), "value": torch.stack(value), "reward": torch.stack(reward)}
        with torch.no_grad():
            target = agent.prepare({**rollout, "terminated": never, "truncated": never})["target"]
        flat = {"obs": rollout["obs"][:-1].flatten(0, 1), "action": action.flatten(), "target": target.flatten()}
        agent.update({**flat, "weight": torch.ones(8 * copies), "step": torch.tensor(0)})
    assert (agent.q(eye).detach() - torch.tensor([[9.0, 10.0]] * 2)).abs().max() < 0.1


def test_epsilon_counts_steps_and_copies_act_independently():
    torch.manual_seed(0)
    config = PQNConfig(epsilon_start=1.0, epsilon_end=0.1, epsilon_steps=100, epsilon_eval=0.25, hidden=(8,))
    agent = PQN(Spaces(VECTOR, Discrete(4, start=3), 1000), config, CPU)
    obs = torch.ones(20_000, 2)
    value, best = agent.q(obs[:1]).max(-1)
    for step, explore, epsilon in ((0, True, 1.0), (50, True, 0.55), (10_000, True, 0.1), (0, False, 0.25)):
        out, _ = agent.act(obs, None, torch.tensor(step), explore)
        assert set(out["action"].unique().tolist()) <= {3, 4, 5, 6}
        assert float((out["action"] == best + 3).float().mean()) == pytest.approx(1 - epsilon * 3 / 4, abs=0.015)
        assert torch.allclose(out["value"], value.expand(20_000), atol=1e-6)


def test_radam_is_torchs():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours, theirs = RAdam(nets[0].parameters(), 1e-2), torch.optim.RAdam(nets[1].parameters(), lr=1e-2)
    for k in range(50):
        x = torch.randn(16, 3) * (100 if k % 2 else 0.1)  # clipped on every other update
        norm = optimise(ours, nets[0](x).square().mean(), 1.0)
        theirs.zero_grad()
        nets[1](x).square().mean().backward()
        expected = nn.utils.clip_grad_norm_(nets[1].parameters(), 1.0)
        theirs.step()
        assert float(norm) == pytest.approx(float(expected), rel=1e-4)
        for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5), k


def test_hidden_layers_are_normalised():
    torch.manual_seed(0)
    net = value_network(VECTOR, 3, (8, 8), "float32", CPU, norm=True)
    x = torch.randn(5, 2)
    one, two, last = net.layers
    h = F.relu(F.layer_norm(one(x), (8,)))
    assert torch.allclose(net(x), last(F.relu(F.layer_norm(two(h), (8,)))), atol=1e-6)
    for shape, kind in (((4, 84, 84), NatureCNN), ((4, 10, 10), PlanesCNN), ((2,), MLP)):
        plain, normed = (value_network(Box(0, 1, shape, np.float32), 3, (8,), "float32", CPU, norm=n) for n in (0, 1))
        assert type(normed) is kind
        weights = [name for name in normed.state_dict() if name not in plain.state_dict()]
        assert weights and all(name.startswith("norms.") for name in weights)


def test_normalised_images_do_not_depend_on_their_contrast():
    torch.manual_seed(0)
    net = NatureCNN(4, 3, torch.float32, norm=True)
    nn.init.zeros_(net.conv1.bias)
    x = torch.randint(1, 128, (2, 4, 84, 84), dtype=torch.uint8)
    assert torch.allclose(net(x), net(2 * x), atol=1e-3)


def test_he_draws_have_variance_two_over_inputs():
    torch.manual_seed(0)
    net = value_network(Box(0, 1, (400,), np.float32), 300, (500,), "float32", CPU)
    start_he(net)
    for layer in net.layers:
        inputs = layer.weight.shape[1]
        assert float(layer.weight.detach().var()) == pytest.approx(2 / inputs, rel=0.02)
        assert bool((layer.bias == 0).all())


def test_learning_rate_falls_to_its_end():
    agent = agent_of(lr=1e-3, lr_end=0.1)
    batch = {"obs": torch.eye(2), "action": torch.tensor([1, 0]), "target": torch.tensor([4.0, 0.0])}
    agent.update(batch | {"weight": torch.ones(2), "step": torch.tensor(500)})
    assert float(agent.optimiser.lr) == pytest.approx(0.55e-3)


def test_refusals_say_why():
    assert refuses(VECTOR, Discrete(2)) is None
    assert "pqn chooses among numbered actions" in refuses(VECTOR, VECTOR)
    assert "pqn reads arrays" in refuses(Discrete(5), Discrete(2))
