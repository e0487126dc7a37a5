"""DDPG, TD3 and SAC: losses by hand, bounds, noise, stacked critics, known optima."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import distributions as oracle
from torch import nn
from torch.nn import functional as F

from rlgan.core.capture import capture
from rlgan.core.protocols import Spaces
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.nn.continuous import Bounded, Critics, Noise, squashed, unfit, uniform
from rlgan.nn.torsos import MLP
from rlgan.testing.probe import Probe
from rlgan_agents import ddpg, sac, td3

CPU = torch.device("cpu")
VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
UNEVEN = Box(np.float32([-2, 0, 5]), np.float32([1, 10, 5.5]))
AGENTS = {"ddpg": (ddpg.DDPG, ddpg.DDPGConfig), "td3": (td3.TD3, td3.TD3Config), "sac": (sac.SAC, sac.SACConfig)}


def make(name, action, observation=VECTOR, **settings):
    torch.manual_seed(0)
    agent, config = AGENTS[name]
    return agent(Spaces(observation, action, 10_000), config(**settings), CPU)


class Constant(nn.Module):
    """The same numbers for every observation."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers))

    def forward(self, obs):
        return self.numbers.expand(len(obs), -1)


def linear(*rows):
    """Critics of one layer: for each one its weights, one row per input, and its biases."""
    critics = Critics(len(rows), len(rows[0][0]), (), len(rows[0][1]))
    with torch.no_grad():
        critics.weights[0].copy_(torch.tensor([weights for weights, _ in rows]))
        critics.biases[0].copy_(torch.tensor([[biases] for _, biases in rows]))
    return critics


def batch(**fields):
    return {
        "obs": torch.tensor([[1.0], [2.0]]),
        "draw": torch.tensor([[0.5], [-1.0]]),
        "reward": torch.tensor([1.0, -2.0]),
        "discount": torch.tensor([0.9, 0.0]),
        "next_obs": torch.tensor([[0.0], [1.0]]),
        "weight": torch.ones(2),
        **fields,
    }


# Q1 = s + 2 a and Q2 = 3 s - a + 0.5; as targets T1 = 2 s + a and T2 = s - a + 2
CRITICS = ([[1.0], [2.0]], [0.0]), ([[3.0], [-1.0]], [0.5])
TARGETS = ([[2.0], [1.0]], [0.0]), ([[1.0], [-1.0]], [2.0])
HALF = math.atanh(0.5)


