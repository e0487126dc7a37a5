"""Bricks against a game of one copy, written as plain Python on a set of bricks."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rlgan import evaluate
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan_envs.bricks import Bricks, BricksConfig, rlgan_specs


@dataclass
class Game:
    """One game, read off the rules: cells are (row, column), the top row is 0, the paddle's row 9."""

    ball: tuple[int, int]
    heading: tuple[int, int]
    paddle: int
    bricks: set
    wall: set

    def play(self, action):
        """One step; gives the reward and whether the ball is lost."""
        self.paddle = min(8, max(1, self.paddle + (-1, 0, 1)[action]))
        (row, column), (down, right) = self.ball, self.heading
        if row == 8 and down == 1 and column in (self.paddle - 1, self.paddle, self.paddle + 1):
            down, right = -1, column - self.paddle or right
            if not self.bricks:
                self.bricks = set(self.wall)
        pointing = right
        if not 0 <= column + right <= 9:
            right = -right
        ahead, beside = (row + down, column + right), (row, column + right)
        reward = int(ahead in self.bricks)
        if not reward and ahead[0] >= 0:
            self.ball, self.heading = ahead, (down, right)
        elif beside in self.bricks:
            self.ball, self.heading = (row, column), (-down, pointing)
        else:
            self.ball, self.heading = beside, (-down, right)
        self.bricks = self.bricks - {ahead}
        return reward, self.ball[0] == 9


def game(state, i, rows):
    """The state of copy i as a Game."""
    row, column, down, right = state["ball"][i].tolist()
    bricks = {tuple(cell) for cell in state["bricks"][i].nonzero().tolist()}
    wall = {(r, c) for r in range(1, rows + 1) for c in range(10)}
    return Game((row, column), (down, right), int(state["paddle"][i]), bricks, wall)


def one(ball, paddle=4, bricks=(), rows=3, action=1):
    """Step one copy from a position; gives the new state, the reward and whether the ball is lost."""
    env = Bricks(BricksConfig(rows=rows), "cpu")
    state = env.reset(1, None)
    state["ball"], state["paddle"] = torch.tensor([ball]), torch.tensor([paddle])
    state["bricks"] = torch.zeros(1, 10, 10, dtype=torch.bool)
    for row, column in bricks:
        state["bricks"][0, row, column] = True
    state, reward, terminated = env.step(state, torch.tensor([action]), None)
    return state, float(reward), bool(terminated)


@pytest.mark.parametrize(("policy", "rows"), [("random", 3), ("tracking", 1), ("tracking", 3), ("tracking", 4)])
def test_every_step_equals_the_plain_game(policy, rows):
    n, steps = 8, 1000
    with seeding.fork(0, torch.device("cpu")):
        env = Bricks(BricksConfig(rows=rows), "cpu")
        act, state = env.references()[policy], env.reset(n, None)
        games = [game(state, i, rows) for i in range(n)]
        hits = losses = walls = 0
        for _ in range(steps):
            action = act(state, None)
            state, reward, terminated = env.step(state, action, None)
            for i, plain in enumerate(games):
                before = len(plain.bricks)
                assert (float(reward[i]), bool(terminated[i])) == plain.play(int(action[i]))
                assert game(state, i, rows) == plain
                # bricks vanish by a reward each, and come only as a whole wall where there were none
                if len(plain.bricks) > before:
                    assert before == 0 and plain.bricks == plain.wall and reward[i] == 0 and plain.ball[0] == 7
                    walls += 1
                else:
                    assert len(plain.bricks) == before - reward[i]
                if terminated[i]:
                    losses += 1
            hits += int(reward.sum())
            fresh = env.reset(n, None)
            state = {k: torch.where(terminated.view(-1, *[1] * (v.dim() - 1)), fresh[k], v) for k, v in state.items()}
            games = [game(state, i, rows) if terminated[i] else plain for i, plain in enumerate(games)]
    if policy == "random":
        assert losses > 500 and hits > 200
    else:
        assert losses == 0 and hits > 250 and walls >= n


def test_any_position_equals_the_plain_game():
    """Positions that play seldom reaches: holes, corners, the gap under the ceiling, half walls."""
    draw, n = random.Random(0), 2000
    env = Bricks(BricksConfig(rows=4), "cpu")
    state = env.reset(n, None)
    for i in range(n):
        state["bricks"][i, 1:5] = torch.rand(4, 10, generator=torch.Generator().manual_seed(i)) < draw.random()
        row, column = draw.randrange(9), draw.randrange(10)
        state["bricks"][i, row, column] = False
        right = draw.choice([r for r in (-1, 1) if 0 <= column - r <= 9])
        state["ball"][i] = torch.tensor([row, column, draw.choice((-1, 1)), right])
        state["paddle"][i] = draw.randrange(1, 9)
    games = [game(state, i, 4) for i in range(n)]
    for _ in range(6):
        action = torch.tensor([draw.randrange(3) for _ in range(n)])
        state, reward, terminated = env.step(state, action, None)
        for i, plain in enumerate(games):
            if plain.ball[0] < 9:
                assert (float(reward[i]), bool(terminated[i])) == plain.play(int(action[i]))
                assert game(state, i, 4) == plain and plain.ball not in plain.bricks


