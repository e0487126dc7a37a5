"""The store with many items by hand and beside a literal one, its rules, its bound beside a linear programme."""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import rlgan
from rlgan.cli.main import main
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.registry import Registry
from rlgan.testing import EnvConformance, check_env
from rlgan_envs import multi_bound, multi_rules, multi_series
from rlgan_envs.inventory_multi import InventoryMulti
from rlgan_envs.multi_store import GRID, InventoryMultiConfig
from rlgan_envs.stock_picture import LEFT, WIDTH, Chart

F64 = torch.float64
HEADER = "date,sku,demand,price,cost,lead_time"


@pytest.fixture(autouse=True)
def small_budgets(monkeypatch):
    monkeypatch.setattr(multi_rules, "WINDOWS", 4)
    monkeypatch.setattr(multi_bound, "WINDOWS", 2)


class TestInventoryMulti(EnvConformance):
    env = "inventory-multi"
    config = InventoryMultiConfig(skus=3)


def test_continuous_orders_keep_the_contract():
    check_env("inventory-multi", InventoryMultiConfig(skus=3, actions="continuous"))


def written(path, demand, terms, start="2025-01-01", promotion=None):
    """A file of demand (T, K) with terms (price, cost, lead time, volume) of each item."""
    first = np.datetime64(start)
    lines = [HEADER + ",volume,promotion"]
    for k, (price, cost, lead_time, volume) in enumerate(terms):
        for t, units in enumerate(demand[:, k]):
            promoted = 0 if promotion is None else promotion[t, k]
            lines.append(f"{first + t},item{k},{units},{price},{cost},{lead_time},{volume},{promoted}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def shop(tmp_path, demand, terms, **settings):
    settings = {"lookback": 2, "days": "all", "max_steps": len(demand) - 2, "actions": "continuous"} | settings
    return InventoryMulti(InventoryMultiConfig(csv=written(tmp_path / "d.csv", demand, terms), **settings), "cpu", F64)


def ordered(env, state, units):
    """The action of so many units (K,) of each item."""
    return env.action(torch.tensor([units], dtype=F64), env.means(state["day"]))


TERMS = [(10.0, 6.0, 1, 1.0), (5.0, 4.0, 2, 2.0)]


def test_three_days_by_hand(tmp_path):
    demand = np.array([[4, 2], [4, 2], [3, 5], [6, 0], [1, 1]])
    env = shop(tmp_path, demand, TERMS, capacity=20.0)
    state = env.reset(1, None)
    assert state["stock"].tolist() == [[4, 2]] and state["coming"].tolist() == [[[4, 0], [2, 2]]]
    # 3 of 4 and 2 of 5 are sold; 4 and 2 arrive; 5 of the first are ordered, to come tomorrow evening
    state, reward, terminated = env.step(state, ordered(env, state, [5, 0]), None)
    assert state["stock"].tolist() == [[1 + 4, 0 + 2]] and state["coming"].tolist() == [[[5, 0], [2, 0]]]
    assert float(reward) == pytest.approx(3 * 4 + 2 * 1 - 0.1 * 3 * 1 - 10 - 0.003 * 5 - 0.005 * 2)
    # 5 of 6 are sold; 5 and 2 arrive, 9 units of volume where 20 - 0 - 4 are free
    state, reward, terminated = env.step(state, ordered(env, state, [9, 9]), None)
    assert state["stock"].tolist() == [[5, 4]] and state["coming"].tolist() == [[[9, 0], [0, 9]]]
    assert float(reward) == pytest.approx(5 * 4 - 0.1 * 1 * 4 - 20 - 0.003 * 5 - 0.005 * 4)
    # 1 and 1 are sold, 4 and 3 x 2 = 10 of 20 stay; 9 arrive
    state, reward, terminated = env.step(state, ordered(env, state, [0, 0]), None)
    assert state["stock"].tolist() == [[13, 3]] and not terminated.any()
    found = {name: float(value) for name, value in env.metrics(state).items()}
    assert found == {"served": pytest.approx(1 - 4 / 16), "lines": 3 / 6, "overflow": 0, "out_of_range": 0}


def test_deliveries_that_do_not_fit_shrink_by_one_ratio(tmp_path):
    env = shop(tmp_path, np.full((5, 2), 1), TERMS, capacity=20.0)
    after = env.evening(*(torch.tensor(x, dtype=F64) for x in ([4, 3], [[9, 0], [5, 0]], [0, 0], [2, 0])), 20.0)
    # 2 + 3 x 2 are taken, 12 are free, 9 + 5 x 2 = 19 arrive: 12 / 19 of each, in whole units
    assert after.stock.tolist() == [2 + 5, 3 + 3] and after.excess.tolist() == [4, 2]
    earned = [2 * 4 - 0.5 * 6 * 4 - 0.003 * 7, -0.5 * 4 * 2 - 0.005 * 6]
    assert after.earned.tolist() == pytest.approx(earned)
    # without the first's 9 all of the second's 10 fit, without the second's the first's 9 do
    pushed = 1 - 12 / 19
    assert after.part.tolist() == pytest.approx([earned[0] - 20 * 0.5 * pushed, earned[1] - 54 * 0.5 * pushed])
    after = env.evening(*(torch.tensor(x, dtype=F64) for x in ([4, 3], [[9, 0], [5, 0]], [0, 0], [2, 0])), 12.0)
    # 4 are free for 19, for 10 without the first's delivery, for 9 without the second's
    pushed = 4 / 10 - 4 / 19, 4 / 9 - 4 / 19
    parts = [float(after.earned[0]) - 20 * 0.5 * pushed[0], float(after.earned[1]) - 54 * 0.5 * pushed[1]]
    assert after.part.tolist() == pytest.approx(parts)


class Storekeeper:
    """One store in plain Python, item by item and unit by unit, with a calendar of deliveries."""

    def __init__(self, demand, terms, capacity, lookback):
        self.demand, self.terms, self.capacity, self.lookback = demand, terms, capacity, lookback
        self.day, self.calendar = lookback, {}
        self.shelf = [math.floor(sum(demand[:lookback, k]) / lookback) for k in range(len(terms))]
        for k, (_, _, lead_time, _) in enumerate(terms):
            for ahead in range(lead_time):
                self.calendar[self.day + ahead, k] = self.shelf[k]

    def live(self, times):
        profit, arriving = 0.0, {}
        for k, (price, cost, lead_time, _) in enumerate(self.terms):
            mean = sum(self.demand[self.day - self.lookback : self.day, k]) / self.lookback
            units = math.floor(times[k] * mean)
            if units:
                profit -= 10
                self.calendar[self.day + lead_time, k] = self.calendar.get((self.day + lead_time, k), 0) + units
            for _ in range(self.demand[self.day, k]):
                if self.shelf[k]:
                    self.shelf[k] -= 1
                    profit += price - cost
                else:
                    profit -= 0.1 * (price - cost)
            arriving[k] = self.calendar.pop((self.day, k), 0)
        free = self.capacity - sum(units * self.terms[k][3] for k, units in enumerate(self.shelf))
        volume = sum(units * self.terms[k][3] for k, units in arriving.items())
        for k, (_, cost, _, room) in enumerate(self.terms):
            taken = arriving[k] if volume <= free else math.floor(arriving[k] * (free / volume))
            profit -= 0.5 * cost * (arriving[k] - taken)
            self.shelf[k] += taken
            profit -= (0.001 + 0.002 * room) * self.shelf[k]
        self.day += 1
        return profit


@pytest.mark.parametrize("actions", ["grid", "continuous"])
def test_a_literal_storekeeper_lives_through_the_same_days(tmp_path, actions):
    rng = np.random.default_rng(3)
    terms = [(10.0, 6.0, 0, 1.0), (5.0, 4.0, 2, 2.0), (7.0, 3.0, 3, 0.5), (9.0, 1.0, 1, 1.5)]
    demand = rng.poisson((3, 9, 6, 12), (90, 4))
    env = shop(tmp_path, demand, terms, capacity=90.0, lookback=7, max_steps=80, actions=actions)
    state, keeper = env.opening(torch.tensor([7])), Storekeeper(demand, terms, 90.0, 7)
    overflowed = 0.0
    for _ in range(80):
        pick = rng.integers(0, len(GRID) - 4, 4) * (rng.random(4) < 0.4)
        times = np.array(GRID)[pick] if actions == "grid" else pick / 9.7
        action = torch.tensor(pick if actions == "grid" else times)[None]
        state, reward, _ = env.step(state, action, None)
        assert float(reward) == pytest.approx(keeper.live(times), abs=1e-9)
        assert state["stock"][0].tolist() == keeper.shelf
        overflowed = float(state["excess"])
    assert overflowed > 0 and env.observe(state).isfinite().all()


def test_what_an_observation_shows(tmp_path):
    demand = np.array([[4, 2], [4, 2], [3, 5], [6, 0], [1, 1], [2, 2], [0, 3]])
    promotion = np.zeros_like(demand)
    promotion[3, 0] = 1
    path = written(tmp_path / "p.csv", demand, TERMS, "2025-01-04", promotion)  # a Saturday
    env = InventoryMulti(
        InventoryMultiConfig(csv=path, days="all", lookback=2, max_steps=5, capacity=20.0, actions="continuous"), "cpu"
    )
    state, _, _ = env.step(env.opening(torch.tensor([2])), torch.zeros(1, 2), None)
    seen = env.observe(state)[0, 0].tolist()
    assert seen == pytest.approx(
        [
            *(5 / 4.5, 0, 0, 4 / 4.5, 3 / 4.5),
            *(0, 1, 0, 0, 0, 0, 0),  # Tuesday
            *(1, 0, 0, 0, 0, 0, 0),  # promoted today
            *(0.4, 0.5, 0.1, 4.5 / 10, math.log(4.5), 18 / env.unit, 10 / 18, 0.3 / 4, 9 / 20, 4 / 20),
            (3 * 4 - 0.003 * 5) / env.unit,
        ]
    )


def test_episodes_lie_on_their_days():
    def starts(days):
        env = InventoryMulti(InventoryMultiConfig(skus=2, days=days), "cpu")
        found = env.reset(20_000, torch.Generator().manual_seed(0))["day"]
        return int(found.min()), int(found.max()), env.train

    (low, high, train), (test_low, test_high, also) = starts("train"), starts("test")
    assert train == also == (21, 7_900) and 21 <= low < 30 and 7_880 < high <= 7_900
    assert 8_000 <= test_low < 8_020 and 9_880 < test_high <= 9_900


@pytest.mark.parametrize("actions", ["grid", "continuous"])
@pytest.mark.parametrize("how", ["clip", "refuse"])
def test_orders_out_of_range_are_counted(how, actions):
    env = InventoryMulti(InventoryMultiConfig(skus=3, actions=actions, out_of_range=how, max_steps=4), "cpu")
    vec = VecEnv(env, 1, "cpu")
    vec.reset(seed=0)
    mean = env.means(vec.state["day"])
    top = len(GRID) if actions == "grid" else 12.5
    vec.step(torch.tensor([[-1, top, 1]]))
    sent = (0.0, 12.0, GRID[1]) if actions == "grid" else (0.0, 12.0, 1.0)
    sent = (0.0, 0.0, sent[2]) if how == "refuse" else sent
    assert float(vec.state["order"]) == float((torch.tensor([sent]) * mean).floor().sum())
    assert env.metrics(vec.state)["out_of_range"].tolist() == [2]
    if actions == "continuous":
        vec.step(torch.tensor([[math.nan, 0.0, 0.0]]))
        assert float(vec.state["order"]) == 0 and env.metrics(vec.state)["out_of_range"].tolist() == [3]


@pytest.mark.parametrize("actions", ["grid", "continuous"])
def test_an_action_orders_the_units_that_were_meant(actions):
    env = InventoryMulti(InventoryMultiConfig(skus=4, actions=actions), "cpu")
    mean = env.means(torch.arange(100, 300))
    units = (mean * 3).floor() * torch.tensor([0, 1, 1, 0.5])
    order, odd = env.orders(env.action(units, mean), mean)
    apart = (order - units.floor()).abs() / mean
    assert not odd.any() and float(apart.max()) <= (0.0 if actions == "continuous" else 0.6)


def earned(env, policy, day):
    state, total = env.opening(day), torch.zeros(len(day), dtype=env.dtype)
    for _ in range(env.max_steps):
        state, reward, _ = env.step(state, policy(state, None), None)
        total += reward
    return total


def test_tuning_counts_what_the_env_pays_and_finds_the_best():
    env = InventoryMulti(InventoryMultiConfig(skus=4, capacity=250.0, max_steps=60), "cpu", F64)
    day = torch.linspace(*env.train, multi_rules.WINDOWS).long()
    grid = torch.cartesian_prod(torch.tensor([1.0, 2, 3, 4], dtype=F64), torch.tensor([1.0, 3], dtype=F64))
    best, value = multi_rules.tune(env, multi_rules.reorder, grid)

    def played(parameters):
        def policy(state, rng):
            held = state["stock"], state["coming"]
            return multi_rules.decide(env, multi_rules.reorder, parameters, *held, env.means(state["day"]))

        return float(earned(env, policy, day).mean())

    assert value == pytest.approx(played(best))
    every = [played(p.expand(4, 2)) for p in grid]
    assert value >= max(every) - 1e-6, "items of their own do no worse than one pair for all"
    without_walls = multi_rules.simulate(env, multi_rules.reorder, grid[:, None, None], day, math.inf)[0]
    free = InventoryMulti(InventoryMultiConfig(skus=4, capacity=1e9, max_steps=60), "cpu", F64)
    alone, _ = multi_rules.tune(free, multi_rules.reorder, grid)
    assert torch.equal(alone, grid[without_walls.argmax(0)])


def test_rules_stand_in_order():
    env = InventoryMulti(InventoryMultiConfig(skus=8), "cpu")
    references = env.references()
    day = torch.linspace(env.first, env.last, 16).long()
    names = "random", "base-stock", "capped-base-stock", "s-S"
    found = [float(earned(env, references[name], day).mean()) for name in names]
    assert found[0] < 0 < found[1] <= found[2] * 1.01 and found[2] < found[3] < references["clairvoyant"].value


def programme(env, day):
    """The bound as one linear programme, by scipy."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix

    T, opening = env.max_steps, env.opening(torch.tensor([day]))
    units = torch.cat((opening["stock"][..., None], opening["coming"]), -1)[0].tolist()
    demand = env.demand[day : day + T].T.tolist()
    gain, rows, limit = [], [], []
    room = {u: {} for u in range(T)}

    def variable(value):
        gain.append(value)
        return len(gain) - 1

    def constraint(terms, most):
        rows.append(terms)
        limit.append(most)

    constant = 0.0
    for k, lead_time in enumerate(env.lead_time.tolist()):
        margin, holding, volume = (float(x[k]) for x in (env.margin, env.holding, env.volume))
        constant -= 0.1 * margin * sum(demand[k])
        served = {t: {} for t in range(T)}
        sources = [(s - 1, units[k][s], None) for s in range(len(units[k]))]
        sources += [(a, None, variable(-10.0)) for a in range(lead_time, T - 1)]
        for evening, most, opened in sources:
            given = {}
            for t in range(evening + 1, T):
                held = range(max(evening, 0), t)
                x = variable(1.1 * margin - holding * len(held))
                served[t][x] = given[x] = 1.0
                for u in held:
                    room[u][x] = volume
                if opened is not None:
                    constraint({x: 1.0, opened: -demand[k][t]}, 0.0)
            if most is not None:
                constraint(given, most)
        for t in range(T):
            constraint(served[t], demand[k][t])
    for u in range(T):
        constraint(room[u], env.capacity)
    entries = [(r, x, w) for r, terms in enumerate(rows) for x, w in terms.items()]
    r, x, w = zip(*entries, strict=True)
    matrix = coo_matrix((w, (r, x)), (len(rows), len(gain)))
    return constant - linprog(-np.array(gain), matrix, limit).fun


def test_the_bound_is_that_of_the_linear_programme():
    env = InventoryMulti(InventoryMultiConfig(skus=4, max_steps=14, capacity=130.0), "cpu", F64)
    found = multi_bound.bound(env, torch.tensor([100, 900]), rounds=400)
    for value, day in zip(found.tolist(), (100, 900), strict=True):
        exact = programme(env, day)
        assert exact - 1e-6 <= value <= exact * 1.002


def test_nobody_earns_more_than_the_bound(tmp_path):
    """Every sequence of orders of one item, and the bound."""
    demand = np.array([[3], [3], [4], [2], [9], [1], [5]])
    env = shop(tmp_path, demand, [(20.0, 12.0, 1, 1.0)], capacity=9.0)
    most = float(multi_bound.bound(env, torch.tensor([2]), rounds=300))
    plans = torch.tensor(list(itertools.product((0, 2, 5, 6, 9), repeat=5)), dtype=F64)
    state = env.opening(torch.full((len(plans),), 2))
    total = torch.zeros(len(plans), dtype=F64)
    for t in range(5):
        state, reward, _ = env.step(state, env.action(plans[:, t : t + 1], env.means(state["day"])), None)
        total += reward
    assert total.max() <= most <= float(total.max()) + 25


def test_lead_times_and_days_that_do_not_fit(tmp_path, capsys):
    words = ["run", "agent=random", "env=inventory-multi", f"dir={tmp_path / 'x'}"]
    assert main([*words, "env.max_steps=3"]) == 2
    assert "lead times of up to 3 days are no shorter than an episode" in capsys.readouterr().err
    assert main([*words, "env.max_steps=9000", "env.days=test"]) == 2
    assert "the made-up series has 10000 days, and an episode of env.max_steps=9000" in capsys.readouterr().err


def test_room_for_less_than_a_day_is_not_taken_for_granted(tmp_path):
    demand = np.full((30, 2), 90_000)
    with pytest.raises(UsageError, match=r"takes 270,000 units of volume, and .* for 200, .* env.capacity=1400000$"):
        shop(tmp_path, demand, [(5, 3, 1, 1), (5, 3, 1, 2)])
    assert shop(tmp_path, demand, [(5, 3, 1, 1), (5, 3, 1, 2)], capacity=150.0).capacity == 150, "asked for"
    assert shop(tmp_path, np.full((30, 2), 99), [(5, 3, 1, 1)] * 2).capacity == 200
    for instance in range(20):
        assert InventoryMulti(InventoryMultiConfig(skus=1, instance=instance), "cpu").capacity == 100


def test_a_run_is_not_judged_on_other_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demand = np.random.default_rng(0).poisson(5, (60, 2))
    terms = [(4.5, 2.8, 2, 1), (3, 2, 1, 1)]
    written(tmp_path / "d.csv", demand, terms)
    own = {"env.csv": "d.csv", "env.max_steps": 10, "env.lookback": 5, "agent.rows": True, "agent.horizon": 10}
    words = {"copies": 4, "steps": 80, "eval.episodes": 2, "agent.minibatch": 20, "threads": 1, "dir": "x"}
    finished = rlgan.run(agent="ppo", env="inventory-multi", **own, **words)
    capsys.readouterr()
    assert main(["eval", "x", "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)["protocol"]
    assert "data:sha256=" in judged and finished.evaluation["protocol"] == judged
    as_it_was = multi_series.read("d.csv", 10).demand
    written(tmp_path / "d.csv", demand + 1, terms)
    capsys.readouterr()
    for command in ("eval", "watch", "resume"):
        assert main([command, "x"]) == 2
        said = capsys.readouterr().err
        assert "the run in x was trained on data of 'sha256=" in said.splitlines()[-1]
        assert "(env.csv=d.csv): put back what was there" in said
    with pytest.raises(UsageError, match="and env=inventory-multi now has data of 'sha256="):
        rlgan.load("x")
    written(tmp_path / "d.csv", as_it_was.astype(int), terms)
    assert main(["eval", "x"]) == 0 and rlgan.load("x")


def test_each_row_is_an_actor_of_ppo(tmp_path):
    words = {"agent.horizon": 10, "agent.minibatch": 20, "eval.episodes": 2, "env.skus": 3, "env.max_steps": 20}
    rows = {"agent": "ppo", "env": "inventory-multi", "steps": 200, "copies": 4, "agent.rows": True, **words}
    finished = rlgan.run(**rows, threads=1, dir=tmp_path / "x")
    assert -1e6 < finished.evaluation["return_mean"] < 1e6
    policy = rlgan.load(finished)
    obs = np.random.default_rng(0).random((2, 3, 50), np.float32)
    action = policy(obs)
    assert action.shape == (2, 3)
    assert np.array_equal(policy(obs[:, ::-1]), action[:, ::-1]), "the same network for every row"
    with pytest.raises(UsageError, match=r"agent\.rows=true takes observations \(K, F\)"):
        rlgan.run(agent="ppo", env="cartpole", steps=200, dir=tmp_path / "y", **{"agent.rows": True})


def test_a_picture_shows_the_whole_store():
    pytest.importorskip("cv2")
    env = InventoryMulti(InventoryMultiConfig(skus=3), "cpu")
    state, pictures = env.opening(torch.tensor([30])), []
    for times in (33, 0):
        state, _, _ = env.step(state, torch.full((1, 3), times), None)
        pictures.append(env.render(state, 0))

    def orange(picture):
        return int(seen(picture, (240, 160, 60)).any(0).sum())

    assert pictures[0].shape == (480, 720, 3)
    assert orange(pictures[0]) > 0 and orange(pictures[1]) == orange(pictures[0]), "orders on the first day alone"


def seen(picture, colour):
    """Where a picture's pixels below the legend have the colour, (H, W)."""
    return np.abs(picture[50:].astype(int) - colour).max(-1) < 3


def test_a_picture_shows_how_much_was_not_met():
    """A red bar hangs from the demand as far down as was not met: hardly any for one unit of a thousand."""
    pytest.importorskip("cv2")
    red, day = (214, 69, 65), {"pipeline": [50.0, 0.0], "order": 0.0, "demand": 1000.0}
    lengths = []
    for missed in (1.0, 250.0, 1000.0):
        chart = Chart()
        chart.draw({**day, "periods": 1, "short": 0.0})
        lengths.append(int(seen(chart.draw({**day, "periods": 2, "short": missed}), red).any(1).sum()))
    assert lengths[0] == 0 and 3 < lengths[1] < lengths[2] / 3


def test_large_units_fit_in_their_places():
    cv2 = pytest.importorskip("cv2")
    words, put = [], cv2.putText

    def spelled(frame, text, place, font, size, *more, **style):
        words.append((place[0], place[1], cv2.getTextSize(text, font, size, 1)[0][0], text))
        return put(frame, text, place, font, size, *more, **style)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "putText", spelled)
        day = {"pipeline": [-1.536e6, 564_267.0], "order": 400_207.0, "demand": 275_000.0}
        chart = Chart()
        chart.draw({**day, "periods": 1, "short": 0.0})
        words.clear()
        chart.draw({**day, "periods": 2, "short": 12.3e6})
    legend = sorted(word for word in words if word[1] < 50)
    texts = ["stock -1.54M", "under way 564k", "order 400k", "demand 275k", "not met 12.3M"]
    assert [text for *_, text in legend] == texts
    assert all(x + length < following for (x, _, length, _), (following, *_) in itertools.pairwise(legend))
    assert legend[-1][0] + legend[-1][2] <= WIDTH
    assert all(x + length <= LEFT for x, y, length, _ in words if x < LEFT and y > 50), "left of the bars"


