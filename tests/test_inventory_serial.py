"""The chain by hand, beside a literal one and OR-Gym's; its bound beside plans that are played; its rule."""

import itertools
import sys

import gymnasium
import numpy as np
import pytest
import torch

from rlgan.cli.main import main
from rlgan.core.vec import VecEnv
from rlgan.registry import Registry
from rlgan.testing import EnvConformance
from rlgan_envs import serial_rules
from rlgan_envs.inventory_serial import InventorySerial
from rlgan_envs.serial_chain import InventorySerialConfig

F64 = torch.float64


class TestInventorySerial(EnvConformance):
    env = "inventory-serial"


def chain(**settings):
    return InventorySerial(InventorySerialConfig(**settings), "cpu", F64)


def tensor(*values):
    return torch.tensor([values], dtype=F64)


@pytest.mark.parametrize("waits", [True, False])
def test_three_periods_by_hand(waits):
    terms = {"start": (5, 9), "lead_times": (1, 0), "capacities": (6, 8), "holding": (0.5, 0.25)}
    env = chain(**terms, shortage=(1.0, 0.2, 0.1), discount=0.5, mean=4.0, max_steps=10, waits=waits)
    state = env.reset(1, None)
    # 6 of 9 are shipped to the shop and 3 to the depot, at once; 4 of 5 are sold
    state, reward, _ = env.advance(state, tensor(6, 3), torch.tensor([4.0], dtype=F64))
    assert state["stock"].tolist() == [[1, 6]] and state["coming"].tolist() == [[[6], [0]]]
    assert float(reward) == 2 * 4 - 0.5 * 3 - 0.5 * 1 - 0.25 * 6
    # the 6 come, 7 of 9 are served; the shop asks for 6 and gets them, the depot for 8
    state, reward, _ = env.advance(state, tensor(6, 8), torch.tensor([9.0], dtype=F64))
    assert state["stock"].tolist() == [[0, 8]] and state["coming"].tolist() == [[[6], [0]]]
    assert float(reward) == 0.5 * (2 * 7 - 0.5 * 8 - 1.0 * 2 - 0.25 * 8)
    # the shop asks for 6 and the 2 who wait come first; the depot holds 8 and the source sends nothing
    state, reward, _ = env.advance(state, tensor(6, 0), torch.tensor([9.0], dtype=F64))
    unmet = 5 if waits else 3
    assert state["stock"].tolist() == [[0, 2]] and state["waiting"].tolist() == [[5.0 if waits else 0.0, 0, 0]]
    assert float(reward) == 0.25 * (2 * 6 - 1.0 * unmet - 0.25 * 2)
    # 6 are asked for, 2 are there
    state, reward, _ = env.advance(state, tensor(6, 0), torch.tensor([0.0], dtype=F64))
    assert state["waiting"].tolist() == [[0, 4.0 if waits else 0.0, 0]] and state["stock"][0, 1] == 0
    served = 5 if waits else 0
    assert float(reward) == pytest.approx(0.125 * (2 * served - 0.2 * 4 - 0.5 * (6 - served)))
    # the depot has nothing, so 1 more waits or is lost
    following, _, _ = env.advance(state, tensor(1, 0), torch.tensor([0.0], dtype=F64))
    assert following["order"].tolist() == [[1, 0]]
    assert following["waiting"].tolist() == [[0, 5.0 if waits else 0.0, 0]]
    # of each stage's customers: 2, then 5 or 3 of 9 found nothing; 4 of 6 units and the 1 were not there
    assert following["short"].tolist() == [[2 + (5 if waits else 3), 4 + 1, 0]]
    assert float(env.metrics(state)["served"]) == pytest.approx(1 - (2 + (5 if waits else 3)) / 22)


