"""The market by hand, costs beside a bisection, Kelly's optimum beside a search; the future is not seen."""

import math
import sys

import numpy as np
import pytest
import torch

from rlgan import assembly
from rlgan.cli.main import main
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.registry import Registry
from rlgan.testing import EnvConformance, check_env
from rlgan_envs import portfolio_kelly as kelly
from rlgan_envs import portfolio_prices as prices
from rlgan_envs.portfolio import LIMIT, Portfolio, PortfolioConfig, logits, remainder, rounds
from rlgan_envs.portfolio_prices import Market
from rlgan_envs.portfolio_weights import least_variance, log_optimal, minimum_variance

F64 = torch.float64
THREE = "date,A,B\n2024-01-01,1,8\n2024-01-02,2,4\n2024-01-03,2,6\n2024-01-04,1,6\n"


class TestPortfolio(EnvConformance):
    env = "portfolio"


@pytest.fixture
def made(tmp_path):
    """An env of a CSV file's text."""

    def make(text=THREE, **settings):
        path = tmp_path / "prices.csv"
        path.write_text(text)
        settings = {"cost": 0.0, "train": 1.0, "window": 2, "max_steps": 1, **settings}
        return Portfolio(PortfolioConfig(str(path), **settings), "cpu", F64)

    return make


def play(env, policy, steps=None):
    """Log wealth of one copy after playing a policy of states, and its last state."""
    state, total = env.reset(1, torch.Generator().manual_seed(0)), 0.0
    for _ in range(steps or env.max_steps):
        state, reward, terminated = env.step(state, policy(state, None), None)
        total += float(reward)
        assert not terminated.any()
    assert total == pytest.approx(float(state["log_wealth"]), abs=1e-4)
    return total, state


def holding(*weights):
    return lambda state, rng: logits(torch.tensor([weights], dtype=F64))


