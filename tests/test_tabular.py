"""Planning against closed forms; learning with tables: updates by hand, and who walks along the cliff."""

import json
import shutil

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import rlgan
from rlgan import session, trained
from rlgan.cli.main import main
from rlgan.core.protocols import Model, Phase, Rollouts, Spaces, Sweeps
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import EnvError, UsageError
from rlgan.nn.qtable import QTable
from rlgan.store import checkpoint
from rlgan_agents import mc_control, q_learning, sarsa
from rlgan_agents.policy_iteration import PolicyIteration, PolicyIterationConfig
from rlgan_agents.value_iteration import ValueIteration, ValueIterationConfig
from rlgan_envs.cliffwalking import CliffWalking, CliffWalkingConfig
from rlgan_envs.frozenlake import FrozenLake, FrozenLakeConfig
from rlgan_envs.taxi import Taxi, TaxiConfig

CPU = torch.device("cpu")
LAKE, CLIFF, TAXI = (
    FrozenLake(FrozenLakeConfig(), CPU),
    CliffWalking(CliffWalkingConfig(), CPU),
    Taxi(TaxiConfig(), CPU),
)
PLANNERS = {ValueIteration: ValueIterationConfig, PolicyIteration: PolicyIterationConfig}
BOTH = pytest.mark.parametrize("kind", PLANNERS, ids=lambda kind: kind.__name__)


def plan(kind, model, limit=20_000, **settings):
    """Sweep as the trainer does, until nothing is left to do; returns the agent and the last metrics."""
    states, actions, _ = model.next.shape
    agent = kind(
        Spaces(Discrete(states), Discrete(actions), limit, model=lambda: model), PLANNERS[kind](**settings), CPU
    )
    (phase,) = agent.phases()
    assert isinstance(phase.source, Sweeps) and not phase.done()
    for sweep in range(1, limit + 1):
        metrics = phase.update({"step": torch.tensor(sweep)})
        for every, call in phase.periodic:
            if sweep % every == 0:
                call()
        if phase.done():
            return agent, metrics
    raise AssertionError(f"not done after {limit} sweeps: {metrics}")


def closed_form(model, policy, gamma):
    """Solve ``(I - gamma P) v = r`` of a policy, entry by entry from the model."""
    states = len(model.next)
    p, r = np.zeros((states, states)), np.zeros(states)
    for s in range(states):
        a = int(policy[s])
        for k in range(model.next.shape[2]):
            weight = float(model.prob[s, a, k])
            r[s] += weight * float(model.reward[s, a, k])
            if not model.terminated[s, a, k]:
                p[s, int(model.next[s, a, k])] += weight
    return np.linalg.solve(np.eye(states) - gamma * p, r)


def action_values(model, value, gamma):
    ahead = torch.as_tensor(value)[model.next].masked_fill(model.terminated, 0.0)
    return (model.prob * (model.reward + gamma * ahead)).sum(-1).numpy()


@BOTH
@pytest.mark.parametrize("gamma", [0.9, 0.99])
@pytest.mark.parametrize("env", [LAKE, TAXI], ids=["lake", "taxi"])
def test_planned_values_are_the_closed_form_of_the_best_policy(kind, gamma, env):
    model = env.model()
    agent, metrics = plan(kind, model, gamma=gamma, tolerance=1e-12)
    exact = closed_form(model, agent.policy, gamma)
    assert np.abs(agent.value.numpy() - exact).max() < 1e-8
    q = action_values(model, exact, gamma)
    assert (q.max(1) - exact).max() < 1e-8, "no action improves the policy"
    assert float(metrics["residual"]) <= 1e-12 and float(metrics["value"]) == pytest.approx(exact.mean(), abs=1e-8)


@pytest.mark.parametrize("env", [LAKE, CLIFF, TAXI], ids=["lake", "cliff", "taxi"])
def test_both_planners_find_the_same_policy(env):
    model = env.model()
    one, two = (plan(kind, model, tolerance=1e-12)[0] for kind in PLANNERS)
    assert (one.value - two.value).abs().max() < 1e-8
    q = action_values(model, one.value, model.gamma)
    taken = q[np.arange(len(q)), two.policy.numpy()]
    assert (q.max(1) - taken).max() < 1e-8, "where they differ, the actions are equally good"
    unique = np.sort(q, 1)[:, -1] - np.sort(q, 1)[:, -2] > 1e-8
    assert unique.sum() > 5 and (one.policy == two.policy).numpy()[unique].all()


