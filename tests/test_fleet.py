"""The fleet by hand, beside literal moves, days and assignments, and its bound beside trying everything."""

import itertools
import math

import numpy as np
import pytest
import torch

from rlgan.cli.main import main
from rlgan.testing import EnvConformance, check_env
from rlgan_envs.fleet import Fleet, FleetConfig
from rlgan_envs.fleet_city import COMMUTES, MOVES, SIDES, SLOTS, Asked, City
from rlgan_envs.fleet_planning import assigned, logits, most_earned, nearest, values

pytest.importorskip("scipy")
F64 = torch.float64


class TestFleet(EnvConformance):
    env = "fleet"


SMALL = {"size": 1, "vehicles": 2, "orders": 20, "radius": 0}


@pytest.mark.parametrize("settings", [{"out_of_range": "refuse"}, SMALL, SMALL | {"actors": "vehicles", "radius": 3}])
def test_other_settings_keep_the_contract(settings):
    check_env("fleet", FleetConfig(**settings))


def make(**settings):
    return Fleet(FleetConfig(**settings), "cpu", F64)


def zone(env, q, r):
    return env.city.place.tolist().index([q, r])


def asked(env, *orders):
    """Orders (origin, goal, fare) of one copy, beside empty places."""
    empty = (0, 0, 0.0)
    columns = list(zip(*(list(orders) + [empty] * (env.city.most - len(orders))), strict=True))
    origin, goal = (torch.tensor([column]) for column in columns[:2])
    return Asked(torch.arange(env.city.most)[None] < len(orders), origin, goal, torch.tensor(columns[2:], dtype=F64))


def staying(env, n=1):
    return env.references()["stay"](env.reset(n, None), None)


def test_the_zones_are_a_hexagon():
    city = City(3, 1000, "cpu", F64)
    assert city.zones == 37 and city.distance.max() == 6
    # by walking: zones within k moves
    reached = torch.eye(37, dtype=torch.bool)
    for k in range(7):
        assert torch.equal(city.distance <= k, reached), k
        reached = torch.stack([reached[:, city.near[z]].any(1) for z in range(37)], 1)
    middle = city.place.tolist().index([0, 0])
    assert city.inside[middle].all() and city.inside.sum(1).min() == 4, "a corner has three neighbours"
    steps = [(city.place[b] - city.place[middle]).tolist() for b in city.near[middle]]
    assert steps == [[0, 0], *map(list, SIDES)]
    assert (city.near[~city.inside] == city.near[:, :1].expand(-1, MOVES)[~city.inside]).all()
    for a, b in itertools.product(range(37), repeat=2):
        to = int(city.near[a, city.hop[a, b]])
        assert city.distance[to, b] == max(int(city.distance[a, b]) - 1, 0) and city.inside[a, city.hop[a, b]]


def test_trips_are_asked_for_as_expected():
    city = City(2, 3000, "cpu", F64)
    assert city.mix.sum() == pytest.approx(3000) and city.expected.sum() == pytest.approx(3000)
    shares = city.mix.sum(0) / 3000
    assert shares[:2].tolist() == pytest.approx([share for *_, share in COMMUTES], abs=1e-9)
    for slot in (48, 108):
        draws = 40_000
        found = city.draw(torch.full((draws,), slot), torch.Generator().manual_seed(slot))
        count, rate = found.there.sum(1).double(), float(city.mix[slot].sum())
        assert float(count.mean()) == pytest.approx(rate, abs=5 * (rate / draws) ** 0.5)
        assert float(count.var()) == pytest.approx(rate, rel=0.05)
        pair = (found.origin * 19 + found.goal)[found.there]
        exact = (city.mix[slot, :, None, None] * city.kinds).sum(0).flatten() / rate
        share = torch.bincount(pair, minlength=361) / len(pair)
        assert ((share - exact).abs() < 5 * (exact / len(pair)).sqrt() + 1e-5).all()
        goals = city.goals(slot)
        assert torch.allclose(goals * city.expected[slot][:, None] / rate, exact.view(19, 19))
        length = 1 + city.distance[found.origin, found.goal][found.there]
        fare = found.fare[found.there] / length
        assert float(fare.mean()) == pytest.approx(1, abs=0.002) and float(fare.std()) == pytest.approx(0.2, abs=0.002)
        assert not found.fare[~found.there].any()
    middle = city.place.tolist().index([0, 0])
    morning, evening = city.kinds[0], city.kinds[1]
    assert morning.sum(0)[middle] > 1.5 * evening.sum(0)[middle], "into the centre first, then out of it"


