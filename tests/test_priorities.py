"""Replay by priority: which rows can be drawn, how often, what they weigh, and that all of it is saved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgan.core.protocols import Phase, Priorities, Replay
from rlgan.core.source import ReplaySource
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.errors import PluginError
from rlgan.priorities import LIMIT, SMALLEST, UNIT, PrioritisedRing
from rlgan_envs.cartpole import CartPole, CartPoleConfig

CPU = torch.device("cpu")
ONE = torch.tensor(1.0)


def ring_of(
    rows: int, copies: int = 2, held: int = 8, n: int = 1, alpha: float = 1.0, stack: int = 1
) -> PrioritisedRing:
    """A ring in which row r of copy i has action 100 r + i; every fifth row is invalid."""
    ring = PrioritisedRing(held * copies, copies, [slice(0, copies)], stack, CPU, n, alpha)
    for r in range(rows):
        ring.write(0, row_of(r, 0, copies, stack))
    return ring


def row_of(r: int, start: int, stop: int, stack: int = 1) -> dict[str, torch.Tensor]:
    count = stop - start
    flag = torch.zeros(count, dtype=torch.bool)
    shape = (count, stack, 1) if stack > 1 else (count, 1)
    row = {"obs": torch.full(shape, float(r)), "action": 100 * r + torch.arange(start, stop)}
    row |= {"reward": torch.ones(count), "first": flag, "terminated": flag, "truncated": flag}
    return row | {"valid": torch.full((count,), r % 5 != 4)}


def index_of(ring: PrioritisedRing, row: int, column: int) -> int:
    return row * ring.copies + column


def test_rows_are_drawn_in_proportion_to_their_priorities():
    torch.manual_seed(0)
    ring = ring_of(11)  # holds rows 3 to 10; 3, 5, 6, 7, 8 and not 4, 9 are drawn
    rows = [(r, i) for r in (3, 5, 6, 7, 8) for i in range(2)]
    index = torch.tensor([index_of(ring, r, i) for r, i in rows])
    priority = torch.arange(1.0, 11.0)
    ring.reprioritise(index, priority)
    share = priority / priority.sum()
    counts, batches, size = torch.zeros(22), 2_000, 32
    for _ in range(batches):
        batch = ring.draw_by_priority(size, 0.9, ONE)
        assert torch.equal(batch["action"], 100 * (batch["index"] // 2) + batch["index"] % 2)
        counts += torch.bincount(batch["index"], minlength=22)
    assert counts.sum() == counts[index].sum() == batches * size
    got = counts[index] / (batches * size)
    # strata make the spread smaller than that of independent draws, which six deviations bound
    assert ((got - share).abs() < 6 * (share * (1 - share) / (batches * size)).sqrt()).all()


def test_strata_bring_each_row_its_share_in_every_batch():
    ring = ring_of(11)
    rows = [(r, i) for r in (3, 5, 6, 7, 8) for i in range(2)]
    index = torch.tensor([index_of(ring, r, i) for r, i in rows])
    ring.reprioritise(index, torch.ones(10))
    for _ in range(20):
        counts = torch.bincount(ring.draw_by_priority(30, 0.9, ONE)["index"], minlength=22)[index]
        assert int(counts.min()) >= 2 and int(counts.max()) <= 4


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 0.4), (0.6, 0.0)])
def test_weights_undo_the_bias(alpha, beta):
    torch.manual_seed(0)
    ring = ring_of(11, alpha=alpha)
    index = torch.tensor([index_of(ring, r, i) for r in (3, 5, 6, 7, 8) for i in range(2)])
    priority = torch.arange(1.0, 11.0)
    ring.reprioritise(index, priority)
    of_index = dict(zip(index.tolist(), priority.tolist(), strict=True))
    batch = ring.draw_by_priority(64, 0.9, torch.tensor(beta))
    drawn = torch.tensor([of_index[i] for i in batch["index"].tolist()]) + SMALLEST
    expected = (drawn.pow(alpha).min() / drawn.pow(alpha)).pow(beta)
    assert torch.allclose(batch["weight"], expected, rtol=1e-5)
    assert float(batch["weight"].max()) == 1.0


def test_new_rows_have_the_highest_priority_so_far():
    ring = ring_of(4)
    assert ring.most == round(1 / UNIT)
    ring.reprioritise(torch.tensor([index_of(ring, 1, 0)]), torch.tensor([3.0]))
    assert float(ring.most * UNIT) == pytest.approx(3.0, rel=1e-5)
    ring.reprioritise(torch.tensor([index_of(ring, 1, 0)]), torch.tensor([0.1]))
    ring.write(0, row_of(4, 0, 2))  # row 3 can be drawn now
    mass = ring.mass[: ring.places].view(ring.capacity, 2)
    assert (mass[3] == ring.most).all() and float(mass[1, 0] * UNIT) == pytest.approx(0.1, rel=1e-4)
    ring.write(0, row_of(5, 0, 2))  # row 4 is invalid
    assert (mass[4] == 0).all()
    assert int(ring.sums.sum()) == int(ring.mass.sum())


def test_a_row_without_error_is_seen_again_and_one_without_mass_gets_none():
    ring = ring_of(11)
    ring.reprioritise(torch.tensor([index_of(ring, 3, 0), index_of(ring, 4, 0)]), torch.tensor([0.0, 5.0]))
    mass = ring.mass[: ring.places].view(ring.capacity, 2)
    assert float(mass[3, 0] * UNIT) == pytest.approx(SMALLEST, rel=0.05)
    assert mass[4, 0] == 0, "row 4 is invalid"
    ring.reprioritise(torch.tensor([index_of(ring, 3, 0)]), torch.tensor([1e30]))
    assert mass[3, 0] == LIMIT == ring.most


def test_a_row_drawn_twice_keeps_one_priority():
    ring = ring_of(11)
    twice = torch.tensor([index_of(ring, 5, 1)] * 3)
    ring.reprioritise(twice, torch.tensor([0.25, 0.75, 0.5]))
    assert float(ring.mass[5 * 2 + 1] * UNIT) == pytest.approx(0.75, rel=1e-4)
    assert torch.equal(ring.sums, ring.blocks.sum(1))


@settings(deadline=None, max_examples=80)
@given(
    size=st.integers(1, 3),
    groups=st.integers(1, 2),
    held=st.integers(2, 14),
    stack=st.integers(1, 4),
    n=st.integers(1, 4),
    rounds=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    ahead=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_rows_with_mass_are_those_that_a_uniform_ring_would_draw(
    size: int, groups: int, held: int, stack: int, n: int, rounds: list[int], ahead: bool, seed: int
) -> None:
    copies, held = size * groups, max(held, n + stack + 1)
    columns = [slice(g * size, (g + 1) * size) for g in range(groups)]
    ring, twin = (PrioritisedRing(held * copies, copies, columns, stack, CPU, n, 0.7) for _ in range(2))
    torch.manual_seed(seed)
    written = [0] * groups

    def write(g: int) -> None:
        ring.write(g, row_of(written[g], columns[g].start, columns[g].stop, stack))
        written[g] += 1

    def check() -> None:
        wanted = set()
        for g, (low, span) in enumerate(ring._bounds(n)):
            wanted |= {
                r % held * copies + i
                for r in range(low, low + max(span, 0))
                if r % 5 != 4
                for i in range(columns[g].start, columns[g].stop)
            }
        assert set(ring.mass.nonzero().flatten().tolist()) == wanted
        assert torch.equal(ring.sums, ring.blocks.sum(1))
        if not wanted or not ring.ready(n):
            return
        batch = ring.draw_by_priority(16, 0.9, torch.tensor(0.5))
        assert bool((batch["weight"] > 0).all())
        for index, action in zip(batch["index"].tolist(), batch["action"].tolist(), strict=True):
            row, column = divmod(index, copies)
            assert action == 100 * row + column and row % held * copies + column in wanted
        ring.reprioritise(batch["index"], torch.rand(16) * 10)
        assert set(ring.mass.nonzero().flatten().tolist()) == wanted

    for count in rounds:
        for _ in range(count):
            for g in range(groups):
                write(g)
        check()
        twin.load_state_dict(copy.deepcopy(ring.state_dict()))
        for name in ("mass", "sums", "most"):
            assert torch.equal(getattr(ring, name), getattr(twin, name)), name
    if ahead:
        write(0)
        check()


@pytest.mark.parametrize("change", ["negative", "above the highest", "beyond the limit", "not yet held", "gone"])
def test_forged_priorities_are_refused(change):
    ring, twin = ring_of(11), ring_of(0)
    state = copy.deepcopy(ring.state_dict())
    if change == "negative":
        state["mass"][5 * 2] = -1
    elif change == "above the highest":
        state["mass"][5 * 2] = state["most"] + 1
    elif change == "beyond the limit":
        state["most"].fill_(1 << 50)
        state["mass"][5 * 2] = 1 << 45
    elif change == "not yet held":
        state["mass"][10 % 8 * 2] = 1
    else:
        ring = ring_of(3)
        state = copy.deepcopy(ring.state_dict())
        state["mass"][5 * 2] = 1
    with pytest.raises(ValueError, match="priorities that no row of it can have"):
        twin.load_state_dict(state)


class Surprised:
    """Returns what it is told as priorities, and remembers the batches."""

    def __init__(self, out: dict[str, Any]) -> None:
        self.out, self.batches = out, []

    def carry(self, n):
        return None

    def act(self, obs, carry, step, explore):
        return {"action": torch.zeros(len(obs), dtype=torch.int64)}, None

    def update(self, batch):
        self.batches.append(batch)
        return dict(self.out)


def source_of(learner: Surprised, steps: int = 400) -> ReplaySource:
    env = VecEnv(CartPole(CartPoleConfig(), CPU), 4, CPU, name="cartpole")
    stream = Stream(env, learner.act, learner.carry)
    stream.begin()
    replay = Replay(200, 8, every=4, updates=3, start=40, priorities=Priorities(1.0, 0.4, steps))
    return ReplaySource(replay, stream, Phase("train", replay, learner.update))


def test_each_update_changes_what_the_next_one_draws():
    torch.manual_seed(0)
    learner = Surprised({"loss": torch.tensor(0.0), "priority": torch.full((8,), 1e-3)})
    source = source_of(learner)
    while not learner.batches:
        source.learn()
    assert source.learn() == {"loss": torch.tensor(0.0)}, "priorities are no metric"
    assert len(learner.batches) == 2 and not source.boundary
    first, second = (set(b["index"].tolist()) for b in learner.batches)
    assert not first & second, "what was drawn once has a thousandth of the mass"


def test_beta_rises_to_one_over_the_run():
    torch.manual_seed(0)
    learner = Surprised({"priority": torch.linspace(0.1, 10.0, 8)})
    source = source_of(learner, steps=400)
    while int(source.stream.step) < 500:
        source.learn()
    for step, beta in ((0, 0.4), (200, 0.7), (400, 1.0), (500, 1.0)):
        source.stream.step.fill_(step)
        source._draw(1)
        (batch,) = source.pending
        mass = source.ring.mass[source.ring._place(batch["index"] // 4, batch["index"] % 4)]
        assert len(mass.unique()) > 1
        assert torch.allclose(batch["weight"], (mass.min() / mass).pow(beta), rtol=1e-5)


def test_an_agent_that_returns_no_priority_is_told_so():
    source = source_of(Surprised({"loss": torch.tensor(0.0)}))
    with pytest.raises(PluginError, match=r"returns 'priority' \(B,\)"):
        for _ in range(100):
            source.learn()
