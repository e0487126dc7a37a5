"""The toy-text envs have Gymnasium's tables, and the scores that follow from them."""

from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch

from rlgan import evaluate
from rlgan.core import seeding
from rlgan.core.protocols import Model
from rlgan.core.vec import VecEnv
from rlgan.registry import Registry
from rlgan.tables import horizon_values
from rlgan_envs.cliffwalking import CliffWalking, CliffWalkingConfig
from rlgan_envs.frozenlake import FrozenLake, FrozenLakeConfig
from rlgan_envs.taxi import Taxi, TaxiConfig

TAXI = "Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3"
CASES = {
    "lake": (FrozenLake, FrozenLakeConfig(), "FrozenLake-v1", {}),
    "lake 8x8": (FrozenLake, FrozenLakeConfig(map="8x8"), "FrozenLake8x8-v1", {}),
    "firm lake": (FrozenLake, FrozenLakeConfig(slippery=False), "FrozenLake-v1", {"is_slippery": False}),
    "cliff": (CliffWalking, CliffWalkingConfig(), "CliffWalking-v1", {}),
    "slippery cliff": (CliffWalking, CliffWalkingConfig(slippery=True), "CliffWalking-v1", {"is_slippery": True}),
    "taxi": (Taxi, TaxiConfig(), TAXI, {}),
}


def outcomes(rows):
    """(next, reward, terminated) to its probability, outcomes that are the same taken together."""
    found = Counter()
    for probability, following, reward, terminated in rows:
        found[int(following), float(reward), bool(terminated)] += float(probability)
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_row_of_the_table_is_gymnasiums(case):
    kind, config, name, settings = CASES[case]
    ours, theirs = kind(config, "cpu"), gymnasium.make(name, **settings)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    if theirs.spec.max_episode_steps:
        assert ours.max_steps == theirs.spec.max_episode_steps
    m = ours.model()
    for s, actions in theirs.unwrapped.P.items():
        for a, rows in actions.items():
            fields = (m.prob[s, a], m.next[s, a], m.reward[s, a], m.terminated[s, a])
            mine, wanted = outcomes(zip(*fields, strict=True)), outcomes(rows)
            assert mine == pytest.approx(wanted, abs=1e-12), (s, a)
    starts = torch.zeros(ours.observation_space.n, dtype=torch.float64)
    starts[ours.starts] = 1 / len(ours.starts)
    assert np.abs(starts.numpy() - theirs.unwrapped.initial_state_distrib).max() < 1e-12
    assert {len(theirs.unwrapped.P), ours.observation_space.n} == {len(m.next)}


def test_steps_are_drawn_from_the_table():
    lake, n = FrozenLake(FrozenLakeConfig(), "cpu"), 30_000
    rng = torch.Generator().manual_seed(0)
    # right from the cell left of the goal: down stays at the wall, right is the goal, up goes up
    state, reward, terminated = lake.step({"s": torch.full((n,), 14)}, torch.full((n,), 2), rng)
    for cell in (14, 15, 10):
        assert float((state["s"] == cell).double().mean()) == pytest.approx(1 / 3, abs=0.01)
    assert torch.equal(terminated, state["s"] == 15) and torch.equal(reward, terminated.float())
    taxi = Taxi(TaxiConfig(), "cpu")
    first = taxi.reset(6_000, rng)["s"]
    counts = first.bincount(minlength=500)
    assert (counts > 0).sum() == 300 and (counts[counts > 0] > 5).all(), "uniform over the 300 starts"


def test_values_over_a_horizon_by_hand():
    # action 0 stays and earns 1, action 1 leads on and earns 0; in state 1 every action earns 3 and ends
    m = Model(
        next=torch.tensor([[[0], [1]], [[1], [1]]]),
        prob=torch.ones(2, 2, 1, dtype=torch.float64),
        reward=torch.tensor([[[1.0], [0.0]], [[3.0], [3.0]]], dtype=torch.float64),
        terminated=torch.tensor([[[False], [False]], [[True], [True]]]),
        gamma=0.5,
    )
    assert horizon_values(m, 0.5, 1).tolist() == [1.0, 3.0]
    assert horizon_values(m, 0.5, 2).tolist() == [1.5, 3.0]  # 1 + 0.5 * 1, or 0 + 0.5 * 3
    assert horizon_values(m, 1.0, 3).tolist() == [4.0, 3.0]  # 1, then 0, then 3
    assert horizon_values(m, 0.5, 2, best=False).tolist() == [(1 + 0.5 * 0.5 + 0.5 * 3) / 2, 3.0]


@pytest.mark.parametrize("case", ["lake", "cliff", "taxi"])
def test_the_known_scores_follow_from_the_table(case):
    kind, config, *_ = CASES[case]
    env = kind(config, "cpu")
    spec = Registry().get("envs", kind.__name__.lower())
    scores = {score.who: score.value for score in spec.scores}
    for who, best in (("random", False), ("optimum", True)):
        value = horizon_values(env.model(), 1.0, env.max_steps, best)[env.starts].mean()
        assert scores[who] == pytest.approx(float(value), rel=1e-3 if who == "random" else 1e-5)
    assert env.references()["optimum"].value == pytest.approx(scores["optimum"], rel=1e-5)


@pytest.mark.parametrize(
    ("case", "planned", "within"), [("lake", 0.74, 0.03), ("firm lake", 1.0, 0), ("cliff", -13, 0), ("taxi", 7.93, 0.4)]
)
def test_the_planned_policy_reaches_the_optimum(case, planned, within):
    kind, config, *_ = CASES[case]
    env = kind(config, "cpu")
    with seeding.fork(0, torch.device("cpu")):
        vec = VecEnv(env, 2_000, "cpu")
        act = evaluate.reference(vec, env.references()["planned"])
        games = evaluate.play(vec, act, lambda n: None, 2_000)
    assert sum(games["returns"]) / 2_000 == pytest.approx(planned, abs=within)


def orange(env, s):
    """Mean row and column of what stands for the agent (the taxi's passenger)."""
    frame = env.render({"s": torch.tensor([s])}, 0)
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    rows, columns = (np.abs(frame.astype(int) - (214, 112, 42)).max(-1) < 10).nonzero()
    assert len(rows) > 100
    return rows.mean(), columns.mean()


def test_pictures_show_the_state():
    pytest.importorskip("cv2")
    lake, cliff, taxi = (kind(config, "cpu") for kind, config, *_ in (CASES["lake"], CASES["cliff"], CASES["taxi"]))
    assert orange(lake, 6) == pytest.approx((1.5 * 96, 2.5 * 96), abs=1)
    assert orange(cliff, 26) == pytest.approx((2.5 * 60, 2.5 * 60), abs=1)
    waiting, riding = (((2 * 5 + 1) * 5 + passenger) * 4 for passenger in (3, 4))
    assert orange(taxi, waiting) == pytest.approx((4 * 80 + 20, 3 * 80 + 18), abs=1), "at the blue stand"
    assert orange(taxi, riding) == pytest.approx((2 * 80 + 42, 80 + 40), abs=1), "in the taxi"
