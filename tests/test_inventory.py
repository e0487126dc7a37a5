"""The stores' dynamics by hand and beside a literal simulation; their optima beside published ones and closed forms."""

import json
import math

import numpy as np
import pytest
import torch

from rlgan import evaluate
from rlgan.cli.main import main
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan.registry import Registry
from rlgan.tables import Bellman, best_average
from rlgan.testing import EnvConformance
from rlgan_envs import stock
from rlgan_envs.demand import Demand, expected_excess
from rlgan_envs.inventory import Inventory, InventoryConfig
from rlgan_envs.inventory_ss import InventorySS, InventorySSConfig

F64 = torch.float64
PUBLISHED = {
    "L=1": ({"lead_time": 1}, 4.041),
    "L=2": ({"lead_time": 2}, 4.395),
    "geometric": ({"lead_time": 1, "demand": "geometric"}, 9.817),
}
"""Zipkin (2008): mean demand 5, h = 1, p = 4."""


class TestInventory(EnvConformance):
    env = "inventory"


class TestInventorySS(EnvConformance):
    env = "inventory-ss"


def lost(**settings):
    return Inventory(InventoryConfig(**settings), "cpu", F64)


def waiting(**settings):
    return InventorySS(InventorySSConfig(**settings), "cpu", F64)


def advance(env, pipeline, order, demand):
    """One period of one copy: the pipeline after it, and the reward."""
    state = {**env.reset(1, None), "pipeline": torch.tensor([pipeline], dtype=F64)}
    after, reward, terminated = env.advance(state, torch.tensor([order]), torch.tensor([demand], dtype=F64))
    assert not terminated.any()
    return after["pipeline"][0].tolist(), float(reward)


@pytest.mark.parametrize(
    ("env", "pipeline", "order", "demand", "after", "reward"),
    [
        (lost(lead_time=2), [7, 4], 3, 5, [2 + 4, 3], -2),  # 7 - 5 stay, the 4 due arrive, 3 are under way
        (lost(lead_time=2), [3, 4], 6, 5, [4, 6], -4 * 2),  # 2 customers are lost
        (lost(lead_time=1), [7], 3, 5, [2 + 3], -2),
        (lost(lead_time=0), [2], 3, 4, [1], -1),  # sold in the same period
        (lost(lead_time=4), [9, 1, 2, 3], 8, 9, [1, 2, 3, 8], 0),
        (lost(lead_time=1, holding=0.5, shortage=7.0, order_cost=10.0), [2], 6, 3, [6], -(7 + 10)),
        (lost(lead_time=1, holding=0.5, shortage=7.0, order_cost=10.0), [4], 0, 1, [3], -0.5 * 3),
        (lost(lead_time=2, capacity=20), [20, 9], 1, 2, [20, 1], -18),  # 7 of 9 do not fit and go back
        (waiting(), [5], 30, 12, [23], -(64 + 23)),
        (waiting(), [5], 0, 12, [-7], -9 * 7),  # 7 customers wait
        (waiting(), [-7], 0, 2, [-9], -9 * 9),  # and go on waiting
        (waiting(lead_time=2), [-3, 8], 40, 2, [-5 + 8, 40], -(64 + 9 * 5)),
    ],
)
def test_periods_by_hand(env, pipeline, order, demand, after, reward):
    assert advance(env, pipeline, order, demand) == (after, reward)


class Shop:
    """One copy, customer by customer, with a calendar of deliveries."""

    def __init__(self, c, start, capacity, waits):
        self.c, self.capacity, self.waits = c, capacity, waits
        self.today, self.shelf, self.queue = 0, start, 0
        self.calendar = {day: start for day in range(1, c.lead_time)}

    def receive(self):
        for _ in range(self.calendar.pop(self.today, 0)):
            if self.queue:
                self.queue -= 1
            elif self.shelf < self.capacity:
                self.shelf += 1

    def day(self, order, customers):
        self.calendar[self.today + self.c.lead_time] = order
        if self.c.lead_time == 0:
            self.receive()
        missed = 0
        for _ in range(customers):
            if self.shelf:
                self.shelf -= 1
            else:
                missed += 1
        self.queue += missed if self.waits else 0
        paid = self.c.holding * self.shelf + self.c.shortage * (self.queue if self.waits else missed)
        self.today += 1
        if self.c.lead_time:
            self.receive()
        return paid + (self.c.order_cost if order else 0)

    def pipeline(self):
        due = [self.calendar.get(day, 0) for day in range(self.today + 1, self.today + self.c.lead_time)]
        return [self.shelf - self.queue, *due]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("lead_time", [0, 1, 2, 4])