def test_undiscounted_values_of_the_cliff_are_distances():
    agent, _ = plan(PolicyIteration, CLIFF.model())
    assert float(agent.value[36]) == pytest.approx(-13, abs=1e-8)
    assert agent.value[24:36].tolist() == pytest.approx([-12.0 + k for k in range(12)], abs=1e-8)


def machine(reward=(1.0, -1.0, -0.2), gamma=None):
    """It runs and earns 1, and breaks half the time; mended at once for 1, or for 0.2 a try that works once in four."""
    runs, now, slowly = reward
    return Model(
        next=torch.tensor([[[0, 1], [0, 1]], [[0, 0], [0, 1]]]),
        prob=torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.25, 0.75]]], dtype=torch.float64),
        reward=torch.tensor([[[runs] * 2] * 2, [[now] * 2, [slowly] * 2]], dtype=torch.float64),
        terminated=torch.zeros(2, 2, 2, dtype=torch.bool),
        gamma=gamma,
    )


@BOTH
def test_the_average_reward_of_a_chain_by_hand(kind):
    # mended at once it runs 2/3 of the time: 2/3 - 1/3; slowly, 1/3 of the time: 1/3 - 0.2 * 2/3 = 0.2
    agent, metrics = plan(kind, machine(), tolerance=1e-12)
    assert int(agent.policy[1]) == 0
    assert float(metrics["gain"]) == pytest.approx(1 / 3, abs=1e-10)
    assert agent.value.tolist() == pytest.approx([0.0, -4 / 3], abs=1e-10)  # h(1) + 1/3 = -1 + h(0)
    # mending at once for 2 earns 2/3 - 2/3 = 0, so slowly is better
    agent, metrics = plan(kind, machine((1.0, -2.0, -0.2)), tolerance=1e-12)
    assert int(agent.policy[1]) == 1 and float(metrics["gain"]) == pytest.approx(0.2, abs=1e-10)
    # the same table with a discount, by the agent's word or the model's
    for settings, gamma in (({"gamma": 0.9}, None), ({}, 0.9)):
        agent, metrics = plan(kind, machine(gamma=gamma), tolerance=1e-12, **settings)
        assert "gain" not in metrics
        assert np.abs(agent.value.numpy() - closed_form(machine(), agent.policy, 0.9)).max() < 1e-8


@BOTH
def test_a_periodic_chain_settles_when_damped(kind):
    # from 0 to 1 for 1 and back for 0: half a reward a step, for ever in turns
    turns = Model(
        next=torch.tensor([[[1]], [[0]]]),
        prob=torch.ones(2, 1, 1, dtype=torch.float64),
        reward=torch.tensor([[[1.0]], [[0.0]]], dtype=torch.float64),
        terminated=torch.zeros(2, 1, 1, dtype=torch.bool),
        gamma=None,
    )
    with pytest.raises(AssertionError, match="not done after 500 sweeps"):
        plan(kind, turns, 500)
    _, metrics = plan(kind, turns, damping=0.5)
    assert float(metrics["gain"]) == pytest.approx(0.5, abs=1e-9)


def test_a_model_may_number_what_is_observed():
    model = machine()
    model = Model(model.next, model.prob, model.reward, model.terminated, None, lambda obs: (obs[:, 0] < 0).long())
    spaces = Spaces(Box(-1.0, 1.0, (1,)), Discrete(2, start=5), 100, model=lambda: model)
    agent = ValueIteration(spaces, ValueIterationConfig(), CPU)
    agent.policy.copy_(torch.tensor([1, 0]))
    out, _ = agent.act(torch.tensor([[0.5], [-0.5]]), None, torch.tensor(0), False)
    assert out["action"].tolist() == [6, 5]