def test_vehicles_are_spread_as_logits_say():
    env = make(size=1, vehicles=9)
    middle, rng = zone(env, 0, 0), torch.Generator().manual_seed(0)
    cell = torch.tensor([[middle] * 6 + [zone(env, 1, 0)] * 3]).expand(200, -1)
    counts = torch.zeros(200, 7, MOVES, dtype=F64)
    counts[:, middle] = torch.tensor([1, 2, 0, 0, 3, 0, 0])
    counts[:, zone(env, 1, 0), 0] = 1
    going = torch.ones_like(cell, dtype=torch.bool)
    found = env.moves(logits(counts).view(200, 7, MOVES).double(), cell, going, rng)
    for row in found.tolist():
        assert sorted(row[:6]) == [0, 1, 1, 4, 4, 4] and row[6:] == [0, 0, 0]
    many = torch.full((2_000, 300), middle)
    counts = torch.zeros(1, 7, MOVES, dtype=F64)
    counts[:, middle] = torch.tensor([100, 150, 0, 0, 50, 0, 0])
    wanted = logits(counts).view(1, 7, MOVES).double().expand(2_000, -1, -1)
    spread = env.moves(wanted, many, torch.ones_like(many, dtype=torch.bool), rng)
    for move, count in enumerate(counts[0, middle].tolist()):
        assert ((spread == move).sum(1) == count).all(), move
    counts = torch.zeros(200, 7, MOVES, dtype=F64)
    counts[:, middle] = torch.tensor([1, 2, 0, 0, 3, 0, 0])
    counts[:, zone(env, 1, 0), 0] = 1
    going[:, 0] = False
    assert not env.moves(logits(counts).view(200, 7, MOVES).double(), cell, going, rng)[:, 0].any()
    # shares that do not divide: every count within one of its share, and right on average; none out of the city
    free = torch.randn(1, 7, MOVES, generator=rng, dtype=F64)
    chance = free[0].masked_fill(~env.city.inside, -math.inf).softmax(1)
    cell = torch.randint(7, (20_000, 9), generator=rng)
    found = env.moves(free.expand(20_000, -1, -1), cell, torch.ones_like(cell, dtype=torch.bool), rng)
    assert env.city.inside[cell, found].all()
    total = torch.zeros(20_000, 7, MOVES).index_put_(
        (torch.arange(20_000)[:, None], cell, found), torch.ones(1), accumulate=True
    )
    there = total.sum(2, keepdim=True)
    assert ((total - there * chance).abs() < 1 + 1e-9).all()
    assert torch.allclose(total.sum(0) / there.sum(0), chance.float(), atol=0.01)


def test_a_slot_by_hand(monkeypatch):
    env = make(size=2, vehicles=4, radius=1, move_cost=0.25)
    home, next_door, far = zone(env, 0, 0), zone(env, 1, 0), zone(env, -2, 0)
    orders = asked(env, (home, far, 5.0), (home, next_door, 2.0), (next_door, next_door, 1.5), (far, home, 9.0))
    monkeypatch.setattr(env.city, "draw", lambda slot, rng: orders)
    state = env.reset(1, None)
    # one is at home, one goes home from next door, one is on its way, one is too far from everything
    state |= {"cell": torch.tensor([[home, next_door, far, zone(env, 2, 0)]]), "free": torch.tensor([[0, 7, 8, 0]])}
    state |= {"time": torch.tensor([7])}
    action = staying(env).view(1, env.city.zones, MOVES).clone()
    action[0, next_door] = -10.0
    action[0, next_door, 1 + SIDES.index((-1, 0))] = 10.0
    after, reward, terminated = env.step(state, action.flatten(1), torch.Generator().manual_seed(0))
    # the largest fare finds nobody; then 5.0 and 2.0 take who is at home, and 1.5 who is one zone away
    assert float(reward) == pytest.approx(5.0 + 2.0 + 1.5 - 0.25) and not terminated.any()
    assert after["cell"].tolist() == [[far, next_door, far, next_door]]
    assert after["free"].tolist() == [[7 + 1 + 2, 7 + 1 + 1, 8, 7 + 1 + 1]]
    assert after["earned"].tolist() == [[5.0, 2.0 - 0.25, 0.0, 1.5]]
    assert after["asked"][0, [home, next_door, far]].tolist() == [2, 1, 1] and after["lost"][0].sum() == 1
    assert after["lost"][0, far] == 1
    sums = {name: float(after[name]) for name in ("come", "served", "fares", "moves", "odd", "time")}
    assert sums == {"come": 4, "served": 3, "fares": 8.5, "moves": 1, "odd": 0, "time": 8}
    seen = env.observe(after)[0]
    zones = env.city.zones
    assert {k: round(float(seen[k]), 6) for k in seen.nonzero().flatten().tolist()} == {
        8 // 6: 1,
        24 + far: 1,  # who was on its way is there
        24 + zones + far: round(0.8**2, 6),
        24 + zones + next_door: round(0.8 + 0.8, 6),
        24 + 2 * zones + home: 2,
        24 + 2 * zones + next_door: 1,
        24 + 2 * zones + far: 1,
    }
    assert env.metrics(after)["served"].tolist() == [0.75]