def test_a_literal_shop_lives_through_the_same_days(lead_time, waits):
    settings = {"mean": 4.0, "lead_time": lead_time, "order_cost": 2.0, "capacity": 15, "max_order": 9}
    env = waiting(**settings) if waits else lost(**settings)
    rng, copies = np.random.default_rng(lead_time), 5
    state = env.reset(copies, None)
    shops = [Shop(env.config, 4, 15, waits) for _ in range(copies)]
    emptied = filled = 0
    for _ in range(120):
        orders, customers = rng.integers(0, 10, copies), rng.poisson(4.5, copies)
        state, reward, _ = env.advance(state, torch.tensor(orders), torch.tensor(customers, dtype=F64))
        for i, shop in enumerate(shops):
            paid = shop.day(int(orders[i]), int(customers[i]))
            assert (state["pipeline"][i].tolist(), float(reward[i])) == (shop.pipeline(), -paid)
            emptied, filled = emptied + (shop.shelf == 0), filled + (shop.shelf == 15)
    assert emptied > 5 and (filled > 5 or lead_time == 0)


@pytest.mark.parametrize(
    ("kind", "mean"), [("poisson", 5.0), ("geometric", 5.0), ("poisson", 0.3), ("geometric", 12.0)]
)
def test_demand_is_drawn_with_its_probabilities(kind, mean):
    demand = Demand(kind, mean, "cpu", F64)
    for k in (0, 1, 7):
        exact = (
            math.exp(-mean) * mean**k / math.factorial(k)
            if kind == "poisson"
            else (mean / (1 + mean)) ** k / (1 + mean)
        )
        assert float(demand.pmf[k]) == pytest.approx(exact, rel=1e-12)
    value = torch.arange(len(demand.pmf), dtype=F64)
    assert float(demand.pmf.sum()) == pytest.approx(1, abs=1e-12)
    assert float((value * demand.pmf).sum()) == pytest.approx(mean, abs=1e-9)
    # what the columns of the alias table give to each value
    given = torch.zeros(demand.columns, dtype=F64).index_add_(
        0, demand.other.long(), (1 - demand.keep) / demand.columns
    )
    given += demand.keep / demand.columns
    assert (given[: len(demand.pmf)] - demand.pmf).abs().max() < 1e-12 and given[len(demand.pmf) :].sum() < 1e-12
    drawn = Demand(kind, mean, "cpu", torch.float32).draw(400_000, torch.Generator().manual_seed(0))
    error = demand.deviation / 400_000**0.5
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * error)
    assert float(drawn.var()) == pytest.approx(demand.variance, rel=0.03)
    assert float(drawn.min()) >= 0 and torch.equal(drawn, drawn.round())
    for k in (0, 1, 2, 9):
        share = float((drawn == k).double().mean())
        p = float(demand.pmf[k])
        assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 400_000) ** 0.5 + 1e-7)


def test_demand_over_several_periods():
    over = Demand("poisson", 2.0, "cpu", F64).over(3)
    assert (over[:30] - Demand("poisson", 6.0, "cpu", F64).pmf[:30]).abs().max() < 1e-12
    twice = Demand("geometric", 3.0, "cpu", F64).over(2)
    for k in (0, 1, 8):
        assert float(twice[k]) == pytest.approx((k + 1) * 0.75**k * 0.25**2, rel=1e-10), "negative binomial"
    assert Demand("poisson", 5.0, "cpu", F64).quantile(0.8, 2) == 13
    coin = torch.tensor([0.5, 0.0, 0.0, 0.5], dtype=F64)
    assert expected_excess(coin, 4).tolist() == [1.5, 1.0, 0.5, 0.0, 0.0]


SMALL = {"mean": 2.0, "capacity": 7, "max_order": 3}