def test_a_csv_with_costs_keeps_the_contract(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(
        "date,A,B,C\n" + "".join(f"20{y}-01-01,{y},{100 - y},{'' if y > 70 else 5}\n" for y in range(10, 90))
    )
    check_env("portfolio", PortfolioConfig(str(path), max_steps=20))


def test_bars_by_hand_without_costs(made):
    later = made().evaluated()
    assert later.max_steps == 3
    # half in A, which doubles, and half in B, which halves; then A stays and B gains a half; then A halves
    total, state = play(later, holding(0, 0.5, 0.5))
    assert math.exp(total) == pytest.approx((0.5 * 2 + 0.5 * 0.5) * (0.5 + 0.5 * 1.5) * (0.5 * 0.5 + 0.5), rel=1e-12)
    # cash buys both; A at 1 and B at .25 of 1.25 go back to halves, then A at .5 and B at .75
    found = {name: float(value) for name, value in later.metrics(state).items()}
    assert found == {
        "growth": pytest.approx(total / 3),
        "turnover": pytest.approx((2 + 2 * 0.3 + 2 * 0.1) / 3),
        "paid": 0.0,
        "drawdown": pytest.approx(0.25),
        "out_of_range": 0.0,
    }
    references = later.references()
    assert math.exp(play(later, references["cash"])[0]) == pytest.approx(1)
    assert math.exp(play(later, references["buy-and-hold"])[0]) == pytest.approx(0.5 * 1 + 0.5 * 6 / 8)
    assert math.exp(play(later, references["constant-rebalanced"])[0]) == pytest.approx(math.exp(total))


def test_costs_by_hand(made):
    later = made(cost=0.01).evaluated()
    _, state = play(later, holding(0, 1, 0), 1)
    # all cash buys: a share c goes
    assert math.exp(float(state["log_wealth"])) == pytest.approx(0.99 * 2, rel=1e-9)
    state, reward, _ = later.step(state, holding(0, 0, 1)(state, None), None)
    # all of A is sold and all buys B: both pay
    assert math.exp(float(reward)) == pytest.approx(0.99**2 * 1.5, rel=1e-9)
    state, reward, _ = later.step(state, holding(1, 0, 0)(state, None), None)
    assert math.exp(float(reward)) == pytest.approx(0.99, rel=1e-9)
    assert float(state["paid"]) == pytest.approx(-4 * math.log(0.99), rel=1e-9)


def by_bisection(old, new, cost):
    """What is left when cash pays for all purchases, from the balance of the account."""

    def cash_left(left):
        sold = sum(max(o - left * n, 0) for o, n in zip(old[1:], new[1:], strict=True))
        bought = sum(max(left * n - o, 0) for o, n in zip(old[1:], new[1:], strict=True))
        # what a purchase of 1 costs is 1 / (1 - c)
        return old[0] + (1 - cost) * sold - bought / (1 - cost) - left * new[0]

    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if cash_left(middle) > 0 else (low, middle)
    return low


@pytest.mark.parametrize("cost", [0.0005, 0.0025, 0.02, 0.1])
@pytest.mark.parametrize("assets", [1, 3, 36])
def test_the_remainder_is_the_root_that_bisection_finds(cost, assets):
    rng = np.random.default_rng(assets)
    old, new = (rng.dirichlet(np.full(assets + 1, 0.3), 50) for _ in range(2))
    found = remainder(torch.from_numpy(old), torch.from_numpy(new), cost, rounds(cost))
    for o, n, left in zip(old, new, found.tolist(), strict=True):
        assert left == pytest.approx(by_bisection(o, n, cost), abs=1.5e-10)
    same = remainder(torch.from_numpy(old), torch.from_numpy(old), cost, rounds(cost))
    assert torch.allclose(same, torch.ones(50, dtype=F64), atol=1e-10), "no trade, no cost"


def test_actions_become_weights(made):
    env = made()
    t = torch.zeros(5, dtype=torch.int64)
    low = -LIMIT
    action = torch.tensor([[0, 0, 0], [1, 2, low], [low, low, low], [low, LIMIT, low], [low, -9, 9]], dtype=F64)
    e = math.e
    expected = [[1 / 3] * 3, [1 / (1 + e), e / (1 + e), 0], [1, 0, 0], [0, 1, 0], [0, e**-18, 1]]
    assert torch.allclose(env.weights(action, t), torch.tensor(expected, dtype=F64), atol=1e-7)
    weights = torch.tensor([[0.2, 0.3, 0.5], [0, 0, 1], [0, 1e-8, 1 - 1e-8], [1, 0, 0]], dtype=F64)
    assert torch.allclose(env.weights(logits(weights), t[:4]), weights, atol=1e-15)
    assert (env.weights(logits(weights.float()), t[:4]) - weights).abs().max() < 2e-6


@pytest.mark.parametrize(("how", "second"), [("clip", [0.0, 1.0, 0.0]), ("refuse", [0.0, 0.8, 0.2])])
def test_actions_out_of_range_are_counted(made, how, second):
    env = made(out_of_range=how, max_steps=3)
    vec = VecEnv(env, 2, "cpu")
    vec.reset(seed=0)
    vec.step(logits(torch.tensor([[0, 0.5, 0.5], [1, 0, 0]], dtype=F64)))  # drifts to 1 : 0.25
    vec.step(torch.tensor([[-99, 99, -99], [0, float("nan"), 0]], dtype=F64))
    assert vec.state["weights"][0].tolist() == pytest.approx(second, abs=1e-8)
    assert vec.state["weights"][1].tolist() == [1, 0, 0], "a NaN trades nothing"
    vec.step(torch.zeros(2, 3, dtype=F64))
    assert env.metrics(vec.state)["out_of_range"].tolist() == [1, 1]
    assert vec.statistics.take()["out_of_range_mean"] == 1


DELISTED = "day,A,B,C\n2024-01-01,1,8,\n2024-01-02,2,4,3\n2024-01-03,2,,3\n2024-01-04,4,,6\n"


def test_what_is_not_listed_is_neither_held_nor_earns(made):
    later = made(DELISTED, cost=0.01).evaluated()
    assert later.market.listed.tolist() == [[True, True, False], [True, True, True], [True, False, True]]
    policy = later.references()["constant-rebalanced"]
    total, state = play(later, policy, 1)
    assert state["weights"][0].tolist() == pytest.approx([0, 0.5, 0.5, 0])
    assert math.exp(total) == pytest.approx(0.99 * (0.5 * 2 + 0.5 * 0.5))
    everything = torch.full((1, 4), 0.0, dtype=F64)
    state, reward, _ = later.step(state, everything, None)
    assert state["weights"][0].tolist() == pytest.approx([0.25] * 4), "B is there until its price has failed to come"
    state, reward, _ = later.step(state, everything, None)
    assert state["weights"][0].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    # B has stood still in its last bar and is sold at its last price
    left = by_bisection([0.25] * 4, [1 / 3, 1 / 3, 0, 1 / 3], 0.01)
    assert math.exp(float(reward)) == pytest.approx(left * (1 + 2 + 2) / 3, rel=1e-9)
    refused, _, _ = later.step({**state, "t": torch.tensor([2])}, torch.full((1, 4), 99.0, dtype=F64), None)
    assert float(refused["weights"][0, 2]) == 0
    assert later.best_constant(0, 3)[[2, 3]].tolist() == [0, 0], "neither was there in all bars"
    assert later.least_variance(2)[2:3].tolist() == [0]


def test_observations_by_hand(made):
    for lag, last in ((0, 1), (1, 0)):
        env = made(lag=lag)
        state = {**env.reset(1, None), "t": torch.tensor([2]), "weights": torch.tensor([[0.2, 0.3, 0.5]], dtype=F64)}
        logs = np.log([[1, 1], [2, 0.5], [1, 1.5], [0.5, 1]])  # nothing, and three bars
        seen = np.concatenate((logs[last : last + 2].ravel() / logs[1:].std(), [0.2, 0.3, 0.5]))
        assert env.observe(state)[0].tolist() == pytest.approx(seen.tolist())
        assert env.observe({**state, "t": torch.tensor([0])})[0, :4].tolist() == [0] * 4


@pytest.mark.parametrize("lag", [0, 1])
def test_no_observation_moves_when_the_future_does(lag, monkeypatch):
    rng = np.random.default_rng(0)
    past = np.exp(rng.normal(0, 0.02, (120, 5)) * [1, 2, 3, 4, 5])
    future = past.copy()
    cut = 90
    future[cut:] = np.exp(rng.normal(0, 0.5, (30, 5)))
    seen, chosen = [], []
    for relatives in (past, future):
        market = Market("made", relatives, np.ones((120, 5), bool))
        monkeypatch.setattr("rlgan_envs.portfolio.load", lambda name, market=market: market)
        env = Portfolio(PortfolioConfig("made", window=7, lag=lag, train=0.7, max_steps=30), "cpu").evaluated()
        state, policies = env.reset(1, None), env.references()
        seen.append([])
        chosen.append([])
        for t in range(env.first, 120):
            seen[-1].append(env.observe(state)[0])
            chosen[-1].append([policies[name](state, None)[0] for name in ("minimum-variance", "constant-rebalanced")])
            state, _, _ = env.step(state, torch.linspace(-1, 1, 6)[None] * (t % 3), None)
    # the bar ``cut`` can be known of after it, and with the lag one later
    first = cut + 1 + lag - env.first
    for t, (one, other) in enumerate(zip(*seen, strict=True)):
        assert torch.equal(one, other) == (t < first), t
    for t, (one, other) in enumerate(zip(*chosen, strict=True)):
        assert torch.equal(one[0], other[0]) == (t < first) and torch.equal(one[1], other[1])


def test_training_never_plays_a_later_bar(made):
    text = "d,A\n" + "".join(f"20{y}-01-01,{1 + y % 7}\n" for y in range(10, 52))
    env = made(text, train=0.6, max_steps=5)
    assert (env.bars, env.split) == (41, 24)
    starts = env.reset(2_000, torch.Generator().manual_seed(0))["t"]
    assert (int(starts.min()), int(starts.max())) == (0, 19) and len(starts.unique()) == 20
    later = env.evaluated()
    state = later.reset(3, None)
    assert (state["start"].tolist(), state["end"].tolist(), later.max_steps) == ([24] * 3, [41] * 3, 17)
    assert made(text, train=1.0).evaluated().max_steps == 41
    vec = VecEnv(later, 2, "cpu")  # over the end and into the next game
    vec.reset()
    for k in range(40):
        _, reward, _, truncated, _ = vec.step(torch.zeros(2, 2, dtype=F64))
        assert reward.isfinite().all() and bool(truncated.all()) == ((k + 1) % 18 == 17)


def test_runs_train_on_the_earlier_part_and_evaluate_on_the_later(tmp_path, monkeypatch, capsys):
    played = []
    build = assembly.build_env

    def spy(*args, **kwargs):
        env = build(*args, **kwargs)
        played.append((env.env.first, env.env.last, env.max_steps))
        return env

    monkeypatch.setattr(assembly, "build_env", spy)
    path = tmp_path / "p.csv"
    path.write_text("d,A,B\n" + "".join(f"20{y}-01-01,{1 + y % 7},{1 + y % 5}\n" for y in range(10, 91)))
    words = [f"env.prices={path}", "env.max_steps=10", "env.window=3", "steps=64", "copies=4", "threads=1"]
    words += ["agent.horizon=8", "agent.minibatch=16", "eval.episodes=2", f"dir={tmp_path / 'x'}"]
    assert main(["run", "agent=ppo", "env=portfolio", *words]) == 0
    assert played == [(0, 60, 10), (60, 80, 20)]
    assert "normalised" not in capsys.readouterr().out, "the known scores are of another market"


def test_a_run_does_not_go_on_with_other_prices(tmp_path, capsys):
    path, run = tmp_path / "p.csv", tmp_path / "run"
    rows = [f"20{y}-01-01,{1 + y % 7},{1 + y % 5}\n" for y in range(10, 91)]
    path.write_text("d,A,B\n" + "".join(rows))
    words = [
        f"env.prices={path}",
        "preset=none",
        "env.max_steps=10",
        "env.window=3",
        "steps=64",
        "copies=4",
        "threads=1",
    ]
    words += ["agent.horizon=8", "agent.minibatch=16", "eval.episodes=1", "checkpoint.every=32", f"dir={run}"]
    assert main(["run", "agent=ppo", "env=portfolio", *words]) == 0
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("steps: 64\n", "steps: 128\n"))
    path.write_text("d,A,B\n" + "".join(rows).replace(",3,", ",3.5,"))
    assert main(["resume", str(run)]) == 2
    assert f"the run in {run} was trained on data of 'sha256=" in capsys.readouterr().err
    path.write_text("d,A,B\n" + "".join(rows))
    assert main(["resume", str(run)]) == 0