def test_vehicles_may_decide_each_for_itself(monkeypatch):
    env = make(size=1, vehicles=4, actors="vehicles", move_cost=0.5)
    home, corner = zone(env, 0, 0), zone(env, 1, 0)
    out = env.city.inside[corner].tolist().index(False)
    orders = asked(env, (home, corner, 3.0))
    monkeypatch.setattr(env.city, "draw", lambda slot, rng: orders)
    cells = {"cell": torch.tensor([[corner, corner, home, home]]), "free": torch.tensor([[0, 0, 3, 0]])}
    state = env.reset(1, None) | cells
    back = 1 + SIDES.index((-1, 0))
    # one goes home and gets the order there, one would leave the city, one is not idle, one goes to the corner
    leave = 1 + SIDES.index((1, 0))
    after, reward, _ = env.step(state, torch.tensor([[back, out, 3, leave]]), None)
    assert after["earned"].tolist() == [[2.5, 0.0, 0.0, -0.5]] and float(reward) == 2.0
    assert after["cell"].tolist() == [[corner, corner, home, corner]] and float(after["moves"]) == 2
    assert after["free"].tolist() == [[2, 0, 3, 0]]
    rows = env.observe(after)[0]
    assert rows.shape == (4, 43) and rows[:, -1].tolist() == [2.5, 0.0, 0.0, -0.5]
    idle, coming, came = rows[1, :21].view(3, 7)
    to = [int(z) for z in env.city.near[corner]]
    assert idle.tolist() == [2.0 if z == corner else 0.0 for z in to]
    by_zone = {corner: 0.8, home: 0.8**2}
    assert coming.tolist() == pytest.approx([by_zone.get(z, 0.0) for z in to], abs=1e-6)
    assert came.tolist() == [1.0 if z == home else 0.0 for z in to]
    assert rows[1, 21:28].tolist() == env.city.inside[corner].float().tolist()
    assert rows[1, 28:35].tolist() == [0.0 if z == home else 1.0 for z in to]
    assert rows[:, 35:38].tolist() == [[0, 1, 0], [1, 0, 0], [0, 2, 0], [1, 0, 1]]
    turn = 2 * math.pi / 144
    hour = [math.sin(turn), math.cos(turn), math.sin(2 * turn), math.cos(2 * turn)]
    assert rows[2, 38:42].tolist() == pytest.approx(hour)
    # references go on sharing out zones
    assert env.step(state, staying(env), None)[0]["moves"].tolist() == [0.0]


@pytest.mark.parametrize(("mode", "moves"), [("clip", 3), ("refuse", 0)])
def test_logits_out_of_range_are_counted(mode, moves):
    env = make(size=1, vehicles=3, out_of_range=mode)
    state = env.reset(1, None) | {"cell": torch.full((1, 3), zone(env, 0, 0))}
    action = torch.full((1, 7 * MOVES), -10.0)
    action[0, zone(env, 0, 0) * MOVES + 2] = 99.0
    action[0, zone(env, 1, 0) * MOVES] = math.nan
    after, _, _ = env.step(state, action, None)
    assert float(after["odd"]) == 2 and float(after["moves"]) == moves


