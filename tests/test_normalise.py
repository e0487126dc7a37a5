"""Running means and deviations: by hand, against stable-baselines3's and Gymnasium's, in rollouts, replays and runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.wrappers.utils import RunningMeanStd as GymnasiumMoments
from torch import Tensor

import rlgan
from rlgan import trained
from rlgan.cli.main import main
from rlgan.core.capture import capture
from rlgan.core.protocols import Phase, Replay, Rollouts, Spaces
from rlgan.core.source import make_source
from rlgan.core.stream import Stream
from rlgan.core.vec import VecEnv
from rlgan.nn.normalise import EPSILON, PRIOR, Moments, Normaliser, scaled, scales
from rlgan.nn.value_heads import next_values
from rlgan.store import checkpoint
from rlgan_agents.ppo import PPO, PPOConfig
from rlgan_envs.cartpole import CartPole, CartPoleConfig

CPU = torch.device("cpu")
RNG = np.random.default_rng(2)


def test_merges_by_hand() -> None:
    """1, 2, 3, 4 beside a prior of weight 1e-4 with mean 0 and variance 1."""
    moments = Moments((), CPU)
    moments.merge(torch.tensor([1.0, 2.0]), torch.ones(2, dtype=torch.bool))
    moments.merge(torch.tensor([3.0, 4.0]), torch.ones(2, dtype=torch.bool))
    total = 4 + PRIOR
    mean = 10 / total
    squares = PRIOR * (1 + mean**2) + sum((x - mean) ** 2 for x in (1, 2, 3, 4))
    assert float(moments.mean) == pytest.approx(mean, rel=1e-12)
    assert float(moments.variance) == pytest.approx(squares / total, rel=1e-12)
    assert float(moments.count) == total


def test_one_by_one_is_all_at_once() -> None:
    values = torch.from_numpy(RNG.normal(50.0, 3.0, (40, 2, 3)))
    at_once, singly = Moments((2, 3), CPU), Moments((2, 3), CPU)
    at_once.merge(values, torch.ones(40, dtype=torch.bool))
    for value in values:
        singly.merge(value[None], torch.ones(1, dtype=torch.bool))
    torch.testing.assert_close(singly.mean, at_once.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(singly.variance, at_once.variance, rtol=1e-9, atol=0)


def test_what_is_not_valid_does_not_count() -> None:
    some, all_of_them = Moments((2,), CPU), Moments((2,), CPU)
    values, valid = torch.randn(5, 4, 2), torch.rand(5, 4) < 0.5
    some.merge(values, valid)
    all_of_them.merge(values[valid], torch.ones(int(valid.sum()), dtype=torch.bool))
    torch.testing.assert_close(some.mean, all_of_them.mean)
    torch.testing.assert_close(some.variance, all_of_them.variance)
    before = {name: value.clone() for name, value in some.state_dict().items()}
    some.merge(values, torch.zeros(5, 4, dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in some.state_dict().items())


def test_moments_are_those_of_the_peers() -> None:
    peers: list[Any] = [GymnasiumMoments(shape=(3,))]
    sb3 = pytest.importorskip("stable_baselines3.common.running_mean_std")
    peers.append(sb3.RunningMeanStd(shape=(3,)))
    ours = Moments((3,), CPU)
    for size in (1, 4, 100):
        values = RNG.normal(RNG.normal(0, 5), 3.0, (size, 3))
        ours.merge(torch.from_numpy(values), torch.ones(size, dtype=torch.bool))
        for peer in peers:
            peer.update(values)
            np.testing.assert_allclose(ours.mean.numpy(), peer.mean, rtol=1e-12)
            np.testing.assert_allclose(ours.variance.numpy(), peer.var, rtol=1e-12)


def test_a_games_numbers_are_vecnormalizes() -> None:
    """CartPole in three copies: the same rows give the same statistics, observations and rewards."""
    import gymnasium

    vec = pytest.importorskip("stable_baselines3.common.vec_env")
    theirs = vec.VecNormalize(vec.DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * 3), gamma=0.9, clip_obs=2.0)
    theirs.seed(0)
    space = theirs.observation_space
    ours = Normaliser(space, 3, CPU, gamma=0.9, clip=2.0)
    theirs.reset()
    for _ in range(200):
        obs = theirs.get_original_obs()
        seen, reward, done, _ = theirs.step(RNG.integers(0, 2, 3))
        ended = torch.from_numpy(done)
        raw = torch.from_numpy(theirs.get_original_reward())
        row = {"obs": torch.from_numpy(obs), "reward": raw, "terminated": ended, "truncated": torch.zeros_like(ended)}
        ours.learn({**row, "valid": torch.ones(3, dtype=torch.bool)}, slice(None))
        np.testing.assert_allclose(float(ours.returns.variance), theirs.ret_rms.var, rtol=1e-9)
        batch = ours.batch({"obs": row["obs"], "next_obs": row["obs"], "reward": raw})
        np.testing.assert_allclose(batch["reward"].numpy(), np.clip(reward, -2.0, 2.0), rtol=1e-6)
    # theirs has counted the observation that the last step gave, too
    part = ours.parts
    part.merge(torch.from_numpy(theirs.get_original_obs()), torch.ones(3, dtype=torch.bool))
    np.testing.assert_allclose(part.mean.numpy(), theirs.obs_rms.mean, rtol=1e-6)
    np.testing.assert_allclose(part.variance.numpy(), theirs.obs_rms.var, rtol=1e-6)
    np.testing.assert_allclose(ours(torch.from_numpy(theirs.get_original_obs())).numpy(), seen, rtol=1e-4, atol=1e-5)


def test_scaled_floats_have_no_bounds() -> None:
    image, number = Box(0, 255, (4, 84, 84), np.uint8), Discrete(3)
    space = scaled(Dict({"board": Box(0.0, 255.0, (2, 9, 9), np.float32), "image": image, "n": number}))
    assert space == Dict({"board": Box(-np.inf, np.inf, (2, 9, 9), np.float32), "image": image, "n": number})


def test_dicts_are_scaled_part_by_part() -> None:
    space = Dict({"arm": Box(-9, 9, (2,), np.float32), "mode": Discrete(3), "action_mask": Box(0, 1, (4,), np.int8)})
    assert scales(space) and not scales(Discrete(3)) and not scales(Box(0, 255, (4, 84, 84), np.uint8))
    normaliser = Normaliser(space, 1, CPU, None, 10.0)
    obs = {"arm": torch.randn(1, 2), "mode": torch.tensor([2]), "action_mask": torch.ones(1, 4, dtype=torch.int8)}
    for row in range(50):
        rows = {"obs": {**obs, "arm": torch.full((1, 2), 5.0 + row % 2)}, "valid": torch.ones(1, dtype=torch.bool)}
        rows |= {"reward": torch.ones(1), "terminated": rows["valid"], "truncated": rows["valid"]}
        normaliser.learn(rows, slice(None))
    seen = normaliser({**obs, "arm": torch.tensor([[6.0, 5.5]])})
    assert seen["mode"] is obs["mode"] and seen["action_mask"] is obs["action_mask"]
    assert seen["arm"].tolist() == [pytest.approx([1.0, 0.0], abs=1e-2)]
    assert normaliser.batch({"obs": obs, "next_obs": obs, "reward": torch.tensor([3.0])})["reward"].tolist() == [3.0]


def made(copies: int, **settings: Any) -> tuple[Stream, PPO, Normaliser]:
    torch.manual_seed(0)
    env = VecEnv(CartPole(CartPoleConfig(max_steps=9), CPU), copies, CPU)
    agent = PPO(Spaces(env.single_observation_space, env.single_action_space, 1000), PPOConfig(**settings), CPU)
    normaliser = Normaliser(env.single_observation_space, copies, CPU, 0.5, 10.0)
    stream = Stream(env, lambda obs, *rest: agent.act(normaliser(obs), *rest), agent.carry, normaliser)
    stream.begin()
    return stream, agent, normaliser


def test_a_rollout_is_seen_as_it_was_acted_on_and_learned_afterwards() -> None:
    stream, agent, normaliser = made(4)
    kept: list[dict[str, Tensor]] = []

    def update(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        kept.append(batch)
        return {}

    source = make_source(Phase("train", Rollouts(12), update, prepare=agent.prepare), stream)
    raw = [stream.env.env.observe(stream.env.state).clone()]
    step = stream.env.step
    stream.env.step = lambda action: (out := step(action), raw.append(out[0].clone()))[0]  # type: ignore[method-assign]
    expected = Moments((4,), CPU)
    for rollout in range(3):
        mean, deviation = normaliser.parts.mean.clone(), normaliser.parts.deviation().clone()
        source.learn()
        batch, rows = kept[-1], torch.stack(raw[12 * rollout : 12 * rollout + 12]).flatten(0, 1)
        torch.testing.assert_close(batch["obs"], ((rows - mean) / deviation).clamp(-10, 10).float())
        with torch.no_grad():
            parameters, _ = agent.net.evaluate(batch)
        ratio = (agent.net.distribution.log_prob(parameters, batch["draw"]) - batch["log_prob"]).exp()
        assert float((ratio - 1).abs().max()) < 1e-5
        expected.merge(rows, batch["valid"])
        torch.testing.assert_close(normaliser.parts.mean, expected.mean)
        torch.testing.assert_close(normaliser.parts.variance, expected.variance)
    assert int((~kept[-1]["valid"]).sum()) > 0


def test_final_observations_are_scaled_as_all_others() -> None:
    """Of a simulator that resets within a step: the value at a time limit is that of what the agent would see there."""
    normaliser = Normaliser(Box(-1e4, 1e4, (1,), np.float32), 1, CPU, None, 10.0)
    normaliser.parts.merge(torch.tensor([[950.0], [1050.0]]), torch.ones(2, dtype=torch.bool))
    yes = torch.ones(2, 1, dtype=torch.bool)
    rollout = {"obs": torch.tensor([[[950.0]], [[1000.0]], [[950.0]]]), "terminated": ~yes, "valid": yes}
    rollout |= {"next_obs": torch.tensor([[[1000.0]], [[1050.0]]]), "final_obs": torch.tensor([[[0.0]], [[1050.0]]])}
    rollout |= {"reward": torch.ones(2, 1), "truncated": torch.tensor([[False], [True]])}
    seen = normaliser.rollout(rollout)
    values = next_values(seen | {"value": seen["obs"][:-1, :, 0]}, lambda obs: obs[..., 0])
    torch.testing.assert_close(values, torch.tensor([[0.0], [1.0]]), atol=1e-2, rtol=0)


def test_rewards_of_a_rollout_by_hand() -> None:
    """Two copies, discount 0.5: returns 1, 1.5, 1.75 of one that goes on; 2, its end, a row that does not count, 2."""
    normaliser = Normaliser(None, 2, CPU, 0.5, 10.0)
    no = torch.zeros(3, 2, dtype=torch.bool)
    ended, invalid = no.clone(), no.clone()
    ended[0, 1], invalid[1, 1] = True, True
    rollout = {"obs": torch.zeros(4, 2, 1), "next_obs": torch.zeros(3, 2, 1), "terminated": ended, "truncated": no}
    rollout |= {"reward": torch.tensor([[1.0, 2.0], [1.0, 0.0], [1.0, 2.0]]), "valid": ~invalid}
    scaled = normaliser.rollout(rollout)["reward"]
    returns = [1.0, 1.5, 1.75, 2.0, 2.0]
    total = len(returns) + PRIOR
    mean = sum(returns) / total
    variance = (PRIOR * (1 + mean**2) + sum((x - mean) ** 2 for x in returns)) / total
    torch.testing.assert_close(scaled, rollout["reward"] / (variance + EPSILON) ** 0.5)
    assert normaliser.running.tolist() == [1.75, 2.0]


def test_a_replay_holds_raw_rows_and_gives_scaled_ones() -> None:
    stream, _, normaliser = made(2)
    seen: list[dict[str, Tensor]] = []

    def update(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(batch)
        return {}

    source = make_source(Phase("train", Replay(400, 8, every=2, start=100), update), stream)
    while len(seen) < 20:
        source.learn()
    ring, batch = source.ring, seen[-1]  # type: ignore[union-attr]
    rows = stream.rows // 2
    obs, valid = ring.fields["obs"][:rows], ring.fields["valid"][:rows]
    expected = Moments((4,), CPU)
    expected.merge(obs, valid)
    torch.testing.assert_close(normaliser.parts.mean, expected.mean)
    torch.testing.assert_close(normaliser.parts.variance, expected.variance)
    drawn = ring.flat["obs"][batch["index"]], ring.flat["obs"][batch["index"] + 2]
    for name, raw in zip(("obs", "next_obs"), drawn, strict=True):
        torch.testing.assert_close(batch[name], normaliser(raw))
    torch.testing.assert_close(batch["reward"], (1 / normaliser.returns.deviation()).float().expand(8))


SMALL = {"agent": {"name": "ppo", "hidden": (16,), "horizon": 16, "minibatch": 64}, "env": "cartpole", "copies": 4}
BOTH = {"normalise": {"obs": True, "reward": True}, "preset": "none", "steps": 1000}


def test_evaluations_learn_nothing_and_policies_see_alike(tmp_path: Path) -> None:
    often = rlgan.run(**SMALL, **BOTH, eval={"every": 200, "episodes": 4}, dir=tmp_path / "often")
    never = rlgan.run(**SMALL, **BOTH, eval={"episodes": 4}, dir=tmp_path / "never")
    one, two = (checkpoint.newest(Path(run) / "checkpoints").tree for run in (often, never))
    parts = one["stream"]["normaliser"], two["stream"]["normaliser"]
    for name, value in parts[0]["parts"].items():
        assert torch.equal(value, parts[1]["parts"][name])
    assert float(parts[0]["parts"]["count"]) == pytest.approx(int(one["stream"]["step"]) + PRIOR)
    assert often.evaluation["returns"] == never.evaluation["returns"]
    found = trained.load(Path(often))
    assert found.normaliser is not None
    obs = np.array([[0.1, -0.5, 0.02, 0.7], [0.0, 1.0, -0.1, -0.3]], np.float32)
    step = torch.zeros((), dtype=torch.int64)
    expected = found.learner.act(found.normaliser(torch.from_numpy(obs)), None, step, False)[0]["action"]
    assert rlgan.load(often)(obs).tolist() == expected.tolist()
    code = main(["eval", str(often.dir), "episodes=4", "--json"])
    assert code == 0


def test_compiled_statistics_are_the_same() -> None:
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler")
    eager, compiled = (Normaliser(Box(-9, 9, (3,), np.float32), 4, CPU, 0.9, 10.0) for _ in range(2))
    captured = capture(compiled.rollout, "compile")
    for _ in range(3):
        ended, obs = torch.rand(8, 4) < 0.2, 3 * torch.randn(9, 4, 3) + 1
        rollout = {"obs": obs, "next_obs": obs[1:], "reward": torch.randn(8, 4), "valid": torch.rand(8, 4) < 0.9}
        rollout |= {"terminated": ended, "truncated": torch.zeros_like(ended)}
        with torch.no_grad():
            one, two = eager.rollout(rollout), captured(rollout)
        for name in ("obs", "next_obs", "reward"):
            torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-6)
    one, two = eager.state_dict(), compiled.state_dict()
    for name in ("mean", "variance", "count"):
        torch.testing.assert_close(one["parts"][name], two["parts"][name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(one["returns"][name], two["returns"][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["agent=q-learning", "env=frozenlake", "normalise.obs=true"],
            "normalise.obs scales arrays of floats, and env=frozenlake shows Discrete(16): leave it out",
        ),
        (
            ["agent=value-iteration", "env=frozenlake", "normalise.reward=true", "normalise.gamma=0.9"],
            "an agent that plans with the env's model plans for the env's own states and reward: leave reward= and "
            "normalise.* out",
        ),
        (
            ["agent=value-iteration", "env=frozenlake", "normalise.reward=true"],
            "agent=value-iteration has no gamma to scale rewards by: write normalise.gamma=0.99",
        ),
        (
            ["agent=random", "env=cartpole", "normalise.obs=true"],
            "an agent that learns nothing needs neither reward= nor normalise.*: leave them out",
        ),
        (
            ["generator=dcgan", "data=digits", "normalise.obs=true"],
            "normalise.obs is for runs in an env: leave it out.",
        ),
        (
            ["agent=ppo", "env=inventory-multi", "normalise.reward=true"],
            "agent.rows=true reads rewards in what the env shows, as they are: leave reward= and normalise.* out",
        ),
        (
            ["agent=ppo", "env=inventory-multi", "reward=rnd"],
            "agent.rows=true reads rewards in what the env shows, as they are: leave reward= and normalise.* out",
        ),
        (["agent=ppo", "env=cartpole", "normalise.clip=0"], "normalise.clip=0"),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_reward_that_is_judged_when_drawn_has_no_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demos = tmp_path / "demos.safetensors"
    words = ["agent=reference:linear-feedback", "env=cartpole", "env.max_steps=20", f"dir={tmp_path / 'expert'}"]
    assert main(["run", *words]) == 0
    assert main(["eval", str(tmp_path / "expert"), "episodes=2", f"demos={demos}"]) == 0
    words = ["agent=dqn", "env=cartpole", "reward=gail", f"reward.demos={demos}", "normalise.reward=true"]
    assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == 2
    assert "judges rows when they are drawn, so there are no returns to scale by" in capsys.readouterr().err


def test_statistics_of_no_values_are_refused() -> None:
    moments = Moments((), CPU)
    saved = moments.state_dict() | {"variance": torch.tensor([-1.0], dtype=torch.float64)}
    with pytest.raises(ValueError, match="not those of any values"):
        Moments((), CPU).load_state_dict(saved)