def test_tables_that_are_no_models_are_named():
    m = machine()
    with pytest.raises(ValueError, match="are each \\(S, A, K\\)"):
        Model(m.next[0], m.prob, m.reward, m.terminated, 0.9)
    with pytest.raises(ValueError, match="a model of 2 states leads to states 0 to 1 alone"):
        Model(m.next + 1, m.prob, m.reward, m.terminated, 0.9)
    with pytest.raises(ValueError, match="outcomes of action 0 in state 1 have no probabilities that sum to 1"):
        Model(m.next, torch.where(m.next.sum(-1, keepdim=True) == 0, 0.4, m.prob), m.reward, m.terminated, 0.9)
    with pytest.raises(ValueError, match=r"average criterion .* never terminates"):
        Model(m.next, m.prob, m.reward, ~m.terminated, None)


def test_a_fault_in_a_model_names_the_env():
    class Broken(CliffWalking):
        def model(self):
            raise ValueError("no table today")

    with pytest.raises(EnvError, match="env cliff raised ValueError in its model: no table today"):
        VecEnv(Broken(CliffWalkingConfig(), CPU), 1, CPU, name="cliff").model()


def test_rows_that_meet_move_an_entry_to_the_mean_of_their_targets():
    table = QTable(Discrete(3, start=1), Discrete(2, start=5), 1.0, CPU)
    obs, action = torch.tensor([2, 2, 3, 1, 2]), torch.tensor([6, 6, 5, 5, 6])
    target = torch.tensor([2.0, 6.0, 9.0, 50.0, 70.0])
    valid = torch.tensor([True, True, True, False, False])
    metrics = table.move(obs, action, target, valid, torch.tensor(0.5))
    # 1 + 0.5 (4 - 1) where two rows met, 1 + 0.5 (9 - 1), and nothing elsewhere
    assert table.values.tolist() == [[1.0, 1.0], [1.0, 2.5], [5.0, 1.0]]
    assert float(metrics["td_error"]) == pytest.approx(((1 + 25 + 64) / 3) ** 0.5)
    assert float(metrics["q"]) == pytest.approx((2.5 + 2.5 + 5.0) / 3)
    table.move(obs, action, target, valid, torch.tensor(1.0))
    assert table.values.tolist() == [[1.0, 1.0], [1.0, 4.0], [9.0, 1.0]], "counts do not pile up"


def test_exploration_is_epsilon_greedy_with_random_ties():
    torch.manual_seed(0)
    table, obs = QTable(Discrete(2), Discrete(4, start=3), 0.0, CPU), torch.zeros(8_000, dtype=torch.int64)

    def shares(epsilon):
        return table.explore(obs, torch.tensor(epsilon)).sub(3).bincount(minlength=4).div(8_000).tolist()

    assert shares(0.0) == pytest.approx([0.25] * 4, abs=0.02)
    table.values[0] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert shares(0.0) == pytest.approx([0.0, 0.5, 0.5, 0.0], abs=0.02)
    assert shares(0.4) == pytest.approx([0.1, 0.4, 0.4, 0.1], abs=0.02)
    assert table.best(obs[:3]).tolist() == [4] * 3, "in evaluation the first of equal ones"


def agent_of(module, states=4, **settings):
    name = {q_learning: "QLearning", sarsa: "Sarsa", mc_control: "MCControl"}[module]
    config = getattr(module, f"{name}Config")(**settings)
    return getattr(module, name)(Spaces(Discrete(states), Discrete(2), 100), config, CPU)


def test_the_target_of_q_learning_by_hand():
    agent = agent_of(q_learning, gamma=0.5, lr=0.5, lr_end=0.0)
    agent.q.values.copy_(torch.tensor([[0.0, 0.0], [1.0, 4.0], [8.0, 2.0], [0.0, 0.0]]))
    batch = {
        "obs": torch.tensor([0, 0, 3]),
        "action": torch.tensor([0, 1, 1]),
        "reward": torch.tensor([1.0, 1.0, -1.0]),
        "terminated": torch.tensor([False, True, False]),
        "following": torch.tensor([1, 1, 2]),
        "valid": torch.tensor([True, True, True]),
        "step": torch.tensor(50),
    }
    assert q_learning.q_target(agent.q, batch, 0.5).tolist() == [3.0, 1.0, 3.0]
    agent.update(batch)  # half way through the run the rate is 0.25
    assert agent.q.values[[0, 0, 3], [0, 1, 1]].tolist() == [0.75, 0.25, 0.75]