@pytest.mark.parametrize("context", range(4))
def test_kellys_weights_are_those_of_a_search(context):
    p, pays, closed = kelly.CHAIN[context], kelly.PAYS, kelly.weights()[context]
    numeric = log_optimal(pays, p)
    assert closed.min() > 0 and closed.sum() == pytest.approx(1)
    assert np.abs(closed - numeric).max() < 1e-6
    entropy = (p * np.log(p / kelly.insurance())).sum()
    assert p @ np.log(pays @ closed) == pytest.approx(entropy, abs=1e-12)
    assert p @ np.log(pays @ numeric) == pytest.approx(entropy, abs=1e-10)


def test_the_synthetic_market_has_its_probabilities_and_growth():
    outcomes = kelly.outcomes(400_000, seed=3)
    for before in range(4):
        after = outcomes[kelly.DELAY :][outcomes[: -kelly.DELAY] == before]
        share = np.bincount(after, minlength=4) / len(after)
        assert np.abs(share - kelly.CHAIN[before]).max() < 4 * 0.5 / len(after) ** 0.5
    # what is known adds its mutual information with the outcome to the growth of a blind bet
    shares = np.linalg.matrix_power(kelly.CHAIN, 60)[0]
    blind = (shares * np.log(shares / kelly.insurance())).sum()
    information = shares @ (kelly.CHAIN * np.log(kelly.CHAIN / shares)).sum(1)
    assert kelly.growth() == pytest.approx(blind + information, abs=1e-12) and information > blind > 0
    gained = np.log((kelly.PAYS[outcomes[2:]] * kelly.weights()[outcomes[:-2]]).sum(1))
    assert kelly.growth() == pytest.approx(gained.mean(), abs=4 * gained.std() / len(gained) ** 0.5)


