"""Properties that hold for every input: the grammar, the replay ring, returns and the rows of an env."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
import torch
import yaml
from annotated_types import Ge, Gt, Interval, Le
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlgan import config, schema
from rlgan.core.buffers import Ring
from rlgan.core.returns import gae, lambda_returns, n_step
from rlgan.core.vec import VecEnv
from rlgan.overrides import expand
from rlgan.registry import Registry
from rlgan_envs.cartpole import THETA_LIMIT, X_LIMIT, CartPole, CartPoleConfig

CPU = torch.device("cpu")

# --- the grammar ---

TEXT = st.text(max_size=8) | st.text("ab'\"[],. =@0", max_size=8) | st.sampled_from(["none", "1..3", "NULL", "true"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
HINTS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(1 - 2**63, 2**63 - 1),
    float: NUMBERS,
    str: TEXT,
    Path: TEXT.filter(bool).map(Path),
    float | None: st.none() | NUMBERS,
    str | None: st.none() | TEXT,
    Literal["huber", "mse"]: st.sampled_from(["huber", "mse"]),
    Literal[1, 2]: st.sampled_from([1, 2]),
    tuple[int, ...]: st.lists(st.integers(), max_size=4).map(tuple),
    tuple[Annotated[int, Gt(0)], ...]: st.lists(st.integers(1), max_size=4).map(tuple),
    tuple[str, ...]: st.lists(TEXT, max_size=4).map(tuple),
    tuple[float, float]: st.tuples(NUMBERS, NUMBERS),
    tuple[tuple[str, ...], ...]: st.lists(st.lists(TEXT, max_size=2).map(tuple), max_size=3).map(tuple),
}
"""A strategy for every kind of type that a setting may have."""


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_a_value_shown_is_read_back(data: st.DataObject) -> None:
    hint = data.draw(st.sampled_from(list(HINTS)))
    value = data.draw(HINTS[hint])
    cells, wrong = expand([f"key={schema.show(value)}"])
    assert not wrong and len(cells) == 1
    back = schema.read(schema.Key("key", hint, value), cells[0].settings["key"])
    assert back == value and type(back) is type(value)


WORDS = st.dictionaries(st.sampled_from(["a", "a.b", "dir", "x_1"]), st.lists(TEXT, min_size=1, max_size=3), max_size=3)


@settings(deadline=None, max_examples=200)
@given(WORDS)
def test_a_matrix_is_the_product_of_its_values_and_each_cell_asks_for_itself(values: dict[str, list[str]]) -> None:
    shown = {key: [schema.show(value) for value in alternatives] for key, alternatives in values.items()}
    cells, wrong = expand([f"{key}={','.join(texts)}" for key, texts in shown.items()])
    assert not wrong
    assert [tuple(cell.settings.values()) for cell in cells] == list(itertools.product(*shown.values()))
    for cell in cells:
        [again], _ = expand(cell.words)
        assert (again.words, again.settings, again.varied) == (cell.words, cell.settings, ())


@given(st.integers(-50, 50), st.integers(0, 30))
def test_a_range_is_its_numbers(first: int, more: int) -> None:
    cells, _ = expand([f"seed={first}..{first + more}"])
    assert [int(cell.settings["seed"]) for cell in cells] == list(range(first, first + more + 1))


@settings(deadline=None, max_examples=300)
@given(st.lists(TEXT | st.builds("{}={}".format, TEXT, TEXT), max_size=4))
def test_any_words_are_cells_or_sentences(words: list[str]) -> None:
    cells, wrong = expand(words)
    assert bool(cells) != bool(wrong)
    assert all(sentence.endswith(".") for sentence in wrong)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


def limits(hint: Any) -> tuple[float | None, float | None]:
    """The closed bounds within which a number is drawn for a setting."""
    low, high = None, None
    for mark in getattr(hint, "__metadata__", ()):
        for one in mark if isinstance(mark, Interval) else [mark]:
            low = one.ge if isinstance(one, Ge) else math.nextafter(one.gt, math.inf) if isinstance(one, Gt) else low
            high = one.le if isinstance(one, Le) else high
    return low, high


def setting(key: schema.Key) -> st.SearchStrategy[Any]:
    hint = key.hint
    if type(None) in get_args(hint):
        (some,) = (part for part in get_args(hint) if part is not type(None))
        return st.none() | setting(dataclasses.replace(key, hint=some))
    bare = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    low, high = limits(hint)
    if bare is int:
        return st.integers(math.ceil(low or 0), int(high or 10**12))
    if bare is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    return HINTS[bare] if bare in HINTS else st.sampled_from(bare.__args__)


FREE = ("agent", "env", "generator", "data", "reward", "device", "preset", "trackers")
"""Keys whose values must name something that exists."""


def drawn_words(data: st.DataObject, registry: Registry) -> list[str]:
    """Words that ask for a run of DQN with random values for some of its keys."""
    words = ["agent=dqn", f"env={data.draw(st.sampled_from(['cartpole', 'breakout', 'gym:X-v0', 'gym:a:b/X-v0']))}"]
    keys = {name: key for name, key in config.draft(words, registry).keys.items() if name not in FREE}
    chosen = data.draw(st.lists(st.sampled_from(sorted(keys)), unique=True, max_size=12))
    return words + [f"{name}={schema.show(data.draw(setting(keys[name])))}" for name in chosen]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_config_file_asks_for_the_same_run(registry: Registry, tmp_path: Path, data: st.DataObject) -> None:
    run = config.resolve_one(drawn_words(data, registry), registry)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(run.to_dict(), sort_keys=False), encoding="utf-8")
    again = config.resolve_one([f"@{path}"], registry)
    # the file resolves `auto`, and where a run lies is no part of what it is
    expected = dataclasses.replace(run.config, dir="", preset=run.preset.name if run.preset else "none")
    assert (again.config, again.parts) == (expected, run.parts)
    assert again.to_dict() == run.to_dict()


@settings(deadline=None, max_examples=20)
@given(dir=TEXT.filter(lambda text: "\0" not in text), hidden=st.sampled_from(["[8]", "[8,8],[8]", "[],[8]"]))
def test_the_words_of_a_cell_ask_for_that_cell_alone(registry: Registry, dir: str, hidden: str) -> None:
    words = ["agent=dqn", "env=cartpole", f"dir={schema.show(dir)}", "seed=0,1", f"agent.hidden={hidden}"]
    for run in config.resolve(words, registry):
        again = config.resolve_one(run.overrides, registry)
        assert (again.config, again.parts) == (run.config, run.parts)


# --- the ring ---


class Copy:
    """One copy as a plain list of rows. Observations are numbers: 1 + the row's own, or half more for a final one."""

    def __init__(self, random: Any, stack: int, same_step: bool) -> None:
        self.random, self.stack, self.same_step = random, stack, same_step
        self.rows: list[dict[str, Any]] = []
        self.game: list[float] = []

    def next(self) -> dict[str, Any]:
        before = self.rows[-1] if self.rows else None
        over = bool(before and before["over"])
        invalid = over and not self.same_step
        first = before is None or not before["valid"] or (self.same_step and over)
        seen = 1.0 + len(self.rows)
        self.game = [seen] if first else [*self.game, seen]
        kind = "" if invalid else self.random.choices(["", "over", "cut", "life"], [6, 1, 1, 1])[0]
        row = {
            "obs": self.stacked(self.game),
            "final_obs": self.stacked([*self.game, seen + 0.5]),
            "first": first,
            "action": self.random.randrange(9),
            "reward": 0.0 if invalid else self.random.uniform(-1, 1),
            "terminated": kind in ("over", "life"),
            "truncated": kind == "cut",
            "valid": not invalid,
            "over": kind in ("over", "cut"),
        }
        self.rows.append(row)
        return row

    def stacked(self, game: list[float]) -> list[float]:
        return ([0.0] * self.stack + game)[-self.stack :]

    def window(self, t: int, n: int, gamma: float) -> dict[str, Any]:
        """What a window of n rows from row t must hold."""
        total, k = 0.0, 0
        while True:
            row = self.rows[t + k]
            total += gamma**k * row["reward"]
            k += 1
            ended = row["terminated"] or row["truncated"]
            if ended or k == n:
                break
        following = row["final_obs"] if self.same_step and ended else self.rows[t + k]["obs"]
        discount = 0.0 if row["terminated"] else gamma**k
        start = self.rows[t]
        return {
            "obs": start["obs"],
            "action": start["action"],
            "reward": total,
            "discount": discount,
            "next_obs": following,
        }