@pytest.mark.parametrize(("mode", "moved"), [("clip", [True, False, False]), ("refuse", [False, False, False])])
def test_moves_of_vehicles_out_of_range_are_counted(mode, moved):
    env = make(size=1, vehicles=3, actors="vehicles", orders=1e-9, out_of_range=mode)
    state = env.reset(1, None) | {"cell": torch.full((1, 3), zone(env, 0, 0))}
    state["free"] = torch.tensor([[0, 0, 9]])  # the third is not idle: nothing is asked of it
    after, _, _ = env.step(state, torch.tensor([[99, -1, 50]]), None)
    assert float(after["odd"]) == 2
    assert (after["cell"] != state["cell"])[0].tolist() == moved, "the last move, staying, nothing"


def literal_day(env, cells, days, decide):
    """One copy, vehicle by vehicle: fares less what moves cost. ``decide(t, vehicles)`` gives the zone of each."""
    vehicles, total, distance = [[cell, 0] for cell in cells], 0.0, env.city.distance
    for t, orders in enumerate(days):
        for vehicle, to in zip(vehicles, decide(t, vehicles), strict=True):
            if vehicle[1] <= t:
                total -= env.config.move_cost * (vehicle[0] != to)
                vehicle[0] = to
        for origin, goal, fare in sorted(orders, key=lambda o: -o[2]):
            idle = [v for v in vehicles if v[1] <= t and distance[v[0], origin] <= env.config.radius]
            if idle:
                chosen = min(idle, key=lambda v: (int(distance[v[0], origin]), v[0]))
                chosen[1] = t + int(distance[chosen[0], origin]) + 1 + int(distance[origin, goal])
                chosen[0], total = goal, total + fare
    return total, vehicles


def listed(day, i):
    keep = day.there[i]
    return list(zip(*(part[i][keep].tolist() for part in day[1:]), strict=True))


def drawn(env, copies, seed):
    """Starts and the orders of whole days."""
    rng = torch.Generator().manual_seed(seed)
    starts = env.reset(copies, rng)
    return starts, [env.city.draw(torch.full((copies,), t), rng) for t in range(SLOTS)]


def played(env, starts, days, policy, monkeypatch):
    """Returns (n,) of a policy on given days."""
    state, rng, total = dict(starts), torch.Generator().manual_seed(9), 0.0
    for t in range(SLOTS):
        monkeypatch.setattr(env.city, "draw", lambda slot, rng, t=t: days[t])
        state, reward, over = env.step(state, policy(state, rng), rng)
        total = total + reward
        assert over.tolist() == [t == SLOTS - 1] * len(over)
    monkeypatch.undo()
    return total, state


def test_a_literal_city_lives_through_the_same_day(monkeypatch):
    env = make(size=2, vehicles=12, orders=400)
    starts, days = drawn(env, 3, 4)
    hop, near = env.city.hop, env.city.near

    def towards(state, rng):
        """Everybody walks to a place that changes every hour."""
        action = torch.full((3, 19, MOVES), -10.0)
        action[:, torch.arange(19), hop[:, meeting(int(state["time"][0]))]] = 10.0
        return action.flatten(1)

    def meeting(t):
        return t // 6 * 5 % 19

    for policy, decide in (
        (lambda state, rng: staying(env, 3), lambda t, vehicles: [cell for cell, _ in vehicles]),
        (towards, lambda t, vehicles: [int(near[cell, hop[cell, meeting(t)]]) for cell, _ in vehicles]),
    ):
        total, state = played(env, starts, days, policy, monkeypatch)
        for i in range(3):
            earned, vehicles = literal_day(env, starts["cell"][i].tolist(), [listed(day, i) for day in days], decide)
            assert float(total[i]) == pytest.approx(earned, abs=1e-9) and earned > 300
            left = zip(state["cell"][i].tolist(), state["free"][i].tolist(), strict=True)
            assert sorted(map(list, left)) == sorted(vehicles)
    assert (state["moves"] > 300).all()
    assert torch.allclose(total, state["fares"] - 0.1 * state["moves"])


def test_no_policy_earns_more_than_hindsight(monkeypatch):
    env = make(size=1, vehicles=4, orders=250)
    starts, days = drawn(env, 3, 7)
    bound = torch.tensor([most_earned(env, starts["cell"], days, i) for i in range(3)], dtype=F64)
    assert env.table.any(), "found on days of its own"
    for name in ("random", "stay", "nearest", "hungarian", "value-table"):
        total, _ = played(env, starts, days, env.references()[name], monkeypatch)
        assert (total < bound).all() and (total > 0.4 * bound).all(), name