def rollout(obs, action, reward, ends=(), limits=(), invalid=(), first=()):
    """One copy's rows (T, 1), with one more observation."""
    rows = len(action)

    def flags(at):
        return torch.tensor([[t in at] for t in range(rows)])

    return {
        "obs": torch.tensor(obs)[:, None],
        "next_obs": torch.tensor(obs)[1:, None],
        "action": torch.tensor(action)[:, None],
        "reward": torch.tensor(reward)[:, None],
        "terminated": flags(ends),
        "truncated": flags(limits),
        "valid": ~flags(invalid),
        "first": flags(first),
    }


def test_sarsa_waits_for_the_action_that_is_taken():
    agent = agent_of(sarsa, gamma=0.5)
    agent.q.values.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]))
    one = agent.prepare(rollout([0, 1, 2], [1, 0], [1.0, 2.0]))
    # nothing waited before; row 1 waits for its next action
    assert one["valid"][:, 0].tolist() == [False, True] and one["obs"][:-1, 0].tolist() == [0, 0]
    assert one["following"][1].tolist() == [1] and one["following_action"][1].tolist() == [0]
    assert sarsa.sarsa_target(agent.q, {k: v[:2].flatten() for k, v in one.items()}, 0.5)[1] == 1.0 + 0.5 * 3.0
    two = agent.prepare(rollout([2, 3, 0], [1, 1], [3.0, 9.0], ends=[1]))
    flat = {k: v[:2].flatten() for k, v in two.items()}
    assert flat["obs"].tolist() == [1, 2] and flat["action"].tolist() == [0, 1] and flat["valid"].all()
    assert sarsa.sarsa_target(agent.q, flat, 0.5).tolist() == [2.0 + 0.5 * 6.0, 3.0 + 0.5 * 8.0]
    three = agent.prepare(rollout([0, 1, 2], [0, 1], [0.0, 5.0], invalid=[0], limits=[1], first=[1]))
    flat = {k: v[:2].flatten() for k, v in three.items()}
    # the row that terminated has no future; the invalid one is not learned from
    assert flat["terminated"].tolist() == [True, False] and flat["valid"].tolist() == [True, False]
    assert sarsa.sarsa_target(agent.q, flat, 0.5)[0] == 9.0
    four = agent.prepare(rollout([2, 0, 1], [0, 0], [0.0, 1.0], invalid=[0], first=[1]))
    assert four["valid"][:, 0].tolist() == [False, False], "no action followed where the time was over"


def test_sarsa_learns_from_all_rows_of_a_stream_with_their_next_actions():
    torch.manual_seed(0)
    env = VecEnv(CliffWalking(CliffWalkingConfig(max_steps=7), CPU), 2, CPU)
    agent = agent_of(sarsa, 48, horizon=3, epsilon_start=1.0, epsilon_end=1.0)
    agent.q = QTable(env.single_observation_space, env.single_action_space, 0.0, CPU)
    taken = []

    def act(*arguments):
        out, carry = agent.act(*arguments)
        taken.append(out["action"])
        return out, carry

    stream = Stream(env, act, agent.carry)
    stream.begin()
    source = make_source(agent.phases()[0], stream)
    batches = [source.next() for _ in range(10)]
    action = torch.stack(taken)  # (30, 2)
    joined = {name: torch.cat([b[name].view(3, 2) for b in batches])[1:] for name in batches[0] if name != "step"}
    assert torch.equal(joined["action"], action[:29]) and torch.equal(joined["following_action"], action[1:])
    assert torch.equal(joined["following"][:-1], joined["obs"][1:])
    # of every eight rows the seventh is cut by the limit, and the eighth is no step
    usable = torch.tensor([t % 8 not in (6, 7) for t in range(29)])
    assert torch.equal(joined["valid"], usable[:, None].expand(-1, 2))