@pytest.mark.parametrize(
    ("ball", "expected"),
    [
        ((5, 4, 1, 1), (6, 5, 1, 1)),  # free flight
        ((5, 9, -1, 1), (4, 8, -1, -1)),  # right wall
        ((5, 0, 1, -1), (6, 1, 1, 1)),  # left wall
        ((0, 4, -1, 1), (0, 5, 1, 1)),  # ceiling: the row stays
        ((0, 4, 1, 1), (1, 5, 1, 1)),  # down from it
        ((0, 9, -1, 1), (0, 8, 1, -1)),  # upper right corner
        ((0, 0, -1, -1), (0, 1, 1, 1)),  # upper left corner
        ((8, 3, 1, 1), (7, 2, -1, -1)),  # the paddle's left cell sends left
        ((8, 4, 1, 1), (7, 5, -1, 1)),  # its middle on to the right
        ((8, 4, 1, -1), (7, 3, -1, -1)),  # or to the left
        ((8, 5, 1, -1), (7, 6, -1, 1)),  # its right cell to the right
    ],
)
def test_bounces_by_hand(ball, expected):
    state, reward, lost = one(ball, bricks=[(1, 0)])
    assert (tuple(state["ball"][0].tolist()), reward, lost) == (expected, 0.0, False)


def test_the_paddle_reaches_both_walls_and_sends_the_ball_off_them():
    state, _, _ = one((8, 0, 1, -1), paddle=1, bricks=[(1, 0)], action=0)
    assert state["paddle"].tolist() == [1] and state["ball"].tolist() == [[7, 1, -1, 1]]
    state, _, _ = one((8, 9, 1, 1), paddle=8, bricks=[(1, 0)], action=2)
    assert state["paddle"].tolist() == [8] and state["ball"].tolist() == [[7, 8, -1, -1]]


def test_the_paddle_moves_before_the_ball():
    for action, lost in ((0, True), (1, True), (2, False)):
        state, reward, terminated = one((8, 6, 1, 1), paddle=4, bricks=[(1, 0)], action=action)
        assert (terminated, reward) == (lost, 0.0)
        assert state["ball"].tolist() == ([[9, 7, 1, 1]] if lost else [[7, 7, -1, 1]])


def test_bricks_turn_the_ball_back():
    state, reward, lost = one((4, 4, -1, 1), bricks=[(3, 5), (3, 4)])
    assert (state["ball"].tolist(), reward, lost) == ([[4, 5, 1, 1]], 1.0, False)
    assert state["bricks"][0].nonzero().tolist() == [[3, 4]]
    state, reward, _ = one((3, 4, -1, 1), bricks=[(2, 5), (3, 5)])
    assert (state["ball"].tolist(), reward) == ([[3, 4, 1, 1]], 1.0), "a brick beside holds it"
    state, reward, _ = one((0, 4, 1, -1), bricks=[(1, 3)])
    assert (state["ball"].tolist(), reward) == ([[0, 3, -1, -1]], 1.0), "from above"
    state, reward, _ = one((3, 0, -1, -1), bricks=[(2, 1), (3, 1)])
    assert (state["ball"].tolist(), reward) == ([[3, 0, 1, -1]], 1.0), "held beside a wall"


def test_a_new_wall_comes_with_the_stroke_after_the_last_brick():
    state, reward, _ = one((4, 4, -1, 1), bricks=[(3, 5)])
    assert reward == 1 and not state["bricks"].any()
    state, reward, _ = one((7, 4, 1, 1), bricks=[])
    assert reward == 0 and not state["bricks"].any(), "not before the ball comes back"
    state, reward, _ = one((8, 4, 1, 1), bricks=[], rows=2)
    assert reward == 0 and state["bricks"][0].nonzero()[:, 0].unique().tolist() == [1, 2]
    assert state["bricks"].sum() == 20


def test_planes_show_all_that_decides_the_next_step():
    """Equal planes mean equal balls, directions included."""
    env = Bricks(BricksConfig(), "cpu")
    state = env.reset(500, torch.Generator().manual_seed(0))
    seen = {}
    for t in range(400):
        planes = env.observe(state)
        assert planes.shape == (500, 4, 10, 10) and planes.dtype == torch.uint8
        assert (planes[:, :3].flatten(2).sum(-1) == torch.tensor([3, 1, 1])).all()
        row, column = state["ball"][:, 0], state["ball"][:, 1]
        assert (planes[torch.arange(500), 1, row, column] == 1).all()
        assert torch.equal(planes[:, 3].bool(), state["bricks"])
        assert torch.equal(planes[:, 0, 9].float().argmax(1), state["paddle"] - 1)
        for i in range(0, 500, 25):
            key = planes[i].numpy().tobytes()
            assert seen.setdefault(key, state["ball"][i].tolist()) == state["ball"][i].tolist()
        act = env.references()["tracking" if t % 40 else "random"]
        state, _, terminated = env.step(state, act(state, None), None)
        fresh = env.reset(500, None)
        state = {k: torch.where(terminated.view(-1, *[1] * (v.dim() - 1)), fresh[k], v) for k, v in state.items()}
    assert len(seen) > 3000


