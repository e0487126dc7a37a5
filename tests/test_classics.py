"""The torch classic-control envs are Gymnasium's, state by state."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from rlgan import evaluate
from rlgan.contract import check_rows
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan.registry import Registry
from rlgan_envs.acrobot import Acrobot, AcrobotConfig
from rlgan_envs.mountaincar import MountainCar, MountainCarConfig
from rlgan_envs.mountaincar_continuous import MountainCarContinuous, MountainCarContinuousConfig
from rlgan_envs.pendulum import Pendulum, PendulumConfig, wrap

PI = math.pi
IDS = {
    Pendulum: ("Pendulum-v1", PendulumConfig()),
    Acrobot: ("Acrobot-v1", AcrobotConfig()),
    MountainCar: ("MountainCar-v0", MountainCarConfig()),
    MountainCarContinuous: ("MountainCarContinuous-v0", MountainCarContinuousConfig()),
}
ENVS = pytest.mark.parametrize("kind", IDS, ids=lambda kind: kind.__name__)
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])


def make(kind, dtype=torch.float32, **settings):
    return kind(type(IDS[kind][1])(**settings), "cpu", dtype)


def states(low, high, dtype, n=500):
    """Random states (n, d), already of the env's precision, so that both sides begin at the same numbers."""
    drawn = np.random.default_rng(0).uniform(low, high, (n, len(low)))
    return torch.tensor(drawn, dtype=dtype)


def one_by_one(ours, theirs, x, actions):
    """Step both sides from each state, ours all at once; returns (n, d), (n,), (n,) of each."""
    moved, reward, terminated = ours.step({"x": x}, torch.as_tensor(actions), None)
    rows = []
    for state, action in zip(x.double().numpy(), actions, strict=True):
        theirs.state = state.copy()
        _, their_reward, ended, truncated, _ = theirs.step(action)
        assert not truncated
        rows.append((np.array(theirs.state, np.float64), float(their_reward), ended))
    theirs_moved, theirs_reward, theirs_terminated = (np.array(column) for column in zip(*rows, strict=True))
    assert reward.dtype == moved["x"].dtype == ours.dtype and terminated.dtype == torch.bool
    ours_out = (moved["x"].double().numpy(), reward.double().numpy(), terminated.numpy())
    return ours_out, (theirs_moved, theirs_reward, theirs_terminated)


def gap(a, b):
    return np.abs(a - b).max()


@ENVS
def test_spaces_and_limit_are_gymnasiums(kind):
    theirs, ours = gymnasium.make(IDS[kind][0]), make(kind)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    assert ours.max_steps == theirs.spec.max_episode_steps


@PRECISIONS
@pytest.mark.parametrize("gravity", [10.0, 3.7])
def test_every_pendulum_step_equals_gymnasium(dtype, tolerance, gravity):
    theirs = gymnasium.make("Pendulum-v1", g=gravity).unwrapped
    x = states([-30.0, -8.0], [30.0, 8.0], dtype)
    actions = np.random.default_rng(1).uniform(-3, 3, (500, 1))
    ours, wanted = one_by_one(make(Pendulum, dtype, gravity=gravity), theirs, x, actions)
    assert gap(ours[0], wanted[0]) < tolerance and gap(ours[1], wanted[1]) < tolerance
    assert not ours[2].any() and not wanted[2].any()
    at_limit = np.abs(ours[0][:, 1]) == 8.0
    assert 5 < at_limit.sum() < 250


@pytest.mark.parametrize(("dtype", "tolerance", "share"), [(torch.float64, 1e-9, 1.0), (torch.float32, 1e-4, 0.7)])
def test_every_acrobot_step_equals_gymnasium(dtype, tolerance, share):
    """Near the limits of speed one Runge-Kutta step of 0.2 s magnifies float32's rounding to 4e-3, hence ``share``."""
    theirs = gymnasium.make("Acrobot-v1").unwrapped
    theirs.reset(seed=0)
    high = np.array([PI, PI, 4 * PI * share, 9 * PI * share])
    x = states(-high, high, dtype)
    actions = np.random.default_rng(1).integers(0, 3, 500)
    ours, wanted = one_by_one(make(Acrobot, dtype), theirs, x, actions)
    off = np.abs(ours[0] - wanted[0])
    off[:, :2] = np.minimum(off[:, :2], 2 * PI - off[:, :2])  # pi and -pi are the same angle
    assert off.max() < tolerance
    assert np.abs(ours[0][:, :2]).max() <= PI + 1e-6
    assert (ours[1] == wanted[1]).all() and (ours[2] == wanted[2]).all()
    assert 50 < ours[2].sum() < 450
    assert (np.abs(ours[0][:, 2]) > 4 * PI - 1e-5).any(), "some velocities are clipped"