class Links:
    """One chain in plain Python: parcels with a day of arrival."""

    def __init__(self, c):
        self.c, self.day, self.parcels = c, 0, []
        self.shelf, self.owed = list(c.start), [0] * (len(c.start) + 1)

    def live(self, orders, customers):
        c, last = self.c, len(self.shelf) - 1
        at_dawn, profit = list(self.shelf), 0.0
        unmet = []
        for k, order in enumerate(orders):
            wanted = order + self.owed[k + 1]
            sent = min(wanted, c.capacities[k], at_dawn[k + 1] if k < last else wanted)
            unmet.append(wanted - sent)
            self.parcels.append((self.day + c.lead_times[k], k, sent))
            if k < last:
                self.shelf[k + 1] -= sent
            else:
                profit -= c.cost * sent
        for day, k, units in self.parcels:
            self.shelf[k] += units * (day == self.day)
        queue = customers + self.owed[0]
        served = min(queue, self.shelf[0])
        self.shelf[0] -= served
        unmet.insert(0, queue - served)
        profit += c.price * served - sum(h * x for h, x in zip(c.holding, self.shelf, strict=True))
        profit -= sum(k * u for k, u in zip(c.shortage, unmet, strict=True))
        self.owed = unmet if c.waits else [0] * len(unmet)
        self.day += 1
        return profit * c.discount ** (self.day - 1)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("terms", [{}, {"lead_times": (0, 2, 1), "start": (9, 40, 10), "capacities": (25, 30, 22)}])
def test_a_literal_chain_lives_through_the_same_periods(waits, terms):
    env, rng = chain(waits=waits, **terms), np.random.default_rng(0)
    state, links = env.reset(4, None), [Links(env.config) for _ in range(4)]
    for _ in range(30):
        orders, customers = rng.integers(0, 22 + 30 * rng.random(), (4, 3)), rng.poisson(20, 4)
        orders = np.minimum(orders, env.config.capacities)
        state, reward, _ = env.advance(state, torch.tensor(orders), torch.tensor(customers, dtype=F64))
        for i, link in enumerate(links):
            assert float(reward[i]) == pytest.approx(link.live(orders[i].tolist(), int(customers[i])), abs=1e-9)
            assert state["stock"][i].tolist() == link.shelf and state["waiting"][i].tolist() == link.owed


@pytest.mark.parametrize("waits", [True, False])
def test_or_gyms_chain_pays_the_same(waits, monkeypatch):
    """The same stocks, backlogs and profits from the same orders and demand."""
    for name, module in {"gym": gymnasium, "gym.spaces": gymnasium.spaces, "gym.utils": gymnasium.utils}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    theirs = pytest.importorskip("or_gym.envs.supply_chain.inventory_management")
    rng = np.random.default_rng(1)
    for _ in range(5):
        demand = rng.poisson(20, 30)
        other = theirs.InvManagementMasterEnv(backlog=waits, dist=5, user_D=demand)
        env = chain(waits=waits)
        state = env.reset(1, None)
        for t in range(30):
            order = rng.integers(0, 60, 3)
            state, reward, _ = env.advance(state, torch.tensor(order[None]), torch.tensor(demand[None, t], dtype=F64))
            _, paid, _, _ = other.step(order)
            assert float(reward) == pytest.approx(paid, abs=1e-9)
            assert state["stock"][0].tolist() == other.I[t + 1].tolist()
            assert state["waiting"][0].tolist() == other.B[t].tolist()


def played(env, orders, demand):
    """What an episode earns with orders (T, M), or by a rule of the state, against demand (T,)."""
    state, total = env.reset(1, None), 0.0
    for t, units in enumerate(demand):
        action = orders(state) if callable(orders) else torch.tensor(orders[t][None])
        state, reward, _ = env.advance(state, action, torch.tensor([float(units)], dtype=F64))
        total += float(reward)
    return total


@pytest.mark.parametrize("waits", [True, False])
def test_the_plan_of_who_knows_demand_is_played_and_not_beaten(waits):
    pytest.importorskip("scipy")
    env, rng = chain(waits=waits), np.random.default_rng(2)
    for _ in range(3):
        demand = rng.poisson(20, 30)
        value, orders = serial_rules.plan(env, demand.astype(float))
        assert np.allclose(orders, orders.round(), atol=1e-6), "whole units"
        assert played(env, orders.round(), demand) == pytest.approx(value, abs=1e-6)
        for level in ((91, 212, 415), (70, 200, 400), (120, 250, 300)):
            levels = torch.tensor(level, dtype=F64)
            assert played(env, lambda state, z=levels: serial_rules.orders(env, z, state), demand) < value
        for scale in (0.5, 1.0, 1.5):
            assert played(env, (orders * scale * rng.uniform(0.5, 1.5, orders.shape)).round(), demand) < value