def batched(rows: list[dict[str, Any]], stack: int, same_step: bool) -> dict[str, torch.Tensor]:
    names = [name for name in rows[0] if name != "over" and (same_step or name != "final_obs")]
    batch = {name: torch.tensor([row[name] for row in rows]) for name in names}
    for name in ("obs", "final_obs"):
        if name in batch and stack == 1:
            batch[name] = batch[name][:, 0]
    return batch


@settings(deadline=None, max_examples=120)
@given(
    size=st.integers(1, 3),
    groups=st.integers(1, 2),
    held=st.integers(2, 14),
    stack=st.integers(1, 4),
    n=st.integers(1, 4),
    gamma=st.floats(0, 1),
    same_step=st.booleans(),
    written=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    ahead=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_the_ring_is_a_list_of_rows(
    size: int,
    groups: int,
    held: int,
    stack: int,
    n: int,
    gamma: float,
    same_step: bool,
    written: list[int],
    ahead: bool,
    random: Any,
) -> None:
    copies = [Copy(random, stack, same_step) for _ in range(size * groups)]
    columns = [slice(g * size, (g + 1) * size) for g in range(groups)]
    capacity = random.randrange((held - 1) * len(copies) + 1, held * len(copies) + 1)
    ring, twin = (Ring(capacity, len(copies), columns, stack, CPU) for _ in range(2))
    assert ring.capacity == held
    torch.manual_seed(random.randrange(2**31))

    def write(g: int) -> None:
        ring.write(g, batched([copy.next() for copy in copies[columns[g]]], stack, same_step))

    mark = 0
    for count in written:
        for _ in range(count):
            for g in range(groups):
                write(g)
        for first, rows in ring.pieces(mark, random.choice([1, 200, 10**6])) if ring.fields else ():
            twin.restore(first, rows)
        mark = ring.written[0]
        twin.load_state_dict(ring.state_dict())
        if ring.ready(n):
            state = torch.get_rng_state()
            batch = check_draw(ring, copies, size, n, gamma)
            torch.set_rng_state(state)
            for name, value in check_draw(twin, copies, size, n, gamma).items():
                assert torch.equal(value, batch[name]), name
    if ahead:
        write(0)
        if ring.ready(n):
            check_draw(ring, copies, size, n, gamma)


def check_draw(ring: Ring, copies: list[Copy], size: int, n: int, gamma: float) -> dict[str, torch.Tensor]:
    batch = ring.draw(2, 8, n, gamma)
    assert all(value.shape[:2] == (2, 8) for value in batch.values())
    for weight in batch["weight"]:
        some = weight[weight > 0]
        assert len(some) == 0 or torch.allclose(some, torch.tensor(8 / len(some)))
    flat = {name: value.flatten(0, 1) for name, value in batch.items()}
    for b, index in enumerate(flat["index"].tolist()):
        t, i = divmod(index, len(copies))
        rows, total = copies[i].rows, ring.written[i // size]
        assert (flat["weight"][b] > 0) == rows[t]["valid"]
        assert max(0, total - ring.capacity) <= t and t + n < total, "the window and the row after it are held"
        if not rows[t]["valid"]:
            continue
        for name, wanted in copies[i].window(t, n, gamma).items():
            expected = torch.tensor(wanted).reshape(-1).tolist()
            assert flat[name][b].reshape(-1).tolist() == pytest.approx(expected, abs=1e-6), name
    return batch


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 12), st.integers(1, 3), st.integers(1, 4), st.integers(0, 40))
def test_windows_can_be_drawn_as_soon_as_one_is_held(held: int, n: int, stack: int, total: int) -> None:
    ring = Ring(held, 1, [slice(0, 1)], stack, CPU)
    ring.written = [total]
    oldest = max(0, total - held)
    # once rows are overwritten, so are the frames below the oldest
    starts = range(oldest + (stack - 1 if total > held else 0), total - n)
    assert ring.ready(n) == (len(starts) > 0)
    if starts:
        drawn = ring._rows(torch.zeros(400, dtype=torch.int64), n)
        assert set(drawn.tolist()) <= set(starts)
        assert len(starts) > 10 or set(drawn.tolist()) == set(starts)