@pytest.mark.parametrize("starts", [(0, 0), (1, 0), (0, 1), (2, 5)])
@pytest.mark.parametrize("module", [sarsa, q_learning, mc_control])
def test_numbers_may_begin_anywhere(module, starts):
    first, lowest = starts

    class Walk:
        observation_space, action_space, max_steps = Discrete(3, start=first), Discrete(2, start=lowest), 10

        def reset(self, n, rng):
            return {"place": torch.full((n,), first)}

        def observe(self, state):
            return state["place"]

        def step(self, state, action, rng):
            place = (state["place"] + (action == lowest)).clamp(max=first + 2)
            return {"place": place}, torch.ones(len(place)), place >= first + 2

    torch.manual_seed(0)
    env = VecEnv(Walk(), 2, "cpu")
    name = {q_learning: "QLearning", sarsa: "Sarsa", mc_control: "MCControl"}[module]
    spaces = Spaces(env.single_observation_space, env.single_action_space, 1000)
    agent = getattr(module, name)(spaces, getattr(module, f"{name}Config")(), CPU)
    stream = Stream(env, agent.act, agent.carry)
    stream.begin()
    source = make_source(agent.phases()[0], stream)
    for _ in range(20):
        source.learn()
    assert agent.q.values[:2].max() > 0 and agent.q.values[2].abs().max() == 0


def test_monte_carlo_returns_by_hand():
    agent = agent_of(mc_control, gamma=0.5, visits="every")
    rows = rollout(
        [3, 0, 1, 1, 1, 2, 0, 1],
        [1, 0, 0, 0, 0, 1, 0],
        [8.0, 1.0, 2.0, 4.0, 0.0, 6.0, 1.0],
        ends=[0, 3],
        invalid=[4],
        first=[1, 5],
    )
    # what began before is not whole, nor what does not end; rows 1 to 3 are
    prepared = agent.prepare(rows)
    assert prepared["valid"][:, 0].tolist() == [False, True, True, True, False, False, False]
    assert prepared["target"][1:4, 0].tolist() == [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4.0]
    rows["truncated"][5] = True  # a time limit ends an episode too
    assert agent.prepare(rows)["valid"][5].all() and float(agent.prepare(rows)["target"][5]) == 6.0
    first = agent_of(mc_control, gamma=0.5).prepare(rows)
    assert first["valid"][:, 0].tolist() == [False, True, True, False, False, True, False], "row 3 repeats row 2"


def test_first_visits_are_counted_per_copy_and_episode():
    obs = torch.tensor([[0, 0], [0, 0], [1, 0], [0, 0]])
    action = torch.tensor([[0, 0], [0, 1], [0, 0], [0, 0]])
    episode = torch.tensor([[1, 1], [1, 1], [1, 1], [2, 1]])
    wanted = [[True, True], [False, True], [True, False], [True, False]]
    assert mc_control.first_visits(2 * obs + action, episode).tolist() == wanted


def walk(agent):
    """Cells of the greedy walk over the cliff's table."""
    cell, cells, model = 36, [36], CLIFF.model()
    while len(cells) < 40:
        action = int(agent.act(torch.tensor([cell]), None, torch.tensor(0), False)[0]["action"])
        cells.append(cell := int(model.next[cell, action, 0]))
        if cell == 47:
            break
    return cells


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sarsa_takes_the_safe_path_and_q_learning_the_short_one(tmp_path, seed):
    paths = {}
    for name in ("sarsa", "q-learning"):
        finished = rlgan.run(agent=name, env="cliffwalking", seed=seed, dir=str(tmp_path / name), eval={"episodes": 1})
        paths[name] = walk(trained.load(finished.dir).learner)
        assert finished.evaluation["return_mean"] == 1 - len(paths[name])
    assert paths["q-learning"] == [36, *range(24, 36), 47], "along the edge"
    safe = paths["sarsa"]
    assert safe[-1] == 47 and len(safe) - 1 in (15, 17)
    assert not set(safe) & set(range(25, 35)), "away from the edge"