def test_a_short_chain_has_no_better_plan():
    """Every sequence of orders of one stage."""
    pytest.importorskip("scipy")
    terms = {"start": (3,), "lead_times": (1,), "capacities": (4,), "holding": (0.3,), "shortage": (0.4, 0.1)}
    for waits in (True, False):
        env = chain(**terms, mean=2.0, max_steps=4, waits=waits)
        demand = np.array([2.0, 4, 1, 3])
        plans = itertools.product(range(5), repeat=4)
        best = max(played(env, np.array(orders, float)[:, None], demand) for orders in plans)
        assert serial_rules.plan(env, demand)[0] == pytest.approx(best)


def test_base_stock_orders_up_to_its_levels():
    env = chain()
    state = {**env.reset(1, None), "stock": tensor(10, 30, 200), "waiting": tensor(4, 0, 7, 0)}
    state["coming"] = torch.zeros(1, 3, 10, dtype=F64)
    state["coming"][0, :, 0] = torch.tensor([5, 20, 40])
    # echelons hold 10 + 5 - 4, then 50 more, then 240 more; 7 that wait are asked for already
    found = serial_rules.orders(env, tensor(31, 100, 371), state)
    assert found.tolist() == [[20, 39 - 7, 70]]
    assert serial_rules.orders(env, tensor(91, 1e4, 0), state).tolist() == [[30, 90 - 7, 0]]


def test_the_search_finds_levels_that_no_neighbour_beats(monkeypatch):
    env = chain(
        start=(10,), lead_times=(2,), capacities=(40,), holding=(1.0,), shortage=(9.0, 0.0), price=1e-9, cost=0.0
    )
    long = InventorySerial(type(env.config)(**{**vars(env.config), "max_steps": 400, "discount": 1.0}), "cpu", F64)
    levels, value = serial_rules.search(long)
    # without limits that bind the newsvendor's fractile of demand in L + 1 periods is best
    assert abs(int(levels) - long.demand.quantile(0.9, 3)) <= 1
    again = serial_rules.simulate(long, levels[None], 64, torch.Generator().manual_seed(9))
    assert float(again) == pytest.approx(value, rel=0.03)


def test_orders_out_of_range_are_counted():
    for how, kept in (("clip", [100, 0, 7]), ("refuse", [0, 0, 7])):
        env = InventorySerial(InventorySerialConfig(out_of_range=how), "cpu")
        vec = VecEnv(env, 1, "cpu")
        vec.reset(seed=0)
        vec.step(torch.tensor([[101.0, -3.0, 7.2]]))
        assert vec.state["order"][0].tolist() == kept
        assert env.metrics(vec.state)["out_of_range"].tolist() == [2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["env.holding=[0.1,0.2]"],
            "env.start 3, env.lead_times 3, env.capacities 3, env.holding 2 and env.shortage 4",
        ),
        (["env.lead_times=[3,5,30]"], "env.lead_times has 30, which is no shorter than an episode"),
        (["env.lead_times=[3,-5,3]"], "env.lead_times=[3,-5,3]"),
        (["env.capacities=[3,0,3]"], "env.capacities has 0"),
        (["env.mean=-1"], "env.mean=-1: must be greater than 0"),
    ],
)
def test_chains_that_cannot_be_are_one_sentence(words, sentence, tmp_path, capsys):
    assert main(["run", "agent=random", "env=inventory-serial", *words, f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_the_known_scores_hold():
    scores = {score.who: score.value for score in Registry().get("envs", "inventory-serial").scores}
    env, rng = chain(), torch.Generator().manual_seed(3)
    state, total = env.reset(3_000, None), 0.0
    for _ in range(30):
        state, reward, _ = env.step(state, env.references()["random"](state, rng), rng)
        total += float(reward.mean())
    assert scores["random"] == pytest.approx(total, abs=20)
    levels = tensor(91, 212, 415)
    assert scores["echelon-base-stock"] == pytest.approx(float(serial_rules.simulate(env, levels, 3_000, rng)), abs=5)
    assert scores["echelon-base-stock"] < scores["perfect information"]


def test_a_picture_has_a_chart_for_each_stage():
    pytest.importorskip("cv2")
    env = chain()
    state, _, _ = env.advance(env.reset(1, None), tensor(30, 0, 80), torch.tensor([20.0], dtype=F64))
    picture = env.render(state, 0)
    assert picture.shape == (3 * 480, 720, 3) and picture.dtype == np.uint8
    orange = [
        (np.abs(part[50:].astype(int) - (240, 160, 60)).max(-1) < 3).any(0).sum() for part in np.split(picture, 3)
    ]
    assert orange[0] > 0 and orange[1] == 0 and orange[2] > 0, "the second stage has ordered nothing"