@pytest.mark.parametrize(
    "env",
    [*(lost(lead_time=lead, order_cost=1.5, **SMALL) for lead in (0, 1, 2, 3)), waiting(**SMALL, order_cost=1.5)],
    ids=["lost 0", "lost 1", "lost 2", "lost 3", "waiting"],
)
def test_every_row_of_the_model_is_the_envs_mean_over_demand(env):
    model, levels = env.model(), env.capacity + 1
    pipelines = torch.cartesian_prod(*[torch.arange(levels), *[torch.arange(4)] * (env.width - 1)]).view(-1, env.width)
    if env.waits:
        pipelines = torch.arange(env.lowest, levels)[:, None]
    assert len(pipelines) == len(model.next)
    pmf = env.demand.pmf
    state = env.reset(len(pmf), None)
    demand = torch.arange(len(pmf), dtype=F64)
    for s, pipeline in enumerate(pipelines):
        assert int(model.index(env.observe({"pipeline": pipeline[None].double()}))) == s
        for a in range(4):
            here = {**state, "pipeline": pipeline.double().expand(len(pmf), -1)}
            after, reward, _ = env.advance(here, torch.full((len(pmf),), a), demand)
            leads = torch.zeros(len(model.next), dtype=F64).index_add_(0, env.number(env.observe(after)), pmf)
            table = torch.zeros(len(model.next), dtype=F64).index_add_(0, model.next[s, a], model.prob[s, a])
            assert (leads - table).abs().max() < 2e-9
            assert float((model.prob * model.reward)[s, a].sum()) == pytest.approx(
                float((pmf * reward).sum()), abs=1e-9
            )


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_optimum_is_the_published_one(case):
    settings, cost = PUBLISHED[case]
    assert -lost(**settings).best[0] == pytest.approx(cost, abs=5e-4)