def test_starts_are_sixteen_and_seeded():
    env = VecEnv(Bricks(BricksConfig(), "cpu"), 4096, "cpu")
    first, _ = env.reset(seed=5)
    starts, counts = env.state["ball"].unique(dim=0, return_counts=True)
    assert starts[:, 0].unique().tolist() == [4] and starts[:, 2].unique().tolist() == [1]
    assert len(starts) == 16 and starts[:, 1].unique().tolist() == list(range(1, 9))
    assert counts.min() > 256 - 5 * 16 and counts.max() < 256 + 5 * 16
    again, _ = env.reset(seed=5)
    assert torch.equal(first, again)


def test_sticky_repeats_the_action_done():
    env = Bricks(BricksConfig(sticky=0.25), "cpu")
    n = 20_000
    state = env.reset(n, None) | {"action": torch.full((n,), 2), "paddle": torch.full((n,), 4)}
    rng = torch.Generator().manual_seed(0)
    state, _, _ = env.step(state, torch.zeros(n, dtype=torch.int64), rng)
    repeated = state["paddle"] == 5
    assert float(repeated.float().mean()) == pytest.approx(0.25, abs=0.015)
    assert torch.equal(repeated, state["action"] == 2) and torch.equal(~repeated, state["action"] == 0)


def test_compiled_step_is_the_eager_one():
    import torch._inductor.config as inductor

    env = Bricks(BricksConfig(sticky=0.1), "cpu")

    def row(state, action):
        state, reward, terminated = env.step(state, action, None)
        return state, reward, terminated, env.observe(state)

    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        state = env.reset(64, None)
        with inductor.patch(fallback_random=True):
            step = torch.compile(row, fullgraph=True) if compiled else row
            actions = torch.randint(3, (60, 64))
            rows = []
            for action in actions:
                state, *rest = step(state, action)
                rows.append([*state.values(), *rest])
        results.append(rows)
    assert sum(int(r[-3].sum()) for r in results[0]) > 20 and int(results[0][-1][-2].sum()) > 40
    for eager, fast in zip(*results, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(eager, fast, strict=True))


def played(name, games, **settings):
    """Mean return and the lengths of games of a reference policy."""
    with seeding.fork(0, torch.device("cpu")):
        env = VecEnv(Bricks(BricksConfig(**settings), "cpu"), games, "cpu")
        result = evaluate.play(env, evaluate.reference(env, env.env.references()[name]), lambda n: None, games)
    return sum(result["returns"]) / games, result["lengths"]


def test_references_score_what_the_spec_says():
    (spec,) = rlgan_specs()
    scores = {score.who: score.value for score in spec.scores}
    # standard errors: 0.02 and 0.5
    assert played("random", 2000)[0] == pytest.approx(scores["random"], abs=0.08)
    mean, lengths = played("tracking", 500)
    assert mean == pytest.approx(scores["tracking"], abs=2) and set(lengths) == {1000}, "it never loses the ball"


def test_looking_ahead_beats_tracking():
    tracking, _ = played("tracking", 500, max_steps=120)
    mean, lengths = played("look-ahead", 100, max_steps=120)
    assert mean > tracking + 1 and set(lengths) == {120}


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_every_start_can_be_met(rows):
    assert set(played("tracking", 500, rows=rows, max_steps=30)[1]) == {30}


def test_a_picture_shows_bricks_ball_and_paddle():
    pytest.importorskip("cv2")
    env = VecEnv(Bricks(BricksConfig(), "cpu"), 2, "cpu")
    env.reset(seed=0)
    frame = env.render()[1]
    assert frame.shape == (480, 480, 3) and frame.dtype == np.uint8
    middles = frame[24::48, 24::48].astype(int)
    empty = (middles == middles[0, 0]).all(-1)
    row, column = env.state["ball"][1, :2].tolist()
    assert not empty[1:4].any() and not empty[row, column]
    assert empty.sum() == 100 - 30 - 1 - (~empty[9]).sum()
    paddle = (frame[9 * 48 + 12] != frame[0, 0]).any(-1).nonzero()[0]
    assert (paddle.min() + paddle.max()) / 2 == pytest.approx(4 * 48 + 24, abs=1) and 132 <= np.ptp(paddle) <= 144
