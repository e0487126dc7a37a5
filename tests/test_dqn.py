"""DQN: the loss by hand, the value of a small chain, acting, saving."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rlgan.core.protocols import Spaces
from rlgan.errors import UsageError
from rlgan.nn import torsos
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.schedule import linear
from rlgan.nn.torsos import MLP, NatureCNN, PlanesCNN, value_network
from rlgan.nn.value_heads import Mean
from rlgan_agents.dqn import DQN, DQNConfig, refuses

CPU = torch.device("cpu")
VECTOR = Box(-np.inf, np.inf, (2,), np.float32)


class Table(nn.Module):
    """Q as a table over one-hot observations."""

    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))

    def forward(self, x):
        return x @ self.w


def batch():
    return {
        "obs": torch.eye(2),
        "next_obs": torch.eye(2).flip(0),
        "action": torch.tensor([0, 1]),
        "reward": torch.tensor([1.0, -2.0]),
        "discount": torch.tensor([0.5, 0.0]),
        "weight": torch.tensor([1.0, 1.0]),
    }


@pytest.mark.parametrize(
    ("double", "kind", "expected"),
    [
        # Q(s0,0)=0, Q(s1,1)=3. Targets: 1 + .5 * max(8, 6) = 5 and -2; errors 5 and 5
        (False, "mse", (12.5 + 12.5) / 2),
        (False, "huber", (4.5 + 4.5) / 2),
        # double: the online net prefers action 1 in s1 (3 > 2), so 1 + .5 * 6 = 4; errors 4 and 5
        (True, "mse", (8 + 12.5) / 2),
        (True, "huber", (3.5 + 4.5) / 2),
    ],
)
def test_loss_by_hand(double, kind, expected):
    q, target = Table([[0.0, 1.0], [2.0, 3.0]]), Table([[4.0, 5.0], [8.0, 6.0]])
    rows, taken = Mean(kind).loss(q, target, batch(), double)
    loss = rows.mean()
    assert float(loss) == pytest.approx(expected)
    assert taken.tolist() == [0.0, 3.0]
    loss.backward()
    assert target.w.grad is None
    if kind == "huber":
        # slope 1 beyond an error of 1, halved by the mean
        assert q.w.grad.tolist() == [[-0.5, 0.0], [0.0, 0.5]]


def test_a_row_of_weight_zero_teaches_nothing():
    torch.manual_seed(0)
    one, two = (DQN(Spaces(VECTOR, Discrete(2), 1000), DQNConfig(hidden=(8,)), CPU) for _ in range(2))
    two.load_state_dict(one.state_dict())
    common = batch() | {"step": torch.tensor(0), "weight": torch.tensor([2.0, 0.0])}
    one.update(common)
    two.update(common | {"reward": torch.tensor([1.0, 77.0])})
    for x, y in zip(one.q.parameters(), two.q.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_priorities_are_the_sizes_of_the_errors(kind):
    q, target = Table([[0.0, 1.0], [2.0, 3.0]]), Table([[4.0, 5.0], [8.0, 6.0]])
    head = Mean(kind)
    for reward, expected in (([1.0, -2.0], [5.0, 5.0]), ([-4.25, 3.5], [0.25, 0.5]), ([-5.0, 3.0], [1.0, 0.0])):
        rows, _ = head.loss(q, target, batch() | {"reward": torch.tensor(reward)}, False)
        assert head.priority(rows).tolist() == pytest.approx(expected)


def test_update_reaches_the_closed_form_of_a_chain():
    # two states; action 0 stays with reward 0, action 1 moves to the other state with reward 1: Q = 1 + .9 V
    torch.manual_seed(0)
    config = DQNConfig(lr=3e-3, hidden=(32,), loss="mse", double=True)
    agent = DQN(Spaces(VECTOR, Discrete(2), 1000), config, CPU)
    state, action = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    eye = torch.eye(2)
    b = {
        "obs": eye[state],
        "next_obs": eye[torch.where(action == 1, 1 - state, state)],
        "action": action,
        "reward": action.float(),
        "discount": torch.full((4,), 0.9),
        "weight": torch.ones(4),
        "step": torch.tensor(0),
    }
    for k in range(4000):
        agent.update(b)
        if k % 20 == 0:
            agent.sync()
    value = 1 / (1 - 0.9)
    expected = torch.tensor([[0.9 * value, value]] * 2)
    assert (agent.q(eye) - expected).abs().max() < 0.05


def test_epsilon_counts_steps_and_copies_act_independently():
    torch.manual_seed(0)
    config = DQNConfig(epsilon_start=1.0, epsilon_end=0.1, epsilon_steps=100, epsilon_eval=0.25, hidden=(8,))
    agent = DQN(Spaces(VECTOR, Discrete(4, start=3), 1000), config, CPU)
    obs = torch.ones(20_000, 2)
    greedy = int(agent.q(obs[:1]).argmax()) + 3
    for step, explore, epsilon in ((0, True, 1.0), (50, True, 0.55), (10_000, True, 0.1), (0, False, 0.25)):
        out, _ = agent.act(obs, None, torch.tensor(step), explore)
        assert set(out["action"].unique().tolist()) <= {3, 4, 5, 6}
        assert float((out["action"] == greedy).float().mean()) == pytest.approx(1 - epsilon * 3 / 4, abs=0.015)


def test_learning_rate_falls_to_its_end():
    config = DQNConfig(lr=1e-3, lr_end=0.1, hidden=(4,))
    agent = DQN(Spaces(VECTOR, Discrete(2), 1000), config, CPU)
    b = batch() | {"step": torch.tensor(500)}
    agent.update(b)
    assert float(agent.optimiser.lr) == pytest.approx(0.55e-3)
    assert float(linear(torch.tensor(5000), 1.0, 0.0, 1000)) == 0.0


def test_saved_agent_learns_on_bit_for_bit():
    torch.manual_seed(0)
    config = DQNConfig(hidden=(16,))
    one, two = (DQN(Spaces(VECTOR, Discrete(2), 1000), config, CPU) for _ in range(2))
    b = batch() | {"step": torch.tensor(5)}
    for _ in range(5):
        one.update(b)
    two.load_state_dict(one.state_dict())
    for agent in (one, two):
        for _ in range(5):
            agent.update(b)
        agent.sync()
    for x, y in zip(one.q.parameters(), two.q.parameters(), strict=True):
        assert torch.equal(x, y)


def test_nature_cnn_divides_by_255_once():
    torch.manual_seed(0)
    net = NatureCNN(4, 6, torch.float32)
    x = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    f = nn.functional
    h = f.relu(f.conv2d(x.float() / 255, net.conv1.weight, net.conv1.bias, stride=4))
    h = f.relu(net.conv3(f.relu(net.conv2(h)))).flatten(1)
    assert (net(x) - net.out(f.relu(net.hidden(h)))).abs().max() < 1e-5
    assert sum(p.numel() for p in net.parameters()) == 1_687_206


def test_images_are_scaled_by_their_bounds():
    x = torch.randint(256, (3, 4, 84, 84), dtype=torch.uint8)
    spaces = [
        (Box(0, 255, (4, 84, 84), np.uint8), x),
        (Box(0.0, 1.0, (4, 84, 84), np.float32), x / 255),
        (Box(-np.inf, np.inf, (4, 84, 84), np.float32), x / 255),
    ]
    out = []
    for space, images in spaces:
        torch.manual_seed(0)
        out.append(value_network(space, 6, (8,), "float32", torch.device("cpu"))(images))
    torch.testing.assert_close(out[1], out[0])
    assert torch.equal(out[2], out[1])


def test_planes_cnn_sees_every_3_by_3_cells():
    net = PlanesCNN((2, 4, 5), 1)
    for p in net.parameters():
        nn.init.zeros_(p)
    with torch.no_grad():
        net.conv.weight[0] = 1.0  # channel 0: the sum of the cells seen, minus 3
        net.conv.bias[0] = -3.0
        net.hidden.weight[0, :6] = 1.0  # unit 0: the sum of channel 0 over its 2 x 3 places
        net.out.weight[0, 0] = 0.5
        net.out.bias[0] = 0.25
    x = torch.zeros(2, 2, 4, 5, dtype=torch.uint8)
    x[0] = 1  # 18 - 3 at each of 6 places
    x[1, 0, :, 4] = 1  # the last column: 3 - 3 = 0 at its two places
    x[1, 1, 0, 2:] = 1  # sees 1, 2, 3 from the top row, in the last place 3 + 3 - 3 = 3
    assert net(x)[:, 0].tolist() == [0.5 * 90 + 0.25, 0.5 * 3 + 0.25]
    assert sum(p.numel() for p in PlanesCNN((4, 10, 10), 3).parameters()) == 592 + 131_200 + 387


def test_planes_of_bytes_are_brought_to_one():
    torch.manual_seed(0)
    board = Box(0, 1, (4, 10, 10), np.uint8)
    plain, scaled = (value_network(s, 3, (), "auto", CPU) for s in (board, Box(0, 255, (4, 10, 10), np.uint8)))
    scaled.load_state_dict(plain.state_dict())
    x = torch.randint(2, (8, 4, 10, 10), dtype=torch.uint8)
    assert torch.allclose(plain(x), scaled(255 * x), atol=1e-5)


def test_the_network_follows_the_observation():
    def chosen(*shape):
        return type(value_network(Box(0, 1, shape, np.float32), 3, (16,), "float32", CPU))

    assert chosen(4, 84, 84) is NatureCNN
    assert chosen(4, 10, 10) is chosen(1, 3, 24) is PlanesCNN
    assert chosen(7) is chosen(10, 10) is MLP
    for shape in ((3, 64, 64), (4, 2, 10), (3, 25, 10)):
        with pytest.raises(UsageError, match=rf"3 to 24 cells a side .* this env gives \({shape[0]}, {shape[1]}"):
            chosen(*shape)


def test_bfloat16_gradients_point_the_same_way():
    torch.manual_seed(0)
    exact, half = NatureCNN(4, 4, torch.float32), NatureCNN(4, 4, torch.bfloat16)
    half.load_state_dict(exact.state_dict())
    x = torch.randint(256, (16, 4, 84, 84), dtype=torch.uint8)
    grads = []
    for net in (exact, half):
        net(x).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.cosine_similarity(*grads, dim=0) > 0.999


def test_refusals_say_why():
    assert refuses(VECTOR, Discrete(2)) is None
    assert "numbered actions" in refuses(VECTOR, VECTOR)
    assert "reads arrays" in refuses(Discrete(5), Discrete(2))


def test_optimise_is_torchs_clip_and_adam():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours, theirs = Adam(nets[0].parameters(), 1e-2), torch.optim.Adam(nets[1].parameters(), lr=1e-2)
    for k in range(50):
        x = torch.randn(16, 3) * (100 if k % 2 else 0.1)  # clipped on every other update
        norm = optimise(ours, nets[0](x).square().mean(), 1.0)
        theirs.zero_grad()
        nets[1](x).square().mean().backward()
        expected = nn.utils.clip_grad_norm_(nets[1].parameters(), 1.0)
        theirs.step()
        assert float(norm) == pytest.approx(float(expected), rel=1e-4)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_a_gradient_that_lies_otherwise_in_memory_goes_to_its_own_weights():
    weights = [torch.arange(15.0).view(3, 5).requires_grad_() for _ in range(2)]
    ours, theirs = Adam(weights[:1], 0.1), torch.optim.Adam(weights[1:], lr=0.1)
    for _ in range(3):
        (gradient,) = torch.autograd.grad(nn.functional.embedding(torch.tensor([0, 2]), weights[0].T).sum(), weights[0])
        assert gradient.stride() != weights[0].stride()
        ours.step([gradient], torch.ones(()))
        weights[1].grad = gradient.contiguous()
        theirs.step()
    assert torch.allclose(weights[0], weights[1]) and torch.equal(weights[0][:, 1], torch.tensor([1.0, 6.0, 11.0]))


@pytest.mark.parametrize("step", [Adam.step, Adam._formula])  # the kernel, and what is compiled
@pytest.mark.parametrize("eps_hat", [False, True])
def test_where_adams_epsilon_stands(step, eps_hat):
    # under a constant gradient g both moments, corrected, are g and its square: a step is lr g / (g + epsilon)
    weight, expected = torch.zeros(4), 0.0
    adam = Adam([weight], 0.01, eps_hat=eps_hat)
    for k in range(1, 4):
        step(adam, [torch.full((4,), 1e-7)], torch.ones(()))
        expected -= 0.01 / (1 + 0.1 / (1 - 0.999**k) ** 0.5) if eps_hat else 0.01 / 1.1
        assert torch.allclose(weight, torch.full((4,), expected), rtol=1e-4)


@pytest.mark.parametrize(
    ("bf16", "amx", "amd", "expected"),
    [
        (True, False, True, torch.bfloat16),
        (True, True, False, torch.bfloat16),
        (True, False, False, torch.float32),
        (False, False, True, torch.float32),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_faster(monkeypatch, bf16, amx, amd, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torsos, "_made_by_amd", lambda: amd)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16, raising=False)
    assert torsos.compute_dtype("auto", CPU) is expected
    assert torsos.compute_dtype("bfloat16", CPU) is torch.bfloat16