def final(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return checkpoint.newest(folder / "checkpoints").tree, [
        {k: v for k, v in row.items() if k != "time"} for row in rows
    ]


def same(one, two, path=""):
    if isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            same(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            same(a, b, f"{path}.{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), path
    else:
        assert one == two, path


@pytest.mark.parametrize(
    ("agent", "steps", "every"),
    [
        ("value-iteration", 1_000, 100),
        ("policy-iteration", 1_000, 100),
        ("q-learning", 2_000, 500),
        ("sarsa", 2_000, 500),
        ("mc-control", 8_000, 1_000),
    ],
)
def test_a_resumed_run_is_the_same_run(tmp_path, agent, steps, every):
    words = {"preset": "none", "steps": steps, "copies": 4, "eval": {"episodes": 4}, "record": {"every": every}}
    saves = {"checkpoint": {"every": every, "keep": 100}}
    full, cut = tmp_path / "full", tmp_path / "cut"
    rlgan.run(agent=agent, env="frozenlake", dir=str(full), **words, **saves)
    shutil.copytree(full, cut)
    _, *later = sorted((cut / "checkpoints").glob("step_*"), key=lambda path: int(path.name.split("_")[1]))
    assert len(later) >= 2
    for path in later:
        shutil.rmtree(path)
    assert session.resume(cut) == 0
    same(*(final(folder)[0] for folder in (full, cut)))
    assert final(full)[1] == final(cut)[1] and len(final(full)[1]) >= 4


def test_planning_on_the_command_line(tmp_path, capsys):
    folder = tmp_path / "plan"
    words = ["agent=value-iteration", "env=cliffwalking", "eval.episodes=2", "record.every=1", f"dir={folder}"]
    assert main(["run", *words]) == 0
    train = [row for row in final(folder)[1] if row["kind"] == "train"]
    # values begin at 0 and reach the distance of the farthest cell, 14 steps, one sweep each; the next changes nothing
    assert [row["residual"] for row in train] == [1.0] * 14 + [0.0] and train[-1]["step"] == 15
    assert "residual 0" in (shown := capsys.readouterr().err) and "-13 mean return over 2 games" in shown
    assert main(["eval", str(folder), "episodes=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["return_mean"] == -13
    policy = rlgan.load(folder)
    assert policy(np.int64(36)) == 0 and policy(np.array([24, 35])).tolist() == [1, 2]


SENTENCES = {
    "agent=value-iteration env=cartpole": "agent=value-iteration plans with the env's model, and env=cartpole has no "
    "model(); these have one: cliffwalking, frozenlake, inventory, "
    "inventory-ss, taxi",
    "agent=policy-iteration env=gym:FrozenLake-v1": "env=gym:FrozenLake-v1 has no model(); these have one:",
    "agent=q-learning env=cartpole": "has one row of its table for each numbered observation, this env gives Box(",
    "agent=sarsa env=pendulum": "sarsa chooses among numbered actions, this env takes Box(",
    "agent=mc-control env=cartpole": "; these can act there: a2c, dqn, ppo",
    "agent=dqn env=frozenlake": "mc-control, policy-iteration, ppo, q-learning, ",
}


@pytest.mark.parametrize("words", SENTENCES)
def test_what_does_not_go_together_is_one_sentence(words, tmp_path, capsys):
    assert main(["run", *words.split(), f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert SENTENCES[words] in said and said.count("\n") == 1
    assert "cartpole" not in words or "iteration" not in said.partition("act there")[2], "where there is no model"


def test_planning_refuses_a_reward_model():
    stream = Stream(VecEnv(CLIFF, 1, CPU), None, lambda n: None)
    phase = Phase("plan", Sweeps(), lambda batch: {})
    with pytest.raises(UsageError, match="leave reward= and normalise"):
        make_source(phase, stream, object())
    assert isinstance(agent_of(sarsa).phases()[0].source, Rollouts)


def test_refusals_say_why():
    for module in (q_learning, sarsa, mc_control):
        assert module.refuses(Discrete(3), Discrete(2)) is None
        assert "numbered actions" in module.refuses(Discrete(3), MultiDiscrete([2, 2]))
        assert "numbered observation" in module.refuses(Box(0, 1, (2,)), Discrete(2))
