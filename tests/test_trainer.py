"""The loop: budgets of phases, one evaluation at the end, rollouts, and envs that hand out their own state."""

from dataclasses import replace
from operator import itemgetter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rlgan.core.buffers import Ring
from rlgan.core.protocols import Phase, Replay, Rollouts
from rlgan.core.stream import Stream
from rlgan.core.trainer import Intervals, Output, Trainer
from rlgan.core.vec import VecEnv
from rlgan.errors import PluginError, UsageError
from rlgan.report.record import LiveLine, Record, read
from rlgan.report.trackers import Trackers
from rlgan.store import checkpoint

CPU = torch.device("cpu")


class Clock:
    """Counts steps and returns its state tensors themselves, which the contract allows."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Discrete(2)
    max_steps = 7

    def reset(self, n, rng):
        return {"t": torch.zeros(n, 1), "before": torch.zeros(n, 1)}

    def observe(self, state):
        return state["t"]

    def step(self, state, action, rng):
        return {"t": state["t"] + 1, "before": state["t"]}, torch.ones(len(action)), torch.zeros(len(action)) > 0


class Learner:
    """Counts what it is given."""

    def __init__(self, *phases):
        self.declared = phases
        self.seen = torch.zeros(len(phases), dtype=torch.int64)
        self.periodic = 0
        self.delayed = []
        self.rollouts = []

    def carry(self, n):
        return None

    def act(self, obs, carry, step, explore):
        return {"action": torch.zeros(len(obs), dtype=torch.int64)}, None

    def prepare(self, rollout):
        self.rollouts.append({k: v.clone() for k, v in rollout.items()})
        return rollout

    def tick(self):
        self.periodic += 1

    def phases(self):
        def phase(i, name, source, until, unit):
            def update(batch):
                self.seen[i] += 1
                return {f"metric_{name}": batch["reward"].mean()}

            prepare = self.prepare if isinstance(source, Rollouts) else None
            often, rarely = (10, self.tick), (3, lambda batch: self.delayed.append((int(self.seen[i]), batch)))
            return Phase(name, source, update, until, unit, prepare, periodic=(often,), delayed=(rarely,))

        return [phase(i, *declared) for i, declared in enumerate(self.declared)]

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, tree):
        self.seen.copy_(tree["seen"])


def run(tmp_path, learner, steps, evaluate=0, record=100):
    torch.manual_seed(0)
    output = Output(
        tmp_path / "checkpoints", Record(tmp_path / "metrics.jsonl"), LiveLine(steps), Trackers({}, deadline=1.0)
    )
    intervals = Intervals(steps, record=record, evaluate=evaluate, checkpoint=10**9, keep=2)
    env = VecEnv(Clock(), 4, "cpu")
    result = {"return_mean": 1.0, "return_std": 0.0, "return_iqm": 1.0, "length_mean": 7.0, "episodes": 1}
    stream = Stream(env, learner.act, learner.carry)
    rank = itemgetter("return_mean")
    trainer = Trainer(learner, stream, None, intervals, "eager", lambda: dict(result), rank, {})
    trainer.run(output)
    return trainer, read(tmp_path / "metrics.jsonl")


def test_each_phase_has_its_own_budget_and_metrics(tmp_path):
    replay = Replay(capacity=64, batch_size=8, every=4)
    learner = Learner(
        ("a", replay, 100, "steps"), ("b", replay, 50, "updates"), ("c", Rollouts(5, 10, 2), None, "steps")
    )
    trainer, rows = run(tmp_path, learner, 600)
    a, b, c = (int(n) for n in learner.seen)
    assert 24 <= a <= 30 and b == 50 and c % 4 == 0
    assert 600 <= int(trainer.stream.step) < 600 + 20
    assert learner.periodic == a // 10 + b // 10 + c // 10
    assert [seen for seen, _ in learner.delayed] == [k for n in (a, b, c) for k in range(3, n + 1, 3)]
    assert all("reward" in batch for _, batch in learner.delayed)
    for row in rows[:-1]:
        assert [k for k in row if k.startswith("metric")] in ([f"metric_{row['phase']}"], [])
        assert row["time"]["updates_per_s"] >= 0
    assert [row["phase"] for row in rows if row["kind"] == "train"][-1] == "c"


def test_nothing_is_recorded_twice_at_the_end(tmp_path):
    _, rows = run(tmp_path, Learner(("a", Replay(64, 8, 4), None, "steps")), 280, evaluate=4, record=4)
    trained = [row["rows"] for row in rows if row["kind"] == "train"]
    assert len(trained) == len(set(trained)) > 60
    assert len(rows) == 2 * len(trained), "each record was followed by one evaluation, the last one too"


def test_the_best_evaluation_is_saved_with_its_weights(tmp_path):
    trainer, _ = run(tmp_path, Learner(("a", Replay(64, 8, 4), None, "steps")), 400, evaluate=100)
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved.step == int(trainer.stream.step)
    kept = sorted(int(p.name[5:]) for p in (tmp_path / "checkpoints").glob("step_*"))
    # evaluations never improve on the first one, at 100 rows
    assert kept[0] < 110


def test_a_rollout_has_the_true_next_observation(tmp_path):
    learner = Learner(("a", Rollouts(6, 12), None, "steps"))
    run(tmp_path, learner, 100)
    for rollout in learner.rollouts:
        assert rollout["obs"].shape == (7, 4, 1) and rollout["next_obs"].shape == (6, 4, 1)
        assert torch.equal(rollout["obs"][1:], rollout["next_obs"])
        valid = rollout["valid"]
        assert (rollout["next_obs"] - rollout["obs"][:-1])[valid].eq(1).all()
        assert rollout["next_obs"][~valid].eq(0).all()


def test_final_observations_of_simulators_that_reset_in_the_same_step(tmp_path):
    learner = Learner(("a", Rollouts(3, 6), None, "steps"))

    class SameStep(VecEnv):
        def receive(self, group=0):
            step = super().receive(group)
            return step | {"final_obs": step["obs"] + 100, "truncated": torch.tensor([True, False, False, False])}

    torch.manual_seed(0)
    stream = Stream(SameStep(Clock(), 4, "cpu"), learner.act, learner.carry)
    stream.begin()
    from rlgan.core.rollouts import RolloutSource

    RolloutSource(Rollouts(3, 6), stream, learner.phases()[0], None).next()
    rollout = learner.rollouts[0]
    assert (rollout["next_obs"] - rollout["obs"][1:]).squeeze(-1).tolist() == [[100.0, 0, 0, 0]] * 3


def test_an_env_may_return_its_own_tensors():
    env = VecEnv(Clock(), 2, "cpu")
    learner = Learner()
    stream = Stream(env, learner.act, learner.carry)
    stream.begin()
    ring = Ring(40, 2, [slice(0, 2)], 1, CPU)
    for t in range(6):
        ring.write(0, stream.receive(0))
        assert env.state["before"].flatten().tolist() == [float(t)] * 2
    assert ring.fields["obs"][:6, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_collected_in_pieces_are_those_received_one_by_one(count):
    def stream():
        learner = Learner()
        made = Stream(VecEnv(Clock(), 4, "cpu"), learner.act, learner.carry)
        made.begin()
        return made

    one, pieces = stream(), stream()
    pieces.fix()
    collected = [pieces.collect(count) for _ in range(24 // count)]
    rows = [one.receive(0) for _ in range(24)]
    for name in ("first", "valid", "truncated", "reward"):
        assert torch.equal(torch.cat([piece[name] for piece in collected]), torch.stack([row[name] for row in rows]))
    assert sum(int(row["first"][0]) for row in rows) == 3


def test_carries_restart_with_the_episode():
    env = VecEnv(Clock(), 2, "cpu")
    agent = SimpleNamespace(
        carry=lambda n: (torch.zeros(n, 1),),
        act=lambda obs, carry, step, explore: (
            {"action": torch.zeros(2, dtype=torch.int64), "memory": carry[0].clone()},
            (carry[0] + 1,),
        ),
    )
    stream = Stream(env, agent.act, agent.carry)
    stream.begin()
    memory = [float(stream.receive(0)["memory"][0, 0]) for _ in range(20)]
    assert memory == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("replay", "says"),
    [
        (Replay(64, 65), "a batch of 65 rows is more than the 64 that the replay holds: lower agent.batch_size"),
        (Replay(16, 8, n_step=7), "a replay of 16 rows leaves 4 to each of 4 copies, and windows need 9: raise"),
    ],
)
def test_a_replay_that_is_too_small_is_refused(tmp_path, replay, says):
    with pytest.raises(UsageError, match=says):
        run(tmp_path, Learner(("a", replay, None, "steps")), 280)


@pytest.mark.parametrize(
    ("unit", "until", "updates"),
    [
        ("updates", None, 10),
        ("updates", 0, 0),
        ("updates", 3, 3),
        ("steps", 0, 0),
        ("steps", 8, 2),
        ("steps", None, 10),
    ],
)
def test_a_phase_of_nothing_is_none_and_one_without_a_limit_is_the_run(tmp_path, unit, until, updates):
    class Endless(Clock):
        max_steps = 10**6

        def step(self, state, action, rng):
            following, reward, terminated = super().step(state, action, rng)
            return following, reward, torch.zeros_like(terminated)

    learner = Learner(("a", Rollouts(1), until, unit))
    stream = Stream(VecEnv(Endless(), 4, "cpu"), learner.act, learner.carry)
    stream.begin()
    trainer = Trainer(learner, stream, None, Intervals(40, 0, 0, 0, 1), "eager", dict, lambda row: 0.0, {})
    trainer._run_phase(trainer.phases[0])
    assert int(learner.seen[0]) == updates


@pytest.mark.parametrize("name", ["return_mean", "step", "episodes"])
def test_a_metric_may_not_replace_a_field_of_the_record(tmp_path, name):
    class Boastful(Learner):
        def phases(self):
            (phase,) = super().phases()
            return [replace(phase, update=lambda batch: {name: torch.tensor(500.0)})]

    with pytest.raises(PluginError, match=f"a metric is named '{name}', which every line of the record has"):
        run(tmp_path, Boastful(("a", Rollouts(5, 10), None, "steps")), 100)