def test_actions_meet_bounds_that_differ_by_dimension():
    bounds = Bounded(UNEVEN, CPU)
    own = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [0, 0, 0], [0.5, -0.5, 0.2]])
    expected = [[-2, 0, 5], [1, 10, 5.5], [-0.5, 5, 5.25], [0.25, 2.5, 5.3]]
    assert bounds.to_env(own)[:2].tolist() == expected[:2], "the bounds themselves, exactly"
    assert torch.allclose(bounds.to_env(own), torch.tensor(expected))
    third = 1 / 3
    exact = Bounded(Box(-third, third, (2, 1), np.float64), CPU)
    action = exact.to_env(torch.tensor([[1.0, -1.0]]))
    assert action.dtype == torch.float64 and action.tolist() == [[[third], [-third]]]
    assert Bounded(Box(0.0, 2.0, (), np.float32), CPU).to_env(torch.zeros(3, 1)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", AGENTS)
def test_the_replay_gives_back_the_agents_own_actions(name):
    agent = make(name, UNEVEN, learning_starts=60, hidden=(8,), batch_size=32)
    stream = Stream(VecEnv(Probe(VECTOR, UNEVEN, CPU), 8, CPU), agent.act, agent.carry)
    stream.begin()
    source = make_source(agent.phases()[0], stream)
    while (drawn := source.next()) is None:
        pass
    low, high = torch.from_numpy(UNEVEN.low), torch.from_numpy(UNEVEN.high)
    assert drawn["draw"].shape == drawn["action"].shape == (32, 3)
    assert drawn["draw"].abs().max() <= 1 and drawn["draw"].std(0).min() > 0.3
    assert torch.allclose(2 * (drawn["action"] - low) / (high - low) - 1, drawn["draw"], atol=1e-5)
    assert torch.equal(drawn["action"], agent.bounds.to_env(drawn["draw"]))


@pytest.mark.parametrize("name", AGENTS)
def test_actions_are_uniform_before_learning_starts(name):
    agent = make(name, UNEVEN, learning_starts=100, hidden=(8,))
    obs = torch.zeros(20_000, 4)
    early = agent.act(obs, None, torch.tensor(99), True)[0]["draw"]
    late = agent.act(obs, None, torch.tensor(100), True)[0]["draw"]
    best = agent.act(obs, None, torch.tensor(0), False)[0]["draw"]
    quarters = early.quantile(torch.tensor([0.25, 0.5, 0.75]), 0)
    assert torch.allclose(quarters, torch.tensor([[-0.5], [0.0], [0.5]]).expand(3, 3), atol=0.02)
    assert torch.equal(best, best[:1].expand_as(best))
    if name != "sac":
        assert torch.allclose(late.mean(0), best[0], atol=0.01) and torch.allclose(
            late.std(0), torch.full((3,), 0.1), atol=0.01
        )


def test_noise_remembers():
    torch.manual_seed(0)
    noise = Noise(1, 0.8, CPU)
    carry, steps = noise.carry(50_000), []
    assert carry[0].eq(0).all()
    for _ in range(30):
        step, carry = noise.draw(50_000, carry)
        steps.append(step)
    assert float(steps[0].std()) == pytest.approx(0.6, abs=0.01)
    assert float(steps[-1].std()) == pytest.approx(1.0, abs=0.01)
    assert float((steps[-1] * steps[-2]).mean()) == pytest.approx(0.8, abs=0.01)
    flat = uniform(steps[-1]).flatten()
    assert torch.allclose(flat.quantile(torch.tensor([0.1, 0.5, 0.8])), torch.tensor([-0.8, 0.0, 0.6]), atol=0.02)
    assert Noise(1, 0.0, CPU).carry(3) is None


def test_squashed_density_is_torchs():
    torch.manual_seed(0)
    mean, log_std, noise = (torch.randn(500, 3, dtype=torch.float64).clamp(max=2.0) for _ in range(3))
    action, log_prob = squashed(torch.cat([mean, log_std], -1), noise)
    tanh = oracle.TransformedDistribution(oracle.Normal(mean, log_std.exp()), [oracle.TanhTransform(cache_size=1)])
    assert torch.allclose(action, (mean + log_std.exp() * noise).tanh())
    assert torch.allclose(log_prob, tanh.log_prob(action).sum(-1), atol=1e-6)
    # where the tanh rounds to 1: log(1 - tanh(u)^2) is 2 (log 2 - u) there
    _, far = squashed(torch.tensor([[20.0, 0.0]]), torch.zeros(1, 1))
    assert float(far) == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 20.0), rel=1e-6)


def test_stacked_critics_equal_separate_ones():
    torch.manual_seed(0)
    critics, x = Critics(3, 5, (16, 8), 2), torch.randn(7, 5, requires_grad=True)
    stack = list(zip(critics.weights, critics.biases, strict=True))

    def alone(e):
        h = x
        for weight, bias in stack:
            h = F.relu(F.linear(h, weight[e].T, bias[e, 0])) if weight is not stack[-1][0] else h
        return F.linear(h, stack[-1][0][e].T, stack[-1][1][e, 0])

    separate = torch.stack([alone(e) for e in range(3)])
    assert torch.allclose(critics(x), separate, atol=1e-6)
    assert torch.allclose(critics.fixed(x, 2), separate[:2], atol=1e-6)
    wanted = torch.autograd.grad(separate.square().sum(), [x, *critics.parameters()])
    found = torch.autograd.grad(critics(x).square().sum(), [x, *critics.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))
    fixed = torch.autograd.grad(critics.fixed(x).square().sum(), [x, *critics.parameters()], allow_unused=True)
    assert torch.allclose(fixed[0], wanted[0], atol=1e-5) and fixed[1:] == (None,) * 6
    assert (critics.weights[0][0] - critics.weights[0][1]).abs().min() > 0, "each starts by itself"
    assert critics.weights[1].abs().max() <= 1 / math.sqrt(16)


def test_bfloat16_keeps_inputs_values_and_directions():
    torch.manual_seed(0)
    for exact, half in (
        (MLP(4, (64, 64), 2), MLP(4, (64, 64), 2, dtype=torch.bfloat16)),
        (Critics(2, 4, (64, 64), 1), Critics(2, 4, (64, 64), 1, torch.bfloat16)),
    ):
        half.load_state_dict(exact.state_dict())
        x = torch.randn(256, 4)
        values, grads = [], []
        for net in (exact, half):
            values.append(net(x))
            grads.append(
                torch.cat(
                    [g.flatten() for g in torch.autograd.grad((values[-1] - 1).square().mean(), list(net.parameters()))]
                )
            )
        assert values[1].dtype == torch.float32 and (values[0] - values[1]).abs().max() < 0.01
        assert torch.cosine_similarity(*grads, dim=0) > 0.999