@pytest.mark.parametrize("lag", [0, 1])
def test_kelly_plays_its_optimum_and_nothing_beats_it(lag):
    env = Portfolio(PortfolioConfig(lag=lag), "cpu", F64).evaluated()
    references = env.references()
    outcomes, weights = env.market.outcomes, kelly.weights()
    steps = 2_000
    bars = range(env.first, env.first + steps)
    known = sum(math.log(kelly.PAYS[outcomes[t]] @ weights[outcomes[t - 2]]) for t in bars)
    total, _ = play(env, references["kelly"], steps)
    assert total == pytest.approx(known, rel=1e-9)
    assert references["optimum"].value == pytest.approx(kelly.growth() * 16_384)
    assert total > max(play(env, references[name], steps)[0] for name in ("constant-rebalanced", "cash")) + 10
    assert "optimum" not in Portfolio(PortfolioConfig(cost=0.001), "cpu").references()


def test_least_variance_beside_a_search():
    rng = np.random.default_rng(0)
    scipy = pytest.importorskip("scipy.optimize")
    for n in (2, 5, 12):
        draw = rng.normal(size=(n + 3, n)) * rng.uniform(0.5, 2, n) + rng.normal(size=(n + 3, 1))
        covariance = np.cov(draw.T, bias=True)
        found = minimum_variance(covariance)
        start = {"x0": np.full(n, 1 / n), "method": "SLSQP", "bounds": [(0, 1)] * n, "tol": 1e-14}
        simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
        best = scipy.minimize(lambda w, c=covariance: w @ c @ w, constraints=simplex, **start)
        assert found.min() >= 0 and found.sum() == pytest.approx(1)
        assert found @ covariance @ found <= best.fun + 1e-9
    assert minimum_variance(np.diag([1.0, 4.0])).tolist() == pytest.approx([0.8, 0.2])
    assert minimum_variance(np.array([[1.0, 1.5], [1.5, 4.0]])).tolist() == [1, 0], "selling short is not allowed"