def every_plan(env, cells, days):
    """The most that few vehicles can earn in few slots, by trying all moves and all matchings."""
    near, distance, config = env.city.near, env.city.distance, env.config

    def matchings(t, vehicles, orders):
        if not orders:
            yield 0.0, vehicles
            return
        (origin, goal, fare), rest = orders[0], orders[1:]
        yield from matchings(t, vehicles, rest)
        for k, (cell, free) in enumerate(vehicles):
            if free <= t and (far := int(distance[cell, origin])) <= config.radius:
                after = (goal, t + far + 1 + int(distance[origin, goal]))
                for earned, left in matchings(t, (*vehicles[:k], after, *vehicles[k + 1 :]), rest):
                    yield fare + earned, left

    def best(t, vehicles):
        if t == len(days):
            return 0.0
        choices = [sorted(set(near[c].tolist())) if free <= t else [c] for c, free in vehicles]
        most = -math.inf
        for to in itertools.product(*choices):
            cost = config.move_cost * sum(a != c for a, (c, _) in zip(to, vehicles, strict=True))
            moved = tuple((a, free) for a, (_, free) in zip(to, vehicles, strict=True))
            most = max(most, *(earned - cost + best(t + 1, after) for earned, after in matchings(t, moved, days[t])))
        return most

    return best(0, tuple((cell, 0) for cell in cells))


def test_the_bound_is_reached_by_trying_everything_in_small_cities():
    env, rng, close = make(size=1, vehicles=2, radius=1), np.random.default_rng(1), 0
    for _ in range(12):
        days = [
            [(int(rng.integers(7)), int(rng.integers(7)), float(rng.uniform(0.1, 3))) for _ in range(rng.integers(3))]
            for _ in range(3)
        ]
        cells = rng.integers(0, 7, 2).tolist()
        slots = [asked(env, *day) for day in days] + [asked(env)] * (SLOTS - 3)
        most, bound = every_plan(env, cells, days), most_earned(env, torch.tensor([cells]), slots, 0)
        assert bound >= most - 1e-7
        close += bound < most + 1e-6
    assert close >= 10, "fractions rarely help"


def test_the_hungarian_rule_is_the_best_of_all_assignments():
    env, rng = make(size=1, vehicles=3, orders=300, move_cost=0.3), torch.Generator().manual_seed(2)
    table = torch.rand((SLOTS + 1, 7), generator=rng, dtype=F64) * 3
    state = env.reset(6, rng) | {"time": torch.tensor([20, 50, 70, 100, 120, 143])}
    state["free"] = torch.where(torch.rand(6, 3, generator=rng) < 0.2, 144, 0)
    found = assigned(env, state, table).view(6, 7, MOVES).softmax(2)
    differ = 0
    for i, slot in enumerate(state["time"].tolist()):
        idle = [c for c, free in zip(state["cell"][i].tolist(), state["free"][i].tolist(), strict=True) if free <= slot]
        gains, after = [], table[slot + 1].tolist()
        joint = (env.city.mix[slot, :, None, None] * env.city.kinds).sum(0)
        serve = []
        for z in range(7):
            worth = 0.0
            for g in range(7):
                length = 1 + int(env.city.distance[z, g])
                worth += float(joint[z, g] / joint[z].sum()) * (length + float(table[min(slot + length, 144), g]))
            serve.append(worth)
        for z in range(7):
            mean = float(env.city.expected[slot, z])
            tails = [1 - sum(math.exp(-mean) * mean**j / math.factorial(j) for j in range(k)) for k in range(1, 9)]
            gains.append([tail * (serve[z] - after[z]) for tail in tails if tail > 0.05])

        def score(plan, idle=idle, gains=gains):
            """Each vehicle waits for the k-th order of a zone next to it, or None."""
            chosen = [(c, *target) for c, target in zip(idle, plan, strict=True) if target is not None]
            return sum(gains[z][k] - 0.3 * (z != c) for c, z, k in chosen)

        options = [
            [None, *((z, k) for z in set(env.city.near[c].tolist()) for k in range(len(gains[z])))] for c in idle
        ]
        plans = [
            plan
            for plan in itertools.product(*options)
            if len({t for t in plan if t is not None}) == sum(t is not None for t in plan)
        ]
        best = max(plans, key=score)
        expected = torch.zeros(7, MOVES)
        for c, target in zip(idle, best, strict=True):
            move = 0 if target is None or target[0] == c else env.city.near[c].tolist().index(target[0])
            expected[c, move] += 1
        differ += float(expected[:, 1:].sum())
        there = expected.sum(1) > 0
        shares = expected[there] / expected[there].sum(1, keepdim=True)
        assert torch.allclose(found[i][there], shares, atol=1e-5), slot
    assert differ > 3


