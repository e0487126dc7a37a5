"""PPO, A2C and REINFORCE: losses by hand, the first ratio, ends, masks, memory, capture, refusals."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text
from torch import nn

from rlgan.contract import check_rows
from rlgan.core.protocols import Phase, Replay, Spaces
from rlgan.core.returns import gae
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import EnvError, UsageError
from rlgan.nn.distributions import Categorical
from rlgan.nn.optimise import RMSProp, optimise
from rlgan.nn.torsos import tanh
from rlgan.testing.probe import Probe
from rlgan_agents import a2c, ppo, reinforce
from rlgan_envs.cartpole import CartPole, CartPoleConfig

CPU = torch.device("cpu")
VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
FRAMES = Box(0, 255, (4, 84, 84), np.uint8)


class Table(nn.Module):
    """Two actions and a value, the same everywhere."""

    distribution = Categorical(2)

    def __init__(self, logits, value):
        super().__init__()
        self.logits, self.v = nn.Parameter(torch.tensor(logits)), nn.Parameter(torch.tensor(value))

    def evaluate(self, batch):
        return self.logits.expand(len(batch["obs"]), 2), self.v.expand(len(batch["obs"]))


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
    net, b = Table([0.0, 0.0], 2.0), rows()
    scaled = (b["advantage"] - 1.0) / b["advantage"].std(correction=0)
    plain = ppo.ppo_loss(net, {**b, "advantage": scaled}, 0.2, 0.5, 0.0, False)[0]
    assert torch.allclose(ppo.ppo_loss(net, b, 0.2, 0.5, 0.0, True)[0], plain, atol=1e-5)
    # over the rows that count, whatever stands in the others: 1 and 2 become -1 and 1, with ratios 1 and 1.25
    weight = torch.tensor([2.0, 2.0, 0.0, 0.0])
    for other in (0.0, 9.0):
        advantage = torch.tensor([1.0, 2.0, other, -other])
        loss = ppo.ppo_loss(net, {**b, "weight": weight, "advantage": advantage}, 0.2, 0.0, 0.0, True)[0]
        assert float(loss.detach()) == pytest.approx(-(-1.0 + 1.2) / 2, abs=1e-5)


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
        agent.net.policy.weight.mul_(gain)
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
    assert (value - (batch["target"] - batch["advantage"])).abs().max() < 1e-4


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
    config = ppo.PPOConfig(gamma=0.5, lam=0.5, hidden=(4,))
    agent = ppo.PPO(Spaces(VECTOR, Discrete(2), 100), config, CPU)
    for p in agent.net.value.parameters():
        nn.init.zeros_(p)
    nn.init.constant_(agent.net.value.bias, 8.0)  # V of the observation after the last row
    no = torch.zeros(3, 1, dtype=torch.bool)
    rollout = {
        "obs": torch.zeros(4, 1, 4),
        "reward": torch.tensor([[1.0], [-1.0], [1.0]]),
        "value": torch.tensor([[1.0], [2.0], [4.0]]),
        "terminated": no,
        "truncated": no,
    }
    prepared = agent.prepare(rollout)
    # deltas 1 + 1 - 1 = 1, -1 + 2 - 2 = -1, 1 + 4 - 4 = 1; A = delta + A' / 4
    assert prepared["advantage"].flatten().tolist() == [1 + (-1 + 0.25) / 4, -1 + 0.25, 1.0]
    assert torch.equal(prepared["target"], prepared["advantage"] + rollout["value"])


@pytest.mark.parametrize("module", [ppo, a2c, reinforce])
def test_rewards_are_clipped_by_the_source(module):
    name = {ppo: "PPO", a2c: "A2C", reinforce: "Reinforce"}[module]
    for clip in (False, True):
        config = getattr(module, f"{name}Config")(clip_reward=clip, hidden=(4,))
        (phase,) = getattr(module, name)(Spaces(VECTOR, Discrete(2), 100), config, CPU).phases()
        assert phase.source.clip_reward == clip


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
    with pytest.raises(UsageError, match=r"minibatch 48 does not divide the 256 rows .*write agent.minibatch=64"):
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


@pytest.mark.parametrize("module", [ppo, a2c, reinforce])
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
    hidden, last = net.hidden.weights[1], net.policy.weight
    assert hidden.shape == (2, 64, 64)
    assert torch.allclose(hidden @ hidden.mT, 2 * torch.eye(64), atol=1e-4)
    assert torch.allclose(last @ last.T, 1e-4 * torch.eye(3), atol=1e-7)
    assert float(net.value.weight.norm()) == pytest.approx(1.0, abs=1e-5)
    frames = ppo.PPO(Spaces(FRAMES, Discrete(3), 100, 4), ppo.PPOConfig(), CPU).net
    conv = frames.encoder.images["0"].conv2.weight.flatten(1)
    assert torch.allclose(conv @ conv.T, 2 * torch.eye(64), atol=1e-4)
    assert len(frames.hidden.weights) == 0 and frames.policy.in_features == frames.value.in_features == 512


def test_twins_go_on_with_their_parameters():
    spaces = Spaces(Box(-1, 1, (3,)), Discrete(2), 100)
    net = a2c.A2C(spaces, a2c.A2CConfig(), torch.device("cpu")).net
    moved = copy.deepcopy(net).to(torch.float64).to(torch.float32)
    moved.load_state_dict(a2c.A2C(spaces, a2c.A2CConfig(), torch.device("cpu")).net.state_dict())
    for twins in (net.hidden, moved.hidden):
        pairs = zip(twins.layers, twins.weights, twins.biases, strict=True)
        assert all(weight is w and bias is b for (weight, bias), w, b in pairs) and len(twins.layers) == 2
    assert not torch.equal(net.hidden.layers[0][0], moved.hidden.layers[0][0])


def test_reinforce_loss_by_hand():
    net = Table([0.0, math.log(3.0)], 2.0)  # probabilities 1/4 and 3/4
    batch = rows() | {"return": torch.tensor([1.0, 5.0, 9.0, 9.0]), "weight": torch.tensor([2.0, 2.0, 0.0, 0.0])}
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    for baseline, credit, value_loss in ((True, (-1.0, 3.0), (1 + 9) / 2), (False, (1.0, 5.0), (1 + 25) / 2)):
        loss, metrics = reinforce.reinforce_loss(net, batch, baseline, 0.5, 0.1, normalise=False)
        policy_loss = -(credit[0] * math.log(0.25) + credit[1] * math.log(0.75)) / 2
        assert float(metrics["policy_loss"]) == pytest.approx(policy_loss, abs=1e-6)
        assert float(metrics["value_loss"]) == pytest.approx(value_loss)
        assert float(metrics["whole"]) == 0.5
        assert float(loss.detach()) == pytest.approx(policy_loss + 0.5 * value_loss - 0.1 * entropy, abs=1e-6)
        slope = torch.autograd.grad(loss, net.v)[0]
        assert (float(slope) != 0) == baseline
    normal = reinforce.reinforce_loss(net, batch, False, 0.0, 0.0, True)[1]["policy_loss"]
    assert float(normal) == pytest.approx(-(-math.log(0.25) + math.log(0.75)) / 2, abs=1e-5)


def test_reinforce_leaves_out_what_does_not_end():
    agent = reinforce.Reinforce(Spaces(VECTOR, Discrete(2), 100), reinforce.ReinforceConfig(gamma=0.5), CPU)
    reward = torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 3.0], [4.0, 4.0], [8.0, 5.0]])
    terminated, truncated = torch.zeros(5, 2, dtype=torch.bool), torch.zeros(5, 2, dtype=torch.bool)
    terminated[1, 0] = truncated[3, 1] = True
    valid = torch.ones(5, 2, dtype=torch.bool)
    valid[2, 0] = valid[4, 1] = False
    rollout = {"reward": reward, "terminated": terminated, "truncated": truncated, "valid": valid}
    prepared = agent.prepare(rollout)
    # first copy: an episode of rewards 1, 2; then one that goes on. second: 1, 2, 3, 4, then one that goes on
    assert prepared["return"][:2, 0].tolist() == [1 + 0.5 * 2, 2.0]
    assert prepared["return"][:4, 1].tolist() == [1 + 0.5 * (2 + 0.5 * (3 + 0.5 * 4)), 2 + 0.5 * 5.0, 5.0, 4.0]
    assert prepared["valid"].T.tolist() == [[True, True, False, False, False], [True, True, True, True, False]]


MASKED = Dict({"obs": VECTOR, "action_mask": MultiBinary(5)})


class Choosy(Probe):
    """Allows one number of each choice, another one in each state."""

    def action_mask(self, state):
        chosen = state["obs"][:, 0] > 0
        first = torch.stack([chosen, ~chosen], -1)
        return torch.cat([first, torch.stack([~chosen, chosen, chosen & False], -1)], -1)


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce"])
def test_masks_are_honoured_by_acting_and_learning(name):
    torch.manual_seed(0)
    module = {"ppo": ppo, "a2c": a2c, "reinforce": reinforce}[name]
    agent_type, config = {
        "ppo": (ppo.PPO, ppo.PPOConfig(horizon=8, minibatch=16)),
        "a2c": (a2c.A2C, a2c.A2CConfig()),
        "reinforce": (reinforce.Reinforce, reinforce.ReinforceConfig(horizon=40)),
    }[name]
    action = MultiDiscrete([2, 3])
    env = VecEnv(Choosy(VECTOR, action, CPU), 8, CPU)
    assert env.single_observation_space == MASKED and module.refuses(MASKED, action) is None
    agent = agent_type(Spaces(MASKED, action, 1000), config, CPU)
    stream = Stream(env, agent.act, agent.carry)
    stream.begin()
    source = make_source(agent.phases()[0], stream)
    for _ in range(4):
        batch = source.next()
        seen, mask = batch["obs"]["obs"], batch["obs"]["action_mask"]
        chosen = (seen[:, 0] > 0).long()
        assert torch.equal(mask[:, 1].long(), 1 - chosen)
        assert torch.equal(batch["draw"], torch.stack([1 - chosen, chosen], -1))
        metrics = agent.update(batch)
        assert float(metrics["entropy"]) == pytest.approx(0.0, abs=1e-6)
    env.check()
    for explore in (True, False):
        obs = env.reset()[0]
        out, _ = agent.act(obs, None, torch.tensor(0), explore)
        assert obs["action_mask"].gather(1, out["action"][:, :1]).all()


def test_a_mask_that_forbids_everything_is_one_sentence():
    class Stuck(Probe):
        def action_mask(self, state):
            return torch.zeros(len(state["obs"]), 3, dtype=torch.bool)

    problem = Stuck(VECTOR, Discrete(3), CPU)
    with pytest.raises(EnvError, match=r"^env shop forbids every action in some state: its action_mask\(state\) must"):
        check_rows(problem, 4, CPU, "shop")
    env = VecEnv(problem, 4, CPU, name="shop")
    env.reset()
    with pytest.raises(EnvError, match="env shop forbids every action"):
        env.check()
    problem.action_space = Box(-1.0, 1.0, (2,), np.float32)
    with pytest.raises(EnvError, match="takes numbered actions"):
        VecEnv(problem, 4, CPU)


def test_a_reward_that_is_no_number_is_one_sentence():
    class Broken(Probe):
        def step(self, state, action, rng):
            state, reward, terminated = super().step(state, action, rng)
            return state, reward / 0 * 0, terminated

    env = VecEnv(Broken(VECTOR, Discrete(3), CPU), 4, CPU, name="shop")
    env.reset()
    env.step(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(
        EnvError, match=r"^env shop gave a reward that is NaN or infinite: every reward must be a finite"
    ):
        env.check()


def test_observations_of_several_parts():
    torch.manual_seed(0)
    parts = {
        "board": Box(0, 1, (2, 6, 6), np.uint8),
        "speed": Box(-1.0, 1.0, (3,), np.float32),
        "gear": Discrete(4, start=1),
    }
    space = Dict({**parts, "doors": MultiDiscrete([2, 3])})
    agent = ppo.PPO(Spaces(space, Discrete(2), 100), ppo.PPOConfig(), CPU)
    obs = {
        "board": torch.randint(2, (5, 2, 6, 6), dtype=torch.uint8),
        "speed": torch.randn(5, 3),
        "gear": torch.tensor([1, 2, 3, 4, 1]),
        "doors": torch.tensor([[0, 0], [1, 2], [0, 1], [1, 1], [0, 2]]),
    }
    encoded = agent.net.encoder(obs)
    assert encoded.shape == (5, 128 + 3 + 4 + 5) == (5, agent.net.encoder.width)
    found = {"speed": obs["speed"], "gear": torch.eye(4)[obs["gear"] - 1]}
    found["doors"] = torch.cat([torch.eye(2)[obs["doors"][:, 0]], torch.eye(3)[obs["doors"][:, 1]]], -1)
    for part in found.values():
        width = part.shape[1]
        assert any(torch.equal(encoded[:, i : i + width], part) for i in range(encoded.shape[1] - width + 1))
    parameters, value, _ = agent.net(obs)
    assert parameters.shape == (5, 2) and value.shape == (5,)


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_sequences_remember_as_acting_did(memory):
    settings = {"horizon": 24, "minibatch": 48, "sequence": 8, "memory": memory, "epochs": 1}
    agent, batch = first_batch(ppo, VECTOR, Discrete(3), gain=100.0, **settings)
    assert batch["draw"].shape == (8, 6) and batch["carry"]["0"].shape == (6, 64)
    assert batch["first"][1:].any() and not batch["valid"].all(), "episodes begin inside of sequences"
    assert float(batch["weight"].mean()) == pytest.approx(1.0, abs=1e-5)
    parameters, value = agent.net.evaluate(batch)
    change = agent.net.distribution.log_prob(parameters, batch["draw"]) - batch["log_prob"]
    assert (change.exp() - 1).abs().max() < 1e-5
    assert torch.allclose(value, batch["target"] - batch["advantage"], atol=1e-5)
    # what was remembered matters
    forgot, _ = agent.net.evaluate({**batch, "carry": {k: v * 0 for k, v in batch["carry"].items()}})
    assert (forgot - parameters).abs().max() > 1e-3
    agent.update(batch)


def test_the_value_after_a_recurrent_rollout_is_that_of_its_carry():
    torch.manual_seed(0)
    config = ppo.PPOConfig(horizon=6, minibatch=12, sequence=3, memory="gru", epochs=1, lam=0.0, gamma=1.0)
    env = VecEnv(Probe(VECTOR, Discrete(2), CPU), 4, CPU)
    agent = ppo.PPO(Spaces(VECTOR, Discrete(2), 1000), config, CPU)
    stream = Stream(env, agent.act, agent.carry)
    stream.begin()
    seen = []

    def prepare(rollout):
        seen.append({**rollout, **agent.prepare(rollout)})
        return seen[-1]

    phase = dataclasses.replace(agent.phases()[0], prepare=prepare)
    make_source(phase, stream).next()
    _, value, _ = agent.net(stream.obs[0], stream.carries[0])
    rollout = seen[0]
    goes_on = ~(rollout["terminated"] | rollout["truncated"])[-1] & rollout["valid"][-1]
    assert goes_on.any()
    assert torch.allclose(rollout["target"][-1][goes_on], (rollout["reward"][-1] + value)[goes_on], atol=1e-5)


def test_sequences_divide_the_rollout():
    with pytest.raises(UsageError, match=r"sequences of 5 rows .* horizon 24 and minibatch 48: write agent.sequence=6"):
        first_batch(ppo, VECTOR, Discrete(3), horizon=24, minibatch=48, sequence=5, memory="gru")


def test_a_replay_refuses_what_remembers():
    agent = ppo.PPO(Spaces(VECTOR, Discrete(2), 100), ppo.PPOConfig(memory="gru"), CPU)
    stream = Stream(VecEnv(Probe(VECTOR, Discrete(2), CPU), 4, CPU), agent.act, agent.carry)
    with pytest.raises(UsageError, match="a replay keeps no recurrent state"):
        make_source(Phase("train", Replay(100, 8), agent.update), stream)


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_a_captured_rollout_is_the_eager_one(name):
    torch.manual_seed(0)
    if name == "a2c":
        make, config = a2c.A2C, a2c.A2CConfig(horizon=3, hidden=(8,))
    else:
        make, config = ppo.PPO, ppo.PPOConfig(horizon=4, minibatch=16, epochs=2, hidden=(8,))
    spaces = Spaces(VECTOR, Discrete(2), 1000)
    start = make(spaces, config, CPU).state_dict()
    found = []
    for mode in ("eager", "compile"):
        agent = make(spaces, config, CPU)
        agent.load_state_dict(start)
        torch.manual_seed(1)
        env = VecEnv(CartPole(CartPoleConfig(max_steps=3), CPU), 8, CPU)
        stream = Stream(env, agent.act, agent.carry)
        stream.begin()
        source = make_source(agent.phases()[0], stream, None, mode)
        metrics = [source.learn() for _ in range(8)]
        assert source.boundary
        found.append((metrics, stream.obs[0], stream.rows, int(stream.step), env.statistics.take(), torch.rand(())))
    (one, *eager), (two, *compiled) = found
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert float(a[key]) == pytest.approx(float(b[key]), abs=1e-4), key
    assert torch.allclose(eager[0], compiled[0], atol=1e-5)
    assert eager[1:4] == compiled[1:4] and torch.equal(eager[4], compiled[4])


def test_the_compiled_tanh_is_the_tanh():
    x = torch.linspace(-20, 20, 10_001, requires_grad=True)
    (slope,) = torch.autograd.grad(tanh(x).sum(), x)
    compiled = torch.compile(tanh, backend="aot_eager")(x)
    (compiled_slope,) = torch.autograd.grad(compiled.sum(), x)
    assert torch.allclose(compiled, torch.tanh(x), atol=3e-7)
    assert not torch.equal(compiled, torch.tanh(x)), "it went another way"
    assert torch.allclose(compiled_slope, slope, atol=5e-7)


def test_rows_learn_from_rewards_of_their_own():
    """Three actors in each of two copies: advantages are those of three envs that give the last numbers as rewards."""
    config = ppo.PPOConfig(rows=True, gamma=0.9, lam=0.8)
    shown, taken = Box(-np.inf, np.inf, (3, 4), np.float32), MultiDiscrete([5, 5, 5], start=[2, 2, 2])
    agent = ppo.PPO(Spaces(shown, taken, 100), config, torch.device("cpu"))
    torch.manual_seed(0)
    obs = torch.randn(7, 2, 3, 4)
    out, _ = agent.act(obs[0], None, torch.zeros(()), True)
    assert {name: tuple(value.shape) for name, value in out.items()} == dict.fromkeys(out, (2, 3))
    assert ((out["action"] >= 2) & (out["action"] < 7)).all()
    ends = {name: torch.rand(6, 2) < 0.2 for name in ("terminated", "truncated")}
    value = agent.net(obs[:-1].flatten(0, 1))[1].detach().view(6, 2, 3)
    rollout = {"obs": obs, "next_obs": obs[1:], "reward": torch.full((6, 2), 1e6), "value": value, **ends}
    with torch.no_grad():
        found = agent.prepare(rollout)
        last = agent.net(obs[-1])[1]
    for k in range(3):
        following = torch.cat([value[1:, :, k], last[None, :, k]])
        alone = gae(obs[1:, :, k, -1], value[:, :, k], following, ends["terminated"], ends["truncated"], 0.9, 0.8)
        assert torch.allclose(found["advantage"][..., k], alone)
    assert torch.equal(found["target"], found["advantage"] + value)