def test_least_variance_of_samples():
    sklearn = pytest.importorskip("sklearn.covariance")
    samples = np.random.default_rng(0).normal(size=(40, 6)) * [1, 1, 2, 2, 3, 5]
    for rows in (samples, samples[:3]):
        weights = least_variance(rows)
        covaries = sklearn.ledoit_wolf(rows)[0] @ weights
        # no asset that is held or left out would lower the variance
        assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
        assert (
            covaries[weights > 0] == pytest.approx(weights @ covaries) and (covaries >= weights @ covaries - 1e-9).all()
        )


@pytest.mark.parametrize("missing", ["scipy.optimize", "sklearn.covariance"])
def test_what_yardsticks_need(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    call = log_optimal if missing.startswith("scipy") else least_variance
    with pytest.raises(UsageError, match=r'run pip install "rlgan\['):
        call(np.ones((3, 2)))


def test_best_constant_of_shannons_market():
    # a stock that doubles or halves by turns: half in cash is best, and grows by 9 / 8 every two bars
    stock = np.array([[1, 2], [1, 0.5]] * 20)
    weights = log_optimal(stock)
    assert weights.tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    assert float((stock @ weights).prod()) == pytest.approx((9 / 8) ** 20)


PUBLISHED = {
    "nyse_o": {"buy-and-hold": 14.50, "constant-rebalanced": 27.08, "best-constant": 250.60},
    "msci": {"buy-and-hold": 0.91, "constant-rebalanced": 0.93, "best-constant": 1.51},
    "djia": {"buy-and-hold": 0.76, "constant-rebalanced": 0.81, "best-constant": 1.24},
}
"""Final wealth as in Li & Hoi (2014), Online portfolio selection."""


@pytest.fixture
def installed():
    try:
        prices.packaged("djia")
    except prices.UsageError:
        pytest.skip("universal-portfolios is not installed")


@pytest.mark.parametrize("name", PUBLISHED)
def test_references_reach_the_published_wealth(name, installed):
    env = Portfolio(PortfolioConfig(name, cost=0.0, train=1.0), "cpu").evaluated()
    tolerance = 0.005 if name == "nyse_o" else 0.0075  # two digits are given
    policies = [env.references()[who] for who in PUBLISHED[name]]
    state = env.reset(3, None)  # one copy for each of them
    for _ in range(env.max_steps):
        action = torch.stack([policy(state, None)[i] for i, policy in enumerate(policies)])
        state, _, _ = env.step(state, action, None)
    for wealth, (who, published) in zip(state["log_wealth"].exp().tolist(), PUBLISHED[name].items(), strict=True):
        assert wealth == pytest.approx(published, rel=tolerance), who
    if name == "nyse_o":
        assert env.relatives.shape == (5651, 37)
        costly = Portfolio(PortfolioConfig(name, train=1.0), "cpu").evaluated()
        # 22.99 where the first purchase is free and costs are linear
        wealth = math.exp(play(costly, costly.references()["constant-rebalanced"])[0])
        assert wealth == pytest.approx(22.99 * 0.9975, rel=1e-3)
        assert costly.least_variance(300)[1:].sum() == pytest.approx(1)


SENTENCES = {
    "A": "line 1: the header has no column of prices",
    "": "is empty: write a header",
    "d,A\n2024-01-01,1\n": "has 1 row of prices: write at least 2",
    "d,A\n": "has 0 rows of prices",
    "d,A,A\n2024-01-01,1,1\n2024-01-02,1,1\n": "line 1: column 3 repeats 'A'",
    "d,A,\n2024-01-01,1,1\n2024-01-02,1,1\n": "line 1: column 3 has no name",
    "d,A,B\n2024-01-01,1,1\n2024-01-02,1\n": "line 3 has 2 columns, the header has 3",
    "d,A\n2024-01-02,1\n2024-01-01,1\n": "line 3, column 'd': 2024-01-01 does not come after the date of line 2: sort",
    "d,A\n2024-01-01,1\n2024-01-01,1\n": "line 3, column 'd': 2024-01-01 does not come after",
    "d,A\n2024-01-01T00:30+00:00,1\n2024-01-01T02:00+02:00,1\n": "line 3, column 'd': 2024-01-01T02:00+02:00 does not",
    "d,A\nMonday,1\n2024-01-01,1\n": "line 2, column 'd': 'Monday' is no date: write it as 2024-01-31",
    "d,A,B\n2024-01-01,1,1\n2024-01-02,1,0\n": "line 3, column 'B': 0 is no price: write a finite number above 0",
    "d,A\n2024-01-01,1\n2024-01-02,-3\n": "line 3, column 'A': -3 is no price",
    "d,A\n2024-01-01,nan\n2024-01-02,3\n": "line 2, column 'A': nan is no price",
    "d,A\n2024-01-01,inf\n2024-01-02,3\n": "line 2, column 'A': inf is no price",
    "d,A\n2024-01-01,1\n2024-01-02,n/a\n": "line 3, column 'A': 'n/a' is no number",
    "d,A,B\n2024-01-01,1,1\n\n2024-01-02,1,\n2024-01-03,1,1\n": "line 4, column 'B' is empty between two prices",
    "d,A,B\n2024-01-01,1,\n2024-01-02,1,\n": "column 'B' has no price",
    "d,A\n2024-01-01,1\n2024-01-02,1\n2024-01-03,1\n": "env.max_steps=256 is longer than the 1 bars",
}


@pytest.mark.parametrize("text", SENTENCES)
def test_prices_that_are_not_sound_are_one_sentence(text, tmp_path, capsys):
    path = tmp_path / "p.csv"
    path.write_text(text)
    assert main(["run", "agent=ppo", "env=portfolio", f"env.prices={path}", f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert SENTENCES[text] in said and said.count("\n") == 1
    assert str(path) in said or "env.max_steps" in text or "env.prices" in said


WORDS = {
    "env.prices=nyse": "env.prices=nyse: there is no such file; write synthetic, nyse_o, nyse_n",
    "env.prices=.": "env.prices=. cannot be read",
    "env.cost=0.2": "env.cost=0.2",
    "env.lag=2": "env.lag=2",
    "env.train=1e-9": "env.train=1e-09 of 262144 bars leaves one part empty",
    "env.train=0.0005": "env.max_steps=256 is longer than the 131 bars of env.prices=synthetic that training plays in",
    "env.out_of_range=ignore": "env.out_of_range=ignore",
}


@pytest.mark.parametrize("word", WORDS)
def test_settings_that_cannot_be_are_one_sentence(word, tmp_path, capsys):
    assert main(["run", "agent=ppo", "env=portfolio", word, f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert WORDS[word] in said and said.count("\n") == 1


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch):
    def missing(name):
        raise prices.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(prices.metadata, "distribution", missing)
    prices.packaged.cache_clear()
    with pytest.raises(prices.UsageError, match='run `pip install --no-deps "universal-portfolios'):
        prices.load("nyse_o")


def test_a_picture_shows_wealth_beside_the_references(made):
    pytest.importorskip("cv2")
    later = made(cost=0.01).evaluated()
    state = later.reset(1, None)
    pictures = [later.render(state, 0)]
    for weights in ((0, 1, 0), (0, 0, 1), (1, 0, 0)):
        state, _, _ = later.step(state, holding(*weights)(state, None), None)
        pictures.append(later.render(state, 0))
    assert all(picture.shape == (480, 720, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert np.array_equal(later.render(state, 0), pictures[3])
    curves = later.charts[0].curves
    assert set(curves) == {"", "buy-and-hold", "constant-rebalanced", "minimum-variance", "best-constant"}
    assert curves[""] == pytest.approx([math.log(x) for x in (1, 0.99 * 2, 0.99**3 * 3, 0.99**4 * 3)])
    for name in ("buy-and-hold", "best-constant"):
        assert curves[name][-1] == pytest.approx(play(later, later.references()[name])[0])

    def reach(picture):
        """Columns of pixels in which the red curve is drawn."""
        return int((np.abs(picture[84:353].astype(int) - (214, 69, 65)).max(-1) < 3).any(0).sum())

    assert reach(pictures[3]) > 1.8 * reach(pictures[1]) > 0
    fresh = later.reset(1, None)
    assert np.array_equal(later.render(fresh, 0), pictures[0]), "a new episode, new curves"


def test_the_known_scores_hold():
    env = Portfolio(PortfolioConfig(), "cpu").evaluated()
    spec = Registry().get("envs", "portfolio")
    scores = {score.who: score.value for score in spec.scores}
    assert spec.known(PortfolioConfig()) == spec.scores and spec.known(PortfolioConfig("nyse_o")) == ()
    assert spec.known(PortfolioConfig(cost=0.01)) == ()
    relatives, t = env.relatives[env.first :].double(), torch.arange(env.first, env.bars)
    state = {"t": t, "start": t, "weights": torch.zeros(len(t), 4)}
    for who in ("constant-rebalanced", "kelly"):
        weights = env.weights(env.references()[who](state, None), t)
        assert float((relatives * weights).sum(1).log().sum()) == pytest.approx(scores[who], abs=0.05)
    drawn = env.references()["random"](state, torch.Generator().manual_seed(0))
    growth = (relatives * env.weights(drawn, t)).sum(1).log()
    assert float(growth.sum()) == pytest.approx(scores["random"], abs=4 * float(growth.std()) * 128)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ppo_reaches_95_percent_of_kelly(tmp_path):
    """Its preset, seed 0, on the bars that are kept from training."""
    import rlgan

    finished = rlgan.run(agent="ppo", env="portfolio", seed=0, threads=1, dir=str(tmp_path / "x"))
    kelly_alone = next(s.value for s in Registry().get("envs", "portfolio").scores if s.who == "kelly")
    assert finished.evaluation["return_mean"] >= 0.95 * kelly_alone
