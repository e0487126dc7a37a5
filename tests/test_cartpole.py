"""The torch cart-pole is Gymnasium's, state by state."""

import gymnasium
import numpy as np
import pytest
import torch

from rlgan import evaluate
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan_envs.cartpole import CartPole, CartPoleConfig


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_every_step_equals_gymnasium(dtype, tolerance):
    ours = CartPole(CartPoleConfig(), "cpu", dtype)
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(500):
        state = rng.uniform(-1, 1, 4) * [2.6, 3.0, 0.25, 3.0]
        action = int(rng.integers(2))
        theirs.state, theirs.steps_beyond_terminated = tuple(state), None
        _, reward, terminated, _, _ = theirs.step(action)
        moved, got, ended = ours.step({"x": torch.tensor(state, dtype=dtype)[None]}, torch.tensor([action]), None)
        assert np.abs(np.array(theirs.state) - moved["x"][0].double().numpy()).max() < tolerance
        assert bool(ended[0]) == terminated and float(got[0]) == reward
        ends += terminated
    assert 50 < ends < 450


def test_a_whole_episode_equals_gymnasium():
    theirs = gymnasium.make("CartPole-v1")
    obs, _ = theirs.reset(seed=3)
    ours = VecEnv(CartPole(CartPoleConfig(), "cpu"), 1, "cpu")
    ours.reset(seed=0)
    ours.state["x"].copy_(torch.tensor(obs)[None])
    done, steps = False, 0
    while not done:
        action = steps % 3 == 0
        obs, _, terminated, truncated, _ = theirs.step(int(action))
        got, _, t, tr, _ = ours.step(torch.tensor([int(action)]))
        assert np.abs(got[0].numpy() - obs).max() < 1e-4
        assert (bool(t), bool(tr)) == (terminated, truncated)
        done, steps = terminated or truncated, steps + 1
    assert steps > 5


def test_starts_lie_in_the_box_and_are_seeded():
    env = VecEnv(CartPole(CartPoleConfig(), "cpu"), 4096, "cpu")
    first, _ = env.reset(seed=5)
    assert float(first.abs().max()) <= 0.05 and float(first.std()) == pytest.approx(0.1 / 12**0.5, rel=0.02)
    again, _ = env.reset(seed=5)
    assert torch.equal(first, again)


def test_references_span_the_scale():
    scores = {}
    for name, policy in CartPole(CartPoleConfig(), "cpu").references().items():
        if callable(policy):
            with seeding.fork(0, torch.device("cpu")):
                env = VecEnv(CartPole(CartPoleConfig(), "cpu"), 100, "cpu")
                games = evaluate.play(env, evaluate.reference(env, policy), lambda n: None, 1000)
            scores[name] = sum(games["returns"]) / 1000
        else:
            scores[name] = policy.value
    assert scores["random"] == pytest.approx(22.3, abs=1.5)
    assert scores["linear-feedback"] > 490
    assert scores["optimum"] == 500


def test_a_picture_shows_cart_and_pole():
    pytest.importorskip("cv2")
    env = VecEnv(CartPole(CartPoleConfig(), "cpu"), 2, "cpu")
    env.reset(seed=0)
    frames = env.render()
    assert len(frames) == 2 and frames[0].shape == (400, 600, 3) and frames[0].dtype == np.uint8
    dark = (frames[0].sum(-1) < 400).nonzero()
    assert 200 < dark[1].mean() < 400, "the cart starts in the middle"