@PRECISIONS
@pytest.mark.parametrize("goal_velocity", [0.0, 0.02])
def test_every_mountaincar_step_equals_gymnasium(dtype, tolerance, goal_velocity):
    theirs = gymnasium.make("MountainCar-v0", goal_velocity=goal_velocity).unwrapped
    x = states([-1.2, -0.07], [0.6, 0.07], dtype)
    actions = np.random.default_rng(1).integers(0, 3, 500)
    ours, wanted = one_by_one(make(MountainCar, dtype, goal_velocity=goal_velocity), theirs, x, actions)
    assert gap(ours[0], wanted[0]) < tolerance
    assert (ours[1] == wanted[1]).all() and (ours[2] == wanted[2]).all()
    assert 10 < ours[2].sum() < 250
    assert ((ours[0][:, 0] < -1.1999) & (ours[0][:, 1] == 0)).any(), "some cars hit the wall"


@PRECISIONS
@pytest.mark.parametrize("goal_velocity", [0.0, 0.02])
def test_every_continuous_mountaincar_step_equals_gymnasium(dtype, tolerance, goal_velocity):
    theirs = gymnasium.make("MountainCarContinuous-v0", goal_velocity=goal_velocity).unwrapped
    x = states([-1.2, -0.07], [0.6, 0.07], dtype)
    actions = np.random.default_rng(1).uniform(-1.5, 1.5, (500, 1))
    ours, wanted = one_by_one(make(MountainCarContinuous, dtype, goal_velocity=goal_velocity), theirs, x, actions)
    if dtype == torch.float64:  # theirs is rounded to float32 after the step, with all digits correct
        assert (ours[0].astype(np.float32) == wanted[0].astype(np.float32)).all()
    assert gap(ours[0], wanted[0]) < max(tolerance, 1e-7)
    assert gap(ours[1], wanted[1]) < tolerance
    assert (ours[2] == wanted[2]).all() and 10 < ours[2].sum() < 250


@ENVS
def test_whole_episodes_equal_gymnasium(kind):
    """Observations, rewards and ends through VecEnv beside Gymnasium's own wrappers, to the end of an episode."""
    theirs = gymnasium.make(IDS[kind][0], max_episode_steps=60)
    theirs.reset(seed=3)
    theirs.action_space.seed(3)
    ours = VecEnv(make(kind, torch.float64, max_steps=60), 1, "cpu")
    ours.reset(seed=0)
    ours.state["x"].copy_(torch.tensor(np.array(theirs.unwrapped.state)))
    for _ in range(60):
        action = theirs.action_space.sample()
        action = action.astype(np.float64) if np.ndim(action) else action
        obs, reward, terminated, truncated, _ = theirs.step(action)
        got, r, ended, cut, info = ours.step(torch.as_tensor(action)[None])
        assert np.abs(got[0].numpy() - obs).max() < 1e-4 and float(r) == pytest.approx(reward, abs=1e-4)
        assert (bool(ended), bool(cut), bool(info["valid"])) == (terminated, truncated, True)
    assert truncated
    _, r, ended, cut, info = ours.step(torch.as_tensor(action)[None])
    assert float(r) == 0 and not (ended | cut | info["valid"]).any() and info["first"].all()


START = {
    Pendulum: [(-PI, PI), (-1.0, 1.0)],
    Acrobot: [(-0.1, 0.1)] * 4,
    MountainCar: [(-0.6, -0.4), (0.0, 0.0)],
    MountainCarContinuous: [(-0.6, -0.4), (0.0, 0.0)],
}


@ENVS
def test_starts_are_uniform_and_seeded(kind):
    rng = torch.Generator().manual_seed(5)
    x = make(kind).reset(8192, rng)["x"]
    for (low, high), column in zip(START[kind], x.unbind(-1), strict=True):
        assert low - 1e-6 <= float(column.min()) and float(column.max()) <= high + 1e-6
        assert float(column.mean()) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
        assert float(column.std()) == pytest.approx((high - low) / 12**0.5, rel=0.02)
    assert torch.equal(make(kind).reset(8192, torch.Generator().manual_seed(5))["x"], x)
    theirs = gymnasium.make(IDS[kind][0]).unwrapped
    for seed in range(50):
        theirs.reset(seed=seed)
        for (low, high), value in zip(START[kind], theirs.state, strict=True):
            assert low - 1e-6 <= value <= high + 1e-6