def test_sac_loss_by_hand(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # draws are tanh(mean) = 0.5
    actor, critics, target = Constant(HALF, -1.0), linear(*CRITICS), linear(*TARGETS)
    log_alpha = torch.tensor(math.log(0.5), requires_grad=True)
    loss, metrics = sac.sac_loss(actor, critics, target, log_alpha, batch(), -1.0, numbered=False)
    log_prob = 1 - 0.5 * math.log(2 * math.pi) - math.log(0.75)
    goal = [1 + 0.9 * (0.5 - 0.5 * log_prob), -2.0]  # T1(0, .5) = .5 is below T2 = 1.5; the second row has ended
    taken = [[2.0, 0.0], [3.0, 7.5]]
    critic_loss = sum(0.5 * (q - y) ** 2 / 2 for row in taken for q, y in zip(row, goal, strict=True))
    policy_loss = -((2 + 3) / 2 - 0.5 * log_prob)  # Q1 is the lower one at a = .5: 2 and 3
    assert float(metrics["critic_loss"]) == pytest.approx(critic_loss, rel=1e-6)
    assert float(metrics["policy_loss"]) == pytest.approx(policy_loss, rel=1e-6)
    assert float(metrics["entropy"]) == pytest.approx(-log_prob, rel=1e-5)
    assert float(metrics["q"]) == pytest.approx(12.5 / 4) and float(metrics["alpha"]) == pytest.approx(0.5)
    temperature = math.log(0.5) * (-log_prob + 1)
    assert float(loss.detach()) == pytest.approx(critic_loss + policy_loss + temperature, rel=1e-6)
    by_critics, by_actor, by_alpha = torch.autograd.grad(loss, [critics.weights[0], actor.numbers, log_alpha])
    # the critics' own loss alone: mean of (Q - y) (s, a)
    for e, row in enumerate(taken):
        errors = [q - y for q, y in zip(row, goal, strict=True)]
        assert by_critics[e].flatten().tolist() == pytest.approx(
            [(errors[0] + 2 * errors[1]) / 2, (0.5 * errors[0] - errors[1]) / 2], rel=1e-5
        )
    # of the mean: -(dQ1/da (1 - a^2) - alpha 2 a) = -(2 * .75 - .5); of log std: minus alpha, since the entropy grows
    assert by_actor.tolist() == pytest.approx([-1.0, -0.5], abs=1e-5)
    assert float(by_alpha) == pytest.approx(-log_prob + 1, rel=1e-5)


def test_alpha_rises_when_entropy_is_too_low(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    for target_entropy, rises in ((1.0, True), (-2.0, False)):  # the entropy is about -0.37
        log_alpha = torch.tensor(0.0, requires_grad=True)
        nets = Constant(HALF, -1.0), linear(*CRITICS), linear(*TARGETS)
        loss, _ = sac.sac_loss(*nets, log_alpha, batch(), target_entropy, numbered=False)
        assert (float(torch.autograd.grad(loss, log_alpha)[0]) < 0) == rises


def test_rows_that_do_not_count_leave_the_temperature_alone(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    log_alpha = torch.tensor(0.3, requires_grad=True)
    nets = Constant(HALF, -1.0), linear(*CRITICS), linear(*TARGETS)
    loss, _ = sac.sac_loss(*nets, log_alpha, batch(weight=torch.zeros(2)), 1.0, numbered=False)
    assert float(loss.detach()) == 0 and float(torch.autograd.grad(loss, log_alpha)[0]) == 0


def test_discrete_sac_is_exact_in_closed_form():
    actor = Constant(0.0, math.log(3.0))  # probabilities 1/4 and 3/4
    flat = [[0.0, 0.0]]
    critics, target = linear((flat, [1.0, 4.0]), (flat, [2.0, 3.0])), linear((flat, [8.0, 2.0]), (flat, [4.0, 6.0]))
    log_alpha = torch.tensor(math.log(0.2), requires_grad=True)
    rows = batch(draw=torch.tensor([1, 0]), weight=torch.tensor([1.5, 0.5]))
    loss, metrics = sac.sac_loss(actor, critics, target, log_alpha, rows, 0.5, numbered=True)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    goal = 1 + 0.9 * (0.25 * 4 + 0.75 * 2 + 0.2 * entropy)
    errors = [(4 - goal, 1 + 2), (3 - goal, 2 + 2)]
    critic_loss = sum((1.5 * a**2 + 0.5 * b**2) / 4 for a, b in errors)
    value = 0.25 * 1 + 0.75 * 3 + 0.2 * entropy
    assert float(metrics["critic_loss"]) == pytest.approx(critic_loss, rel=1e-5)
    assert float(metrics["policy_loss"]) == pytest.approx(-value, rel=1e-5)
    assert float(metrics["entropy"]) == pytest.approx(entropy, rel=1e-5)
    by_actor, by_alpha = torch.autograd.grad(loss, [actor.numbers, log_alpha])
    # -p_i (q_i - alpha log p_i - value)
    slopes = [-p * (q - 0.2 * math.log(p) - value) for p, q in ((0.25, 1), (0.75, 3))]
    assert by_actor.tolist() == pytest.approx(slopes, abs=1e-5)
    assert float(by_alpha) == pytest.approx(entropy - 0.5, rel=1e-5)


def test_td3_losses_by_hand():
    critics, rows = linear(*CRITICS), batch(discount=torch.tensor([0.9, 0.5]))
    noise = torch.tensor([[0.9], [-0.3]])  # the target actor's 0.5 becomes 1, clipped, and 0.2
    loss, taken = td3.critic_loss(critics, Constant(HALF), linear(*TARGETS), rows, noise)
    goal = [1 + 0.9 * min(0 + 1, 0 - 1 + 2), -2 + 0.5 * min(2 + 0.2, 1 - 0.2 + 2)]
    assert taken.tolist() == [[2.0, 0.0], [3.0, 7.5]]
    expected = sum(0.5 * (q - y) ** 2 / 2 for row in taken.tolist() for q, y in zip(row, goal, strict=True))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    actor = Constant(HALF)
    weight = torch.tensor([0.5, 1.5])
    loss = td3.actor_loss(actor, critics, rows["obs"], weight)
    assert float(loss.detach()) == pytest.approx(-(0.5 * 2 + 1.5 * 3) / 2)  # Q1(s, .5) is 2 and 3
    slopes = torch.autograd.grad(loss, [actor.numbers, *critics.parameters()], allow_unused=True)
    assert float(slopes[0]) == pytest.approx(-2 * 0.75) and slopes[1:] == (None, None)


def test_ddpg_loss_by_hand():
    actor, critic, target = Constant(HALF), linear(CRITICS[0]), linear(TARGETS[0])
    loss, metrics = ddpg.ddpg_loss(actor, critic, Constant(HALF), target, batch())
    errors = [2 - (1 + 0.9 * 0.5), 0 + 2]
    critic_loss = sum(0.5 * error**2 / 2 for error in errors)
    assert float(metrics["critic_loss"]) == pytest.approx(critic_loss)
    assert float(metrics["policy_loss"]) == pytest.approx(-2.5) and float(metrics["q"]) == pytest.approx(1.0)
    by_critic, by_actor = torch.autograd.grad(loss, [critic.weights[0], actor.numbers])
    assert by_critic.flatten().tolist() == pytest.approx(
        [(errors[0] + 2 * errors[1]) / 2, (0.5 * errors[0] - errors[1]) / 2]
    )
    assert float(by_actor) == pytest.approx(-2 * 0.75)


def test_td3_targets_move_with_the_actor():
    agent = make("td3", UNEVEN, hidden=(8,), tau=0.25)
    ((delay, improve),) = agent.phases()[0].delayed
    rows = {
        "obs": torch.randn(16, 4),
        "next_obs": torch.randn(16, 4),
        "draw": torch.rand(16, 3),
        "reward": torch.randn(16),
        "discount": torch.full((16,), 0.9),
        "weight": torch.ones(16),
    }
    before = [[p.clone() for p in net.parameters()] for net in (agent.actor, agent.target_actor, agent.target_critics)]
    agent.update(rows)
    for net, old in zip((agent.actor, agent.target_actor, agent.target_critics), before, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), old, strict=True))
    improve(rows)
    assert delay == 2 and not torch.equal(agent.actor.layers[0].weight, before[0][0])
    for p, new, old in zip(agent.target_actor.parameters(), agent.actor.parameters(), before[1], strict=True):
        assert torch.allclose(p, old + 0.25 * (new - old), atol=1e-6)
    metrics = agent.update(rows)
    expected = td3.actor_loss(agent.actor, agent.critics, rows["obs"], rows["weight"])
    assert float(metrics["policy_loss"]) == pytest.approx(float(expected.detach()), abs=0.05)


class Target:
    """One step; the reward is ``-(action - 3)^2`` for a Box of 0 to 4, (0, 1, 0.5) for numbers from 5."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    max_steps = 10

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, n, rng):
        return {"t": torch.zeros(n, 1)}

    def observe(self, state):
        return state["t"]

    def step(self, state, action, rng):
        if isinstance(self.action_space, Discrete):
            reward = torch.tensor([0.0, 1.0, 0.5])[action - 5]
        else:
            reward = -(action[:, 0] - 3).square()
        return state, reward, torch.ones(len(action), dtype=torch.bool)


def learn(name, action, updates, **settings):
    env = Target(action)
    agent = make(name, action, env.observation_space, lr=3e-3, tau=0.05, hidden=(32,), batch_size=64, **settings)
    stream = Stream(VecEnv(env, 32, CPU), agent.act, agent.carry)
    stream.begin()
    phase = agent.phases()[0]
    source, update = make_source(phase, stream), 0
    while update < updates:
        rows = source.next()
        if rows is None:
            continue
        metrics, update = phase.update(rows), update + 1
        for every, call in phase.delayed:
            if update % every == 0:
                call(rows)
    return agent, metrics


@pytest.mark.parametrize("name", AGENTS)
def test_a_known_optimum_is_found(name):
    settings = {"alpha": 0.1} if name == "sac" else {}
    agent, metrics = learn(name, Box(0.0, 4.0, (1,), np.float32), 800, learning_starts=500, **settings)
    action = agent.act(torch.zeros(1, 1), None, torch.tensor(10_000), False)[0]["action"]
    assert action.item() == pytest.approx(3.0, abs=0.25)
    if name == "sac":
        assert float(metrics["entropy"]) == pytest.approx(-1.0, abs=0.4), "where the temperature steers it"


def test_discrete_sac_finds_the_softmax_of_rewards():
    settings = {"alpha": 0.5, "learn_alpha": False, "learning_starts": 500}
    agent, metrics = learn("sac", Discrete(3, start=5), 800, **settings)
    wanted = (torch.tensor([0.0, 1.0, 0.5]) / 0.5).softmax(0)
    assert torch.allclose(agent.actor(torch.zeros(1, 1)).softmax(-1)[0], wanted, atol=0.03)
    assert float(metrics["alpha"]) == pytest.approx(0.5)
    assert agent.act(torch.zeros(4, 1), None, torch.tensor(0), False)[0]["action"].tolist() == [6] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_compiled_updates_equal_eager_ones(name):
    eager, compiled = make(name, UNEVEN, hidden=(16, 16)), make(name, UNEVEN, hidden=(16, 16))
    torch.manual_seed(1)
    rows = {
        "obs": torch.randn(32, 4),
        "next_obs": torch.randn(32, 4),
        "draw": 2 * torch.rand(32, 3) - 1,
        "reward": torch.randn(32),
        "discount": torch.full((32,), 0.9),
        "weight": torch.ones(32),
    }
    for agent, mode in ((eager, "eager"), (compiled, "compile")):
        phase = agent.phases()[0]
        calls = [capture(phase.update, mode), *(capture(call, mode) for _, call in phase.delayed)]
        torch.manual_seed(2)
        for _ in range(5):
            for call in calls:
                call(rows)
    for one, two in zip(eager.actor.parameters(), compiled.actor.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_refusals_say_why():
    for module in (ddpg, td3, sac):
        assert module.refuses(VECTOR, UNEVEN) is None and module.refuses(Box(0, 1, (3, 3), np.float32), UNEVEN) is None
        assert "and Box(-inf, inf, (4,), float32) has none" in module.refuses(VECTOR, VECTOR)
        assert "finite low and high" in module.refuses(VECTOR, Box(-3e38, 3e38, (1,), np.float32))
        assert "acts in a Box of floats" in module.refuses(VECTOR, Box(0, 5, (1,), np.int64))
        assert "reads vectors" in module.refuses(Dict({"a": VECTOR}), UNEVEN)
        assert "reads vectors" in module.refuses(Box(0, 255, (4, 84, 84), np.uint8), UNEVEN)
    assert sac.refuses(VECTOR, Discrete(3)) is None
    assert "a Box of floats, this env takes Discrete(3)" in unfit(VECTOR, Discrete(3))