# --- returns ---

FLAGS = st.lists(st.sampled_from(["", "", "terminated", "truncated", "both"]), min_size=1, max_size=9)
UNIT = st.floats(0, 1) | st.sampled_from([0.0, 1.0])


def column(data: st.DataObject, size: int) -> list[float]:
    return data.draw(st.lists(st.floats(-1e3, 1e3), min_size=size, max_size=size))


@settings(deadline=None, max_examples=150)
@given(FLAGS, UNIT, UNIT, st.data())
def test_returns_equal_literal_loops(flags: list[str], gamma: float, lam: float, data: st.DataObject) -> None:
    size = len(flags)
    reward, value, following = (column(data, size) for _ in range(3))
    ends, cuts = [f in ("terminated", "both") for f in flags], [bool(f) for f in flags]
    r, v, w = (torch.tensor(x, dtype=torch.float64)[:, None] for x in (reward, value, following))
    terminated = torch.tensor(ends)[:, None]
    truncated = torch.tensor([f in ("truncated", "both") for f in flags])[:, None]

    def window(t: int, n: int) -> tuple[float, float, int]:
        total, k = 0.0, 0
        while k < n:
            total += gamma**k * reward[t + k]
            k += 1
            if cuts[t + k - 1]:
                break
        return total, 0.0 if ends[t + k - 1] else gamma**k, k

    advantage = gae(r, v, w, terminated, truncated, gamma, lam)
    target = lambda_returns(r, w, terminated, truncated, gamma, lam)
    total, discount, length = n_step(r, terminated, truncated, gamma)
    assert (float(total), float(discount), int(length)) == pytest.approx(window(0, size))
    for t in range(size):
        span = window(t, size - t)[2]
        # Schulman et al. 2016, eq. 16: the sum of (gamma lam)^k delta_{t+k}
        deltas = [reward[s] + (0.0 if ends[s] else gamma * following[s]) - value[s] for s in range(t, t + span)]
        assert float(advantage[t]) == pytest.approx(sum((gamma * lam) ** k * d for k, d in enumerate(deltas)), abs=1e-6)
        # Sutton & Barto 2018, eq. 12.3: (1 - lam) sum lam^(k-1) G_{t:t+k}, the last with all the weight that is left
        g = [total + rest * following[t + k - 1] for total, rest, k in (window(t, k) for k in range(1, span + 1))]
        mixed = (1 - lam) * sum(lam**k * x for k, x in enumerate(g[:-1])) + lam ** (span - 1) * g[-1]
        assert float(target[t]) == pytest.approx(mixed, rel=1e-6, abs=1e-6)