@ENVS
def test_rows_keep_their_promises(kind):
    env = make(kind)
    check_rows(env, 4, torch.device("cpu"), kind.__name__)
    state = env.reset(4, None)
    before = state["x"].clone()
    env.step(state, torch.as_tensor(np.stack([env.action_space.sample() for _ in range(4)])), None)
    assert torch.equal(state["x"], before), "step changes nothing in place"


@ENVS
def test_compiled_step_equals_eager(kind):
    import torch._inductor.config as inductor

    env = make(kind, max_steps=20)
    env.action_space.seed(0)
    actions = [torch.as_tensor(np.stack([env.action_space.sample() for _ in range(32)])) for _ in range(25)]
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        vec = VecEnv(make(kind, max_steps=20), 32, "cpu")
        vec.start()
        with inductor.patch(fallback_random=True):
            step = torch.compile(vec.step, fullgraph=True) if compiled else vec.step
            results.append([step(action) for action in actions])
    for eager, fast in zip(*results, strict=True):
        assert torch.allclose(eager[0], fast[0], atol=1e-4) and torch.allclose(eager[1], fast[1], atol=1e-4)
        assert torch.equal(eager[2], fast[2]) and torch.equal(eager[3], fast[3])


KNOWN = {
    Pendulum: {"random": (-1231.7, 40), "energy-swing-up": (-150.5, 12), "TQC": (-151.3, 0)},
    Acrobot: {"random": (-498.8, 2), "reaction-pump": (-84.5, 3), "QR-DQN": (-69.1, 0)},
    MountainCar: {"random": (-200.0, 0.1), "energy-pump": (-119.4, 0.6), "DQN, zoo": (-100.8, 0)},
    MountainCarContinuous: {"random": (-33.1, 1), "gentle-pump": (98.6, 0.1), "ARS": (96.7, 0)},
}


@ENVS
def test_references_span_the_scale(kind):
    for name, policy in make(kind).references().items():
        wanted, tolerance = KNOWN[kind][name]
        if not callable(policy):
            assert policy.value == wanted
            continue
        with seeding.fork(0, torch.device("cpu")):
            env = VecEnv(make(kind), 500, "cpu")
            games = evaluate.play(env, evaluate.reference(env, policy), lambda n: None, 500)
        assert sum(games["returns"]) / 500 == pytest.approx(wanted, abs=tolerance), name


def test_angles_wrap_as_gymnasium_wraps_them():
    from gymnasium.envs.classic_control.acrobot import wrap as theirs

    angles = np.concatenate([np.linspace(-40, 40, 1001), [-PI, PI, 0.0]])
    ours = wrap(torch.tensor(angles)).numpy()
    assert gap(ours, np.array([theirs(a, -PI, PI) for a in angles])) < 1e-12


def coloured(env, *x):
    """Mean row and column of the orange part (the rod, the outer link, the car's cabin) in the picture of a state."""
    frame = env.render({"x": torch.tensor([x])}, 0)
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    rows, columns = (np.abs(frame.astype(int) - (202, 130, 52)).max(-1) < 10).nonzero()
    assert len(rows) > 50
    return rows.mean(), columns.mean()


def test_pictures_show_the_state():
    pytest.importorskip("cv2")
    up, left = (coloured(make(Pendulum), angle, 0.0) for angle in (0.0, PI / 2))
    assert up[0] < 200 and abs(up[1] - 240) < 2 and left[1] < 200 and abs(left[0] - 240) < 2
    down, right = (coloured(make(Acrobot), angle, 0.0, 0.0, 0.0) for angle in (0.0, PI / 2))
    assert down[0] > 350 and abs(down[1] - 240) < 2 and right[1] > 350 and abs(right[0] - 240) < 2
    for kind in (MountainCar, MountainCarContinuous):
        valley, hill = (coloured(make(kind), at, 0.0) for at in (-PI / 6, 0.3))
        assert abs(valley[1] - (1.2 - PI / 6) * 600 / 1.8) < 3
        assert hill[1] > 450 and hill[0] < valley[0] - 150


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "acrobot", "mountaincar", "mountaincar-continuous", "taxi"])
def test_known_scores_are_of_the_default_length(name):
    spec = Registry().get("envs", name)
    assert spec.known(spec.config()) == spec.scores and not spec.known(spec.config(max_steps=50))


@pytest.mark.parametrize(
    ("name", "settings", "known"),
    [
        ("cartpole", {"velocities": False}, True),
        ("frozenlake", {"slippery": False}, False),
        ("frozenlake", {"map": "8x8"}, False),
        ("cliffwalking", {"slippery": True}, False),
    ],
)
def test_known_scores_are_of_the_very_problem(name, settings, known):
    spec = Registry().get("envs", name)
    assert bool(spec.known(spec.config(**settings))) == known