def test_nearest_sends_who_is_not_needed():
    env = make(size=2, vehicles=9)
    a, b, c = zone(env, 2, 0), zone(env, -2, 0), zone(env, 1, 0)
    env.city.wanted[:] = 0
    env.city.wanted[:, a], env.city.wanted[:, b], env.city.wanted[:, c] = 2, 3, 1
    # four at a can go: one to its neighbour c, which is nearest, two to b, and one stays because nobody wants it
    cells = [a] * 6 + [b] + [a, c]
    state = env.reset(1, None) | {"cell": torch.tensor([cells]), "free": torch.tensor([[0] * 7 + [5, 5]])}
    share = nearest(env, state).view(env.city.zones, MOVES).softmax(1)
    to_c, to_b = int(env.city.hop[a, c]), int(env.city.hop[a, b])
    expected = torch.zeros(MOVES)
    for move, count in ((0, 3), (to_c, 1), (to_b, 2)):
        expected[move] += count / 6
    assert torch.allclose(share[a], expected, atol=1e-5) and share[b, 0] == pytest.approx(1, abs=1e-5)


def test_the_table_shares_out_all_that_is_earned():
    env = make(size=2, vehicles=15, orders=400)
    table = values(env, days=20, seed=5)
    rng = torch.Generator().manual_seed(5)
    start = state = env.reset(20, rng)
    policy = env.references()["hungarian"]
    for _ in range(SLOTS):
        state, _, _ = env.step(state, policy(state, rng), rng)
    assert table.shape == (SLOTS + 1, 19) and not table[SLOTS].any()
    # each value is a mean over the vehicles that are there, so that of the first slot sums up to all returns
    earned = float(state["fares"].sum() - 0.1 * state["moves"].sum())
    assert float(table[0][start["cell"]].sum()) == pytest.approx(earned, rel=1e-9)


def test_a_city_that_asks_for_more_than_there_are_vehicles():
    env = make(size=1, vehicles=3, orders=100_000, radius=3)
    state = env.reset(2, torch.Generator().manual_seed(0)) | {"time": torch.tensor([50, 51])}
    for name in ("nearest", "hungarian"):
        after, reward, _ = env.step(state, env.references()[name](state, None), None)
        assert after["served"].tolist() == [3, 3] and (reward > 3).all()


def test_pictures_show_vehicles_and_orders():
    pytest.importorskip("cv2")
    env, rng = make(), torch.Generator().manual_seed(0)
    state = env.reset(2, rng)
    empty = env.render(state, 0)
    for _ in range(60):
        state, _, _ = env.step(state, staying(env, 2), rng)
    busy = env.render(state, 1)
    assert empty.shape == busy.shape == (700, 640, 3) and busy.dtype == np.uint8
    assert (empty != busy).any(2).mean() > 0.02


SENTENCES = {
    "env.vehicles=0": "env.vehicles=0: must be greater than or equal to 1",
    "env.size=13": "env.size=13: must be less than or equal to 12",
    "env.radius=4": "env.radius=4: must be less than or equal to 3",
    "env.move_cost=-1": "env.move_cost=-1: must be greater than or equal to 0",
    "env.orders=0": "env.orders=0: must be greater than or equal to 1",
    "env.out_of_range=ignore": "env.out_of_range=ignore",
}


@pytest.mark.parametrize("word", SENTENCES)
def test_settings_that_cannot_be_are_one_sentence(word, tmp_path, capsys):
    assert main(["run", "agent=random", "env=fleet", word, f"dir={tmp_path / 'x'}"]) == 2
    said = capsys.readouterr().err
    assert SENTENCES[word] in said and said.count("\n") == 1