# --- rows of an env ---


def games(rewards: list[float], valid: list[bool], over: list[bool]) -> Iterator[tuple[float, int]]:
    """Return and length of each game of one copy that ended, counted literally."""
    total, length = 0.0, 0
    for reward, counts, ended in zip(rewards, valid, over, strict=True):
        total, length = (total + reward, length + 1) if counts else (0.0, 0)
        if ended:
            yield total, length


NO_GAMES = {"episodes": 0, "return_mean": None, "length_mean": None}


@settings(deadline=None, max_examples=40)
@given(
    copies=st.integers(1, 6),
    max_steps=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    push=st.floats(0, 1),
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=3),
)
def test_rows_of_cartpole_under_random_actions(
    copies: int, max_steps: int, seed: int, push: float, counts: list[int]
) -> None:
    problem = CartPole(CartPoleConfig(max_steps), CPU)
    env = VecEnv(problem, copies, CPU)
    generator = torch.Generator().manual_seed(seed)
    obs, info = env.reset(seed=seed)
    first, age = info["first"], torch.zeros(copies, dtype=torch.int64)
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    before = (0, 0.0, 0)
    assert first.all()
    for count in counts:
        for _ in range(count):
            action = (torch.rand(copies, generator=generator) < push).long()
            moved, _, fallen = problem.step({"x": obs}, action, None)
            before_over = env.over
            after, reward, terminated, truncated, info = env.step(action)
            valid = info["valid"]
            assert torch.equal(valid, ~before_over)
            assert not (first & ~valid).any(), "a row that begins a game is played"
            age = torch.where(valid, age + 1, 0)
            assert torch.equal(reward, valid.float())
            assert torch.equal(terminated, fallen & valid)
            assert torch.equal(truncated, valid & (age == max_steps) & ~fallen)
            assert torch.equal(info["over"], terminated | truncated)
            assert torch.equal(info["first"], ~valid), "the row after an end leads to the next game"
            assert torch.equal(after[valid], moved["x"][valid]), (
                "the next row shows the true observation, also at an end"
            )
            assert (after[~valid].abs() <= 0.05).all()
            outside = (after[:, 0].abs() > X_LIMIT) | (after[:, 2].abs() > THETA_LIMIT)
            assert torch.equal(outside, terminated)
            history.append((reward, valid, info["over"]))
            obs, first = after, info["first"]
        rewards, valids, overs = (torch.stack(x).T.tolist() for x in zip(*history, strict=True))
        ended = [game for row in zip(rewards, valids, overs, strict=True) for game in games(*row)]
        total = (len(ended), sum(game[0] for game in ended), sum(game[1] for game in ended))
        new, gained, played = (now - then for now, then in zip(total, before, strict=True))
        wanted = {"episodes": new, "return_mean": gained / new, "length_mean": played / new} if new else NO_GAMES
        assert env.statistics.take() == pytest.approx(wanted)
        before = total