def test_the_known_scores_hold():
    scores = {score.who: score.value for score in Registry().get("envs", "inventory-multi").scores}
    env = InventoryMulti(InventoryMultiConfig(), "cpu")
    day = torch.linspace(env.first, env.last, 64).long()
    rng = torch.Generator().manual_seed(0)
    random = earned(env, lambda state, _: env.references()["random"](state, rng), day).mean()
    assert scores["random"] == pytest.approx(float(random), rel=0.03)
    assert scores["base-stock"] < scores["s-S"] < scores["clairvoyant bound"]


def test_the_examples_of_the_page_run_as_they_stand(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parent.parent / "docs" / "envs" / "inventory.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"^```csv\n(.*?)^```$", page, re.M | re.S)
    score, learn, use = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    lengths = [sum(bool(line.strip()) for line in snippet.splitlines()) for snippet in (learn, use)]
    assert lengths == [5, 10] and sample.startswith(HEADER + "\n")
    monkeypatch.chdir(tmp_path)
    Path("sample.csv").write_text(sample)
    assert multi_series.read("sample.csv", 100).demand.tolist() == [[12], [9]]
    demand = np.random.default_rng(0).poisson((12, 7, 3), (500, 3))
    written(Path("demand.csv"), demand, [(4.5, 2.8, 2, 1), (3, 2, 1, 1), (9, 5, 3, 2)])
    exec(compile(learn, "docs/envs/inventory.md", "exec"), {})
    learned, rule = map(float, capsys.readouterr().out.split())
    assert learned < rule
    exec(compile(use, "docs/envs/inventory.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 60 and re.fullmatch(r"59 \{'item0': \d+, 'item1': \d+, 'item2': \d+\}", lines[59])
    few = {"steps": 400, "copies": 4, "agent.horizon": 50, "agent.minibatch": 100, "eval.episodes": 1}
    rlgan.run(agent="ppo", env="inventory-multi", dir="runs/multi", **few)
    capsys.readouterr()
    exec(compile(score, "docs/envs/inventory.md", "exec"), {})
    mean, error = (float(number.replace(",", "")) for number in capsys.readouterr().out.split(" +- "))
    assert -1e6 < mean < 437_600 and 0 < error < 20_000
