"""The newsvendor by hand, and its best order beside a search over all of them."""

import math

import numpy as np
import pytest
import torch

from rlgan import evaluate
from rlgan.cli.main import main
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan.registry import Registry
from rlgan.testing import EnvConformance, check_env
from rlgan_envs.newsvendor import Newsvendor, NewsvendorConfig

F64 = torch.float64


class TestNewsvendor(EnvConformance):
    env = "newsvendor"


def test_drawn_terms_keep_the_contract():
    check_env("newsvendor", NewsvendorConfig(vary=True))


def make(**settings):
    return Newsvendor(NewsvendorConfig(**settings), "cpu", F64)


@pytest.mark.parametrize(
    ("order", "demand", "reward"),
    [
        (12.0, 9, 10 * 9 - 6 * 12 - 1 * 3),
        (12.4, 15, 10 * 12 - 6 * 12 - 2 * 3),  # rounded to 12
        (0.0, 4, -2 * 4),
        (41.0, 9, 10 * 9 - 6 * 41 - 1 * 32),
    ],
)
def test_periods_by_hand(order, demand, reward):
    env = make(disposal=1.0, goodwill=2.0)
    state = env.reset(1, None)
    after, got, terminated = env.advance(state, torch.tensor([[order]]), torch.tensor([demand], dtype=F64))
    assert float(got) == reward and not terminated.any()
    assert (float(after["demand"]), float(after["order"])) == (demand, round(order))


def by_search(price, cost, disposal, goodwill, mean):
    """Best order and its expected profit, in plain Python."""
    pmf = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(600)]
    profits = []
    for q in range(int(mean + 4 * mean**0.5 + 4) + 1):
        earned = (
            price * min(q, k) - cost * q - disposal * max(q - k, 0) - goodwill * max(k - q, 0) for k in range(600)
        )
        profits.append(sum(p * e for p, e in zip(pmf, earned, strict=True)))
    return int(np.argmax(profits)), max(profits)


TERMS = [
    (10.0, 6.0, 0.0, 0.0, 20.0),
    (10.0, 6.0, 1.0, 2.0, 20.0),
    (10.0, 6.0, -5.0, 0.0, 20.0),  # a salvage value
    (5.0, 4.9, 0.0, 0.0, 3.0),
    (80.0, 2.0, 1.0, 9.0, 150.0),
]


@pytest.mark.parametrize("terms", TERMS)
def test_the_critical_quantile_is_the_best_of_all_orders(terms):
    names = ("price", "cost", "disposal", "goodwill", "mean")
    env = make(**dict(zip(names, terms, strict=True)))
    order, profit = by_search(*terms)
    state = env.reset(1, None)
    assert float(env.references()["critical-quantile"](state, None)) == order
    assert env.references()["optimum"].value == pytest.approx(40 * profit, rel=1e-9)
    assert float(env.profit(state["terms"], torch.tensor([order]))) == pytest.approx(profit, rel=1e-9)


def test_profits_of_drawn_terms():
    env = make(vary=True)
    terms = env.reset(300, torch.Generator().manual_seed(0))["terms"]
    price, cost, disposal, goodwill, mean = terms.unbind(1)
    assert bool(((cost <= price) & (price <= 100) & (disposal <= cost.clamp(max=5)) & (goodwill <= 10)).all())
    assert float(mean.max()) <= 200 and float(terms.min()) >= 0 and float(mean.mean()) == pytest.approx(100, abs=12)
    orders = env.quantile(terms)
    for i in range(0, 300, 60):
        order, profit = by_search(*terms[i].tolist())
        assert int(orders[i]) == order
        assert float(env.profit(terms[i : i + 1], orders[i : i + 1])) == pytest.approx(profit, rel=1e-9)


def played(env, name, games=2_000):
    with seeding.fork(0, torch.device("cpu")):
        vec = VecEnv(env, games, "cpu")
        result = evaluate.play(vec, evaluate.reference(vec, env.references()[name]), lambda n: None, games)
    return sum(result["returns"]) / games


def test_references_earn_what_is_said():
    env = Newsvendor(NewsvendorConfig(), "cpu")
    scores = {score.who: score.value for score in Registry().get("envs", "newsvendor").scores}
    optimum = env.references()["optimum"].value
    assert scores["optimum"] == pytest.approx(optimum, rel=1e-4)
    assert played(env, "critical-quantile") == pytest.approx(optimum, rel=0.005)
    assert played(env, "random") == pytest.approx(scores["random"], rel=0.02)
    assert played(env, "mean-demand") < optimum


def test_the_optimum_of_drawn_terms_is_earned():
    env = Newsvendor(NewsvendorConfig(vary=True, max_steps=5), "cpu")
    # the terms of an episode vary far more than its demand
    best = played(env, "critical-quantile", 4_000)
    assert best == pytest.approx(env.references()["optimum"].value, rel=0.06)
    assert played(env, "mean-demand", 4_000) < best


def test_orders_out_of_range_are_cut_and_counted():
    env = make(max_steps=2)
    vec = VecEnv(env, 2, "cpu")
    vec.reset(seed=0)
    for _ in range(2):
        vec.step(torch.tensor([[-3.0], [1e6]]))
    assert vec.state["order"].tolist() == [0, env.max_order]
    assert vec.statistics.take()["out_of_range_mean"] == 2
    for how, order in (("clip", [0, env.max_order, 4]), ("refuse", [0, 0, 4])):
        env = make(out_of_range=how)
        state, reward, _ = env.advance(env.reset(3, None), torch.tensor([[math.nan], [1e6], [4.0]]), torch.ones(3))
        assert state["order"].tolist() == order and state["odd"].tolist() == [1, 1, 0]
        assert reward.isfinite().all()


SENTENCES = {
    "env.mean=0": "env.mean=0: must be greater than 0",
    "env.disposal=-7": "env.cost=6 and env.disposal=-7 make every unit left over a gain",
    "env.price=5": "so it is best to order nothing; write a higher price",
    "env.goodwill=-1": "env.goodwill=-1: must be greater than or equal to 0",
}


@pytest.mark.parametrize("word", SENTENCES)
def test_settings_that_cannot_be_are_one_sentence(word, tmp_path, capsys):
    assert main(["run", "agent=ppo", "env=newsvendor", word, f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert SENTENCES[word] in said and said.count("\n") == 1


def test_a_picture_shows_orders_and_demand():
    pytest.importorskip("cv2")
    env = make()
    demand = torch.full((2,), 25.0, dtype=F64)
    state, _, _ = env.advance(env.reset(2, None), torch.tensor([[20.0], [0.0]]), demand)
    orange = [(np.abs(env.render(state, i)[50:].astype(int) - (240, 160, 60)).max(-1) < 3).sum() for i in (0, 1)]
    assert env.render(state, 0).shape == (480, 720, 3) and orange[0] > 100 and orange[1] == 0
