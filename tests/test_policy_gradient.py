"""PPO and A2C: losses by hand, the first ratio, advantages over ends, optimisers, refusals."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text
from torch import nn

from rlgan.core.optimise import RMSProp, optimise
from rlgan.core.protocols import Spaces
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.nn.distributions import Categorical
from rlgan.testing.probe import Probe
from rlgan_agents import a2c, ppo

CPU = torch.device("cpu")
VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
FRAMES = Box(0, 255, (4, 84, 84), np.uint8)


class Table(nn.Module):
    """Two actions and a value, the same everywhere."""

    distribution = Categorical(2)

    def __init__(self, logits, value):
        super().__init__()
        self.logits, self.v = nn.Parameter(torch.tensor(logits)), nn.Parameter(torch.tensor(value))

    def forward(self, obs):
        return self.logits.expand(len(obs), 2), self.v.expand(len(obs)), None


def rows():
    # the policy takes either action with probability 1/2
    return {
        "obs": torch.zeros(4, 1),
        "draw": torch.tensor([0, 1, 0, 1]),
        "log_prob": torch.tensor([0.5, 0.4, 0.25, 0.5]).log(),
        "advantage": torch.tensor([1.0, 2.0, -3.0, 4.0]),
        "target": torch.tensor([1.0, 2.0, 3.0, 4.0]),
        "weight": torch.tensor([1.0, 1.0, 1.0, 1.0]),
    }


def test_ppo_loss_by_hand():
    net = Table([0.0, 0.0], 2.0)
    # ratios 1, 1.25, 2, 1; clipped to 1.2 in the second row; in the third min(2 * -3, 1.2 * -3) = -6
    gain = (1.0 + 1.2 * 2.0 - 6.0 + 4.0) / 4
    value_loss = (1 + 0 + 1 + 4) / 4
    loss, metrics = ppo.ppo_loss(net, rows(), 0.2, 0.5, 0.01, normalise=False)
    assert float(loss.detach()) == pytest.approx(-gain + 0.5 * value_loss - 0.01 * math.log(2), abs=1e-6)
    assert float(metrics["policy_loss"]) == pytest.approx(-gain, abs=1e-6)
    assert float(metrics["value_loss"]) == pytest.approx(value_loss)
    assert float(metrics["entropy"]) == pytest.approx(math.log(2))
    assert float(metrics["clipped"]) == 0.5
    kl = (0.25 - math.log(1.25) + 1 - math.log(2)) / 4
    assert float(metrics["kl"]) == pytest.approx(kl, abs=1e-6)
    # gradient of r A over logit 0 is r A (1[draw = 0] - 1/2): rows 0, 2, 3; the clipped row has none
    (slope,) = torch.autograd.grad(ppo.ppo_loss(net, rows(), 0.2, 0.0, 0.0, False)[0], net.logits)
    assert slope.tolist() == pytest.approx([-(0.5 - 3 - 2) / 4, (0.5 - 3 - 2) / 4], abs=1e-6)


def test_ppo_normalises_each_minibatch():
    b = rows()
    scaled = (b["advantage"] - 1.0) / b["advantage"].std()
    plain = ppo.ppo_loss(Table([0.0, 0.0], 2.0), {**b, "advantage": scaled}, 0.2, 0.5, 0.0, False)[0]
    assert torch.allclose(ppo.ppo_loss(Table([0.0, 0.0], 2.0), b, 0.2, 0.5, 0.0, True)[0], plain, atol=1e-5)


def test_a2c_loss_by_hand():
    net = Table([0.0, math.log(3.0)], 2.0)  # probabilities 1/4 and 3/4
    weight = {"weight": torch.tensor([2.0, 2.0, 0.0, 0.0])}
    loss, metrics = a2c.a2c_loss(net, rows() | weight, 0.5, 0.1, normalise=False)
    policy_loss = -(1.0 * math.log(0.25) + 2.0 * math.log(0.75)) / 2
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert float(metrics["policy_loss"]) == pytest.approx(policy_loss, abs=1e-6)
    assert float(metrics["value_loss"]) == pytest.approx(0.5)
    assert float(metrics["entropy"]) == pytest.approx(entropy, abs=1e-6)
    assert float(loss.detach()) == pytest.approx(policy_loss + 0.5 * 0.5 - 0.1 * entropy, abs=1e-6)
    # A (1[draw = a] - pi(a)): mean of 1 (1 - 1/4) and 2 (0 - 1/4)
    (slope,) = torch.autograd.grad(a2c.a2c_loss(net, rows() | weight, 0.0, 0.0, False)[0], net.logits)
    assert slope.tolist() == pytest.approx([-(0.75 - 0.5) / 2, (0.75 - 0.5) / 2], abs=1e-6)
    # normalised over the rows that count: (1, 2) become (-1, 1)
    normal = a2c.a2c_loss(net, rows() | weight, 0.0, 0.0, True)[1]["policy_loss"]
    assert float(normal) == pytest.approx(-(-math.log(0.25) + math.log(0.75)) / 2, abs=1e-5)


def first_batch(module, observation, action, copies=8, gain=1.0, **settings):
    torch.manual_seed(0)
    name = module.__name__.rpartition(".")[2].upper()
    env = VecEnv(Probe(observation, action, CPU), copies, CPU)
    config = getattr(module, f"{name}Config")(**settings)
    agent = getattr(module, name)(Spaces(observation, action, 10_000, env.stack), config, CPU)
    with torch.no_grad():
        agent.net.policy.layers[-1].weight.mul_(gain)
    stream = Stream(env, agent.act, agent.carry)
    stream.begin()
    return agent, make_source(agent.phases()[0], stream).next()


@pytest.mark.parametrize(
    ("observation", "action", "precision"),
    [
        (VECTOR, Discrete(3), "auto"),
        (VECTOR, Box(-2.0, 2.0, (2,), np.float32), "auto"),
        (VECTOR, MultiDiscrete([2, 3]), "auto"),
        (FRAMES, Discrete(4), "float32"),
        (FRAMES, Discrete(4), "auto"),
    ],
)
def test_the_first_ratio_is_one(observation, action, precision):
    settings = {"horizon": 32, "minibatch": 64, "precision": precision}
    agent, batch = first_batch(ppo, observation, action, gain=100.0, **settings)
    parameters, value, _ = agent.net(batch["obs"])
    assert parameters.std(0).max() > 0.2, "the policy depends on what it sees"
    change = agent.net.distribution.log_prob(parameters, batch["draw"]) - batch["log_prob"]
    assert (change.exp() - 1).abs().max() < 1e-5
    assert (value - batch["value"]).abs().max() < 1e-4


def test_next_values_look_at_final_observations():
    agent = a2c.A2C(Spaces(VECTOR, Discrete(2), 100), a2c.A2CConfig(hidden=(8,)), CPU)
    obs, final = torch.randn(4, 2, 4), torch.randn(3, 2, 4)
    value = agent.net(obs.flatten(0, 1))[1].view(4, 2).detach()
    rollout = {"obs": obs, "value": value[:3]}
    assert torch.allclose(agent.net.next_values(rollout), value[1:], atol=1e-6)
    ended = torch.tensor([[False, True], [False, False], [True, False]])
    rollout |= {"final_obs": final, "terminated": ended, "truncated": torch.zeros_like(ended)}
    expected = value[1:].clone()
    for t, i in ended.nonzero().tolist():
        expected[t, i] = agent.net(final[t, i : i + 1])[1]
    assert torch.allclose(agent.net.next_values(rollout), expected, atol=1e-6)


def test_advantages_of_a_rollout_by_hand():
    config = ppo.PPOConfig(gamma=0.5, lam=0.5, clip_reward=True, hidden=(4,))
    agent = ppo.PPO(Spaces(VECTOR, Discrete(2), 100), config, CPU)
    for p in agent.net.value.parameters():
        nn.init.zeros_(p)
    nn.init.constant_(agent.net.value.layers[-1].bias, 8.0)  # V of the observation after the last row
    no = torch.zeros(3, 1, dtype=torch.bool)
    rollout = {
        "obs": torch.zeros(4, 1, 4),
        "reward": torch.tensor([[7.0], [-3.0], [0.5]]),
        "value": torch.tensor([[1.0], [2.0], [4.0]]),
        "terminated": no,
        "truncated": no,
    }
    prepared = agent.prepare(rollout)
    # rewards are their signs: deltas 1 + 1 - 1 = 1, -1 + 2 - 2 = -1, 1 + 4 - 4 = 1; A = delta + A' / 4
    assert prepared["advantage"].flatten().tolist() == [1 + (-1 + 0.25) / 4, -1 + 0.25, 1.0]
    assert torch.equal(prepared["target"], prepared["advantage"] + rollout["value"])


def test_schedules_fall_over_the_run():
    config = ppo.PPOConfig(lr=1e-3, lr_end=0.0, clip=0.2, clip_end=0.0, horizon=8, minibatch=16)
    agent = ppo.PPO(Spaces(VECTOR, Discrete(3), 1000), config, CPU)
    _, batch = first_batch(ppo, VECTOR, Discrete(3), horizon=8, minibatch=16)
    metrics = agent.update({**batch, "step": torch.tensor(500)})
    assert float(agent.optimiser.lr) == pytest.approx(0.5e-3)
    assert set(metrics) == {"policy_loss", "value_loss", "entropy", "kl", "clipped", "grad_norm"}
    wide = agent.update({**batch, "log_prob": batch["log_prob"] - 0.15, "step": torch.tensor(0)})["clipped"]
    tight = agent.update({**batch, "log_prob": batch["log_prob"] - 0.15, "step": torch.tensor(500)})["clipped"]
    assert float(wide) < 0.1 and float(tight) > 0.9  # exp(0.15) - 1 = 0.16 lies between 0.2 and 0.1


def test_a_whole_rollout_is_one_batch_in_order():
    _, batch = first_batch(a2c, VECTOR, Discrete(2), horizon=12)
    assert len(batch["draw"]) == 96
    assert torch.equal(batch["weight"] > 0, batch["valid"]) and not batch["valid"].all()
    assert float(batch["weight"].mean()) == pytest.approx(1.0)


def test_a_minibatch_divides_the_rollout():
    with pytest.raises(UsageError, match=r"minibatch 48 does not divide the 256 rows .*write agent.minibatch=16"):
        first_batch(ppo, VECTOR, Discrete(2), horizon=32, minibatch=48)


@pytest.mark.parametrize("kind", [nn.Tanh, nn.ReLU])
def test_rmsprop_is_that_of_tensorflow(kind):
    rmsprop = pytest.importorskip("stable_baselines3.common.sb2_compat.rmsprop_tf_like")
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(3, 8), kind(), nn.Linear(8, 1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours = RMSProp(nets[0].parameters(), 1e-2)
    theirs = rmsprop.RMSpropTFLike(nets[1].parameters(), lr=1e-2, alpha=0.99, eps=1e-5)
    for k in range(50):
        x = torch.randn(16, 3) * (100 if k % 2 else 0.1)
        optimise(ours, nets[0](x).square().mean(), 0.5)
        theirs.zero_grad()
        nets[1](x).square().mean().backward()
        nn.utils.clip_grad_norm_(nets[1].parameters(), 0.5)
        theirs.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("module", [ppo, a2c])
def test_refusals_say_why(module):
    for action in (Discrete(2), MultiDiscrete([2, 2]), VECTOR):
        assert module.refuses(VECTOR, action) is None
        assert module.refuses(Dict({"a": VECTOR, "b": Discrete(3)}), action) is None
    assert "it draws from a Discrete" in module.refuses(VECTOR, MultiBinary(2))
    assert "it reads arrays" in module.refuses(Text(3), Discrete(2))
    masked = Dict({"obs": VECTOR, "action_mask": MultiBinary(2)})
    assert module.refuses(masked, Discrete(2)) is None
    assert "masks need numbered actions" in module.refuses(masked, VECTOR)


def test_layers_start_orthogonal():
    net = ppo.PPO(Spaces(VECTOR, Discrete(3), 100), ppo.PPOConfig(), CPU).net
    hidden, last = net.policy.layers[1].weight, net.policy.layers[-1].weight
    assert torch.allclose(hidden @ hidden.T, 2 * torch.eye(64), atol=1e-4)
    assert torch.allclose(last @ last.T, 1e-4 * torch.eye(3), atol=1e-7)
    assert float(net.value.layers[-1].weight.norm()) == pytest.approx(1.0, abs=1e-5)
    frames = ppo.PPO(Spaces(FRAMES, Discrete(3), 100, 4), ppo.PPOConfig(), CPU).net
    conv = frames.encoder.images["0"].conv2.weight.flatten(1)
    assert torch.allclose(conv @ conv.T, 2 * torch.eye(64), atol=1e-4)
    assert len(frames.policy.layers) == len(frames.value.layers) == 1