def average(env, rule):
    """Exact cost of a period under a rule of pipelines, by its own equation."""
    model = env.model()
    bellman, states = Bellman(model, None), torch.arange(len(model.next))
    stocks = torch.stack([states // env.orders**k for k in range(env.width - 1, -1, -1)], 1)
    stocks[:, 1:] %= env.orders
    policy = rule(stocks).clamp(0, env.max_order)
    value = torch.zeros(len(states), dtype=F64)
    for _ in range(20_000):
        value, metrics = bellman.settle(value, bellman.under(value, policy), 1.0)
        if float(metrics["residual"]) < 1e-8:
            return -float(metrics["gain"])
    raise AssertionError(metrics)


@pytest.mark.parametrize(
    ("case", "base", "capped", "constant"),
    [
        ("L=1", (12, 4.163), (12, 6, 4.065), (4, 5.274)),
        ("L=2", (16, 4.639), (17, 5, 4.406), (4, 5.274)),
        ("geometric", (12, 10.042), (13, 5, 9.871), (3, 11.000)),
    ],
)
def test_the_rules_cost_what_is_published(case, base, capped, constant):
    env = lost(**PUBLISHED[case][0])
    assert average(env, lambda x: base[0] - x.sum(1)) == pytest.approx(base[1], abs=6e-4)
    assert average(env, lambda x: (capped[0] - x.sum(1)).clamp(max=capped[1])) == pytest.approx(capped[2], abs=6e-4)
    assert average(env, lambda x: torch.full((len(x),), constant[0])) == pytest.approx(constant[1], abs=2e-3)


def newsvendor_cost(pmf, mean, h, b):
    """Least expected cost of one order against a demand, by trying all of them."""
    value = torch.arange(len(pmf), dtype=F64)
    costs = [
        float((pmf * (h * (y - value).clamp(min=0) + b * (value - y).clamp(min=0))).sum()) for y in range(len(pmf))
    ]
    return min(costs), int(np.argmin(costs))


def test_without_lead_time_the_optimum_is_the_newsvendors():
    env = lost(lead_time=0)
    assert -env.best[0] == pytest.approx(newsvendor_cost(env.demand.pmf, 5, 1, 4)[0], abs=1e-8)


def test_without_a_fixed_cost_waiting_customers_want_base_stock():
    env = waiting(lead_time=2, order_cost=0.0, mean=3.0, max_order=30)
    cost, level = newsvendor_cost(Demand("poisson", 9.0, "cpu", F64).pmf, 9, 1, 9)
    assert level == env.demand.quantile(0.9, 3), "F(S) >= b / (b + h)"
    assert -env.best[0] == pytest.approx(cost, abs=1e-7)


def renewal(mean, s, S, K=64.0, h=1.0, b=9.0):
    """Average cost of an (s, S) rule by the renewal argument of Zheng & Federgruen (1991), equations 2 to 4."""
    pmf = [math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(200)]
    m = [1 / (1 - pmf[0])]
    for j in range(1, S - s):
        m.append(sum(pmf[k] * m[j - k] for k in range(1, j + 1)) / (1 - pmf[0]))
    G = {y: sum(p * (h * max(y - k, 0) + b * max(k - y, 0)) for k, p in enumerate(pmf)) for y in range(s + 1, S + 1)}
    return (K + sum(m[j] * G[S - j] for j in range(S - s))) / sum(m)


@pytest.mark.parametrize(
    ("mean", "s", "S", "cost"), [(10.0, 6, 40, 35.0216), (15.0, 10, 49, None), (20.0, 14, 62, None)]
)
def test_the_best_s_S_and_what_it_costs(mean, s, S, cost):
    env = waiting(mean=mean)
    gain, policy = env.best
    level = torch.arange(len(policy)) + env.lowest
    orders = policy > 0
    assert int(level[orders].max()) == s and set((level + policy)[orders & (level >= 0)].tolist()) == {S}
    assert -gain == pytest.approx(renewal(mean, s, S), abs=1e-6)
    assert cost is None or -gain == pytest.approx(cost, abs=5e-5)
    neighbours = [renewal(mean, s + i, S + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert min(neighbours) == neighbours[4], "no rule beside it is better"


def simulated(env, policy, copies, periods, warm_up=50):
    """Average cost of a period of a policy of true states, in the env's own steps."""
    rng = torch.Generator().manual_seed(1)
    state, total = env.reset(copies, rng), 0.0
    for t in range(warm_up + periods):
        state, reward, _ = env.step(state, policy(state, rng), rng)
        total -= float(reward.mean()) if t >= warm_up else 0.0
    return total / periods


def test_the_optimal_policies_cost_the_optimum_when_played():
    assert simulated(lost(), lost().references()["optimal"], 4_000, 150) == pytest.approx(4.395, abs=0.03)
    late = waiting(lead_time=3)  # planned on positions, paid when orders arrive
    assert simulated(late, late.references()["optimal"], 4_000, 150) == pytest.approx(-late.best[0], rel=0.01)


def test_rules_are_tuned_against_the_same_demand(monkeypatch):
    monkeypatch.setattr(stock, "ROUNDS", ((16, 64, 24), (512, 64, 1)))
    env = Inventory(InventoryConfig(lead_time=1, capacity=20), "cpu")
    state, references = env.reset(1, None), env.references()
    state["pipeline"].fill_(0)
    level = int(references["base-stock"](state, None))
    assert average(lost(lead_time=1), lambda x: level - x.sum(1)) < 4.163 * 1.01
    assert int(references["constant-order"](state, None)) in (3, 4)
    # 7 of an empty store, all of them or the cap
    assert 5 <= int(references["capped-base-stock"](state, None)) <= 8
    rng = [torch.Generator().manual_seed(0) for _ in range(2)]
    alone, beside = torch.tensor([[12.0]]), torch.tensor([[3.0], [12.0]])
    rule = lambda x, p: p[:, 0] - x.sum(1)  # noqa: E731
    costs = [env.simulate(rule, grid, 8, 20, g) for grid, g in ((alone, rng[0]), (beside, rng[1]))]
    assert float(costs[0][0]) == float(costs[1][1])


@pytest.mark.parametrize(("how", "orders"), [("clip", [0, 4, 9]), ("refuse", [0, 4, 0])])
def test_orders_out_of_range_are_counted(how, orders):
    env = lost(lead_time=2, max_order=9, out_of_range=how, max_steps=3)
    vec = VecEnv(env, 3, "cpu")
    vec.reset(seed=0)
    vec.step(torch.tensor([-2, 4, 70]))
    assert vec.state["pipeline"][:, 1].tolist() == orders
    for _ in range(2):
        vec.step(torch.tensor([0, 0, 10]))
    assert env.metrics(vec.state)["out_of_range"].tolist() == [1, 0, 3]
    assert vec.statistics.take()["out_of_range_mean"] == pytest.approx(4 / 3)


def test_metrics_of_a_few_days():
    env = lost(lead_time=1)
    state = env.reset(1, None)
    for order, demand in ((5, 8), (0, 2), (0, 0), (3, 10)):  # stock 5, 5, 3, 3
        state, _, _ = env.advance(state, torch.tensor([order]), torch.tensor([float(demand)], dtype=F64))
    found = {name: float(value) for name, value in env.metrics(state).items()}
    assert found == {"served": pytest.approx(1 - (3 + 7) / 20), "ordered": 0.5, "out_of_range": 0}


@pytest.mark.parametrize("agent", ["value-iteration", "policy-iteration"])
@pytest.mark.parametrize("case", [*PUBLISHED, "(s, S)"])
def test_planners_reach_the_optimum_by_the_command_line(agent, case, tmp_path, capsys):
    settings, cost = PUBLISHED.get(case, ({}, 35.0216))
    words = [f"env.{key}={value}" for key, value in settings.items()]
    env = "inventory" if settings else "inventory-ss"
    words += ["env.max_steps=100", "eval.episodes=10", "threads=1", f"dir={tmp_path / 'x'}"]
    assert main(["run", f"agent={agent}", f"env={env}", *words]) == 0
    rows = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert -last["gain"] == pytest.approx(cost, abs=5e-4 if settings else 5e-5) and last["residual"] < 1e-8
    assert ", 1 copy, seed 0, " in capsys.readouterr().err
    (played,) = (row for row in rows if row["kind"] == "eval")
    assert -played["return_mean"] / 100 == pytest.approx(cost, rel=0.15)


def test_the_known_scores_hold():
    for env, name in ((lost(), "inventory"), (waiting(), "inventory-ss")):
        scores = {score.who: score.value for score in Registry().get("envs", name).scores}
        assert scores["optimum"] == pytest.approx(env.references()["optimum"].value, abs=0.06)
        assert scores["random"] / 1000 == pytest.approx(-simulated(env, env.random, 100, 1000, warm_up=0), rel=0.02)
    rules = {"capped-base-stock": lambda x: (17 - x.sum(1)).clamp(max=5), "base-stock": lambda x: 16 - x.sum(1)}
    known = {score.who: score.value for score in Registry().get("envs", "inventory").scores}
    for name, rule in rules.items():
        assert -known[name] / 1000 == pytest.approx(average(lost(), rule), abs=6e-4)


def test_evaluation_sees_the_same_cost():
    with seeding.fork(0, torch.device("cpu")):
        vec = VecEnv(Inventory(InventoryConfig(max_steps=200), "cpu"), 500, "cpu")
        games = evaluate.play(vec, evaluate.reference(vec, vec.env.references()["optimal"]), lambda n: None, 500)
    assert -sum(games["returns"]) / 500 / 200 == pytest.approx(4.395, rel=0.01)


SENTENCES = {
    "env.mean=-3": "env.mean=-3: must be greater than 0",
    "env.shortage=-1": "env.shortage=-1: must be greater than 0",
    "env.lead_time=-1": "env.lead_time=-1: must be greater than or equal to 0",
    "env.lead_time=1000": "env.lead_time=1000 is no shorter than an episode, so no order would ever arrive; write a "
    "lead time below env.max_steps=1000",
    "env.lead_time=4": "its model would have 89,567,296 entries, 123,032 states x 13 orders x 56 demands",
    "env.capacity=2": "env.capacity=2 holds less than half of a period's mean demand (5)",
    "env.demand=normal": "env.demand=normal",
    "env.out_of_range=ignore": "env.out_of_range=ignore",
}


WAITING = {
    "env.lead_time=3 env.capacity=15": "write env.capacity=0 or env.lead_time=0",
    "env.max_order=10": "a mean demand of env.mean=10 ever more customers would wait; write a larger one",
}


@pytest.mark.parametrize("words", WAITING)
def test_settings_that_no_waiting_customer_bears_are_one_sentence(words, tmp_path, capsys):
    assert main(["run", "agent=value-iteration", "env=inventory-ss", *words.split(), f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert WAITING[words] in said and said.count("\n") == 1


def test_a_rule_with_too_many_candidates_is_one_sentence(tmp_path, capsys):
    words = ["run", "env=inventory", "env.mean=20000", "eval.episodes=1", "env.max_steps=10"]
    assert main([*words, "agent=reference:random", f"dir={tmp_path / 'x'}"]) == 0
    capsys.readouterr()
    assert main([*words, "agent=reference:capped-base-stock", f"dir={tmp_path / 'y'}"]) == 2
    assert "candidates is too large to be tuned, 1,000,000 are the most" in capsys.readouterr().err


@pytest.mark.parametrize("word", SENTENCES)
def test_settings_that_cannot_be_are_one_sentence(word, tmp_path, capsys):
    assert main(["run", "agent=value-iteration", "env=inventory", word, f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert SENTENCES[word] in said and said.count("\n") == 1


def test_a_picture_shows_stock_orders_and_what_was_missed():
    pytest.importorskip("cv2")
    env = lost(lead_time=2)
    state = env.reset(1, None)
    pictures = []
    for order, demand in ((4, 2), (0, 9), (6, 3)):
        state, _, _ = env.advance(state, torch.tensor([order]), torch.tensor([float(demand)], dtype=F64))
        pictures.append(env.render(state, 0))
    again = env.render(state, 0)
    assert all(p.shape == (480, 720, 3) and p.dtype == np.uint8 for p in pictures)
    assert np.array_equal(again, pictures[2]) and not np.array_equal(pictures[1], pictures[2])

    def bars(picture, colour):
        """Columns of pixels below the legend that have the colour."""
        return sum((np.abs(picture[50:].astype(int) - colour).max(-1) < 3).any(0))

    assert bars(pictures[2], (240, 160, 60)) > 1.5 * bars(pictures[0], (240, 160, 60)) > 0, "two of three days ordered"
    assert bars(pictures[0], (214, 69, 65)) == 0 < bars(pictures[1], (214, 69, 65)), "1 customer of the second day left"
    fresh, _, _ = env.advance(env.reset(1, None), torch.tensor([4]), torch.tensor([2.0], dtype=F64))
    assert np.array_equal(env.render(fresh, 0), pictures[0]), "a new episode, a new chart"


def test_a_picture_of_a_store_that_owes():
    pytest.importorskip("cv2")
    env = waiting()
    state, _, _ = env.advance(env.reset(1, None), torch.tensor([0]), torch.tensor([40.0], dtype=F64))
    picture = env.render(state, 0).astype(int)
    legend = picture[10:48]
    assert (np.abs(picture[60:] - (214, 69, 65)).max(-1) < 3).any(), "the stock below zero is red"
    assert not (np.abs(legend[:, :60] - (214, 69, 65)).max(-1) < 3).any(), "and stays in its panel"


def test_who_pays_little_for_those_who_wait_lets_them_wait():
    """The best s lies below zero; the tuned rule finds it."""
    env = waiting(mean=3.0, order_cost=10.0, shortage=0.3)
    policy = env.best[1]
    assert int((policy > 0).nonzero().max()) + env.lowest < 0
    assert simulated(env, env.references()["s-S"], 2_000, 200) == pytest.approx(-env.best[0], rel=0.01)


def test_larger_orders_would_not_be_better():
    """Geometric demand, an expensive shortage: the default bound of an order leaves the optimum as it is."""
    for settings in ({"lead_time": 0, "shortage": 99.0}, {"lead_time": 1, "shortage": 199.0}):
        best, wide = (lost(demand="geometric", max_order=most, **settings).best[0] for most in (0, 45))
        assert best == pytest.approx(wide, abs=5e-4)


def test_averages_that_do_not_settle_are_an_error():
    turns = lost(lead_time=1).model()
    with pytest.raises(ValueError, match="3 sweeps left a residual of"):
        best_average(turns, sweeps=3)
