from __future__ import annotations

import copy
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from rlgan.errors import PluginError, UsageError
from rlgan.simulators.host import HostVecEnv
from rlgan_envs import atari
from rlgan_envs.atari import AtariConfig

ale_py = pytest.importorskip("ale_py")
NOOP, FIRE, RIGHT, LEFT = range(4)


def host(config: AtariConfig, rom="breakout", copies=4, groups=1, barrier=0, seed=3, render=False) -> HostVecEnv:
    def make(n):
        return atari.make(config, rom, n, render)

    return HostVecEnv(make, copies, "cpu", groups=groups, seed=seed, barrier=barrier, timeout=60, name=rom)


def actions(env: HostVecEnv, row: int) -> torch.Tensor:
    n = int(env.single_action_space.n)
    return torch.randint(0, n, (env.num_envs,), generator=torch.Generator().manual_seed(row))


def play(env: HostVecEnv, first: int, last: int, in_flight: bool = False) -> list[list[dict]]:
    rows = []
    for row in range(first, last):
        for g in range(env.groups):
            if not (in_flight and row == first):
                env.send(g, actions(env, row)[env.columns(g)])
        rows.append([env.receive(g) for g in range(env.groups)])
    return rows


def sim(config: AtariConfig, copies: int, rom="breakout", seed=0) -> atari.Atari:
    env = atari.make(config, rom, copies)
    env.reset(seed=seed)
    return env


def test_a_lost_life_is_terminated_and_the_game_goes_on():
    env, peer = sim(AtariConfig(fire=False), 4), sim(AtariConfig(fire=False, life_loss="ignore"), 4)
    bare = ale_py.AtariVectorEnv("breakout", 4, reward_clipping=False, life_loss_info=True)
    _, info = bare.reset(seed=0)
    lives, rng, lost, games = info["lives"], np.random.default_rng(0), 0, 0
    after_end = np.zeros(4, bool)
    for _ in range(500):
        action = rng.integers(0, 4, 4)
        obs, reward, terminated, truncated, info = env.step(action)
        expected, bare_reward, bare_terminated, _, bare_info = bare.step(action)
        _, _, ignored, _, _ = peer.step(action)
        assert np.array_equal(obs, expected) and np.array_equal(reward, bare_reward)
        # In Breakout, which counts lives, ale-py's own flag says the same.
        assert np.array_equal(terminated, bare_terminated) and not truncated.any()
        assert np.array_equal(info["over"], terminated & (bare_info["lives"] == 0))
        assert np.array_equal(ignored, info["over"])
        assert np.array_equal(bare_info["lives"][after_end], np.full(after_end.sum(), 5)), "a game restarts at its end"
        mere = terminated & ~info["over"]
        assert np.array_equal(bare_info["lives"][mere], lives[mere] - 1)
        lost, games = lost + mere.sum(), games + info["over"].sum()
        after_end, lives = info["over"], bare_info["lives"]
    assert lost > 20 and games > 5
    for each in (env, peer, bare):
        each.close()


def test_games_without_lives_end_once():
    env = sim(AtariConfig(frame_skip=8), 4, "pong")
    ends = [env.step(np.zeros(4, np.int64)) for _ in range(600)]
    over = sum(end[4]["over"].sum() for end in ends)
    assert over == sum(end[2].sum() for end in ends) >= 4
    assert sum(end[1].sum() for end in ends if end[4]["over"].any()) < 0
    env.close()


def test_fire_is_pressed_after_a_lost_life_only():
    idle = np.zeros(1, np.int64)

    def losses(config: AtariConfig) -> list[int]:
        env = sim(config, 1)
        rows = [row for row in range(180) if env.step(idle)[2].any()]
        env.close()
        return rows

    # An idle paddle loses a ball every 25 steps where somebody serves, and none after the first where nobody does.
    assert losses(AtariConfig(fire=False, noops=1))[1:] == []
    served = losses(AtariConfig(fire=True, noops=1))
    assert len(served) >= 5 and set(np.diff(served[:5])) == {25}


def test_the_row_after_a_game_is_the_only_invalid_one_and_scores_are_of_whole_games():
    env = host(AtariConfig(), copies=8)
    env.start(0)
    score, done, rows = np.zeros(8), [], play(env, 0, 400)
    for (step,), (after,) in itertools.pairwise(rows):
        score += step["reward"].numpy()
        restarted = ~after["valid"].numpy()
        assert np.array_equal(after["first"].numpy(), restarted)
        assert np.array_equal(after["obs"][restarted][:, :3].numpy(), np.zeros((restarted.sum(), 3, 84, 84)))
        assert (after["reward"].numpy()[restarted] == 0).all()
        assert step["terminated"].numpy()[restarted].all()
        done += score[restarted].tolist()
        score[restarted] = 0
    ended = env.statistics.take()
    assert ended["episodes"] == len(done) >= 10
    assert ended["return_mean"] == pytest.approx(np.mean(done), abs=1e-6)
    assert sum(step["terminated"].sum() for (step,) in rows) >= 5 * len(done)
    env.close()


def test_the_frame_limit_truncates():
    env = host(AtariConfig(max_frames=200), copies=2)
    assert env.max_steps == 50 and env.stack == 4 and env.fps == 15
    env.start(0)
    rows = play(env, 0, 60)
    truncated = torch.stack([step["truncated"] for (step,) in rows])
    assert truncated.sum(0).tolist() == [1, 1]
    assert env.statistics.take()["episodes"] == 2
    env.close()


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_a_seeded_reset_and_the_same_actions_give_the_same_bits(sticky):
    first, second = sim(AtariConfig(sticky=sticky), 4, seed=11), sim(AtariConfig(sticky=sticky), 4, seed=12)
    rng = np.random.default_rng(1)
    for _ in range(45):
        second.step(rng.integers(0, 4, 4))
    start, other = first.reset(seed=99)[0], second.reset(seed=99)[0]
    assert np.array_equal(start, other)
    for _ in range(400):
        action = rng.integers(0, 4, 4)
        one, two = first.step(action), second.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(one[:4], two[:4], strict=True))
    first.close()
    second.close()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("at", [150, 299, 300, 301, 320])
def test_resume_by_replay_is_exact_with_a_step_in_flight(groups, at):
    config = AtariConfig(sticky=0.25)
    env = host(config, groups=groups, barrier=300)
    for g in range(groups):
        env.start(g)
    play(env, 0, at)
    for g in range(groups):
        env.send(g, actions(env, at)[env.columns(g)])
    saved = copy.deepcopy(env.state_dict())
    rest = play(env, at, at + 40, in_flight=True)
    totals = env.statistics.take()
    env.close()
    resumed = host(config, groups=groups, barrier=300)
    resumed.load_state_dict(saved)
    again = play(resumed, at, at + 40, in_flight=True)
    for row, others in zip(rest, again, strict=True):
        for a, b in zip(row, others, strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
    assert resumed.statistics.take() == totals
    resumed.close()


def test_observations_that_were_handed_out_stay_as_they_are():
    env = host(AtariConfig(), copies=2)
    kept = [env.start(0)]
    copies = [kept[0].clone()]
    for (step,) in play(env, 0, 40):
        kept.append(step["obs"])
        copies.append(step["obs"].clone())
    play(env, 40, 80)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert len({obs.data_ptr() for obs in kept}) == 41
    env.close()


def test_another_protocol_is_found_out_at_resume():
    env = host(AtariConfig(), barrier=300)
    env.start(0)
    play(env, 0, 60)
    saved = copy.deepcopy(env.state_dict())
    env.close()
    other = host(AtariConfig(sticky=0.25), barrier=300)
    with pytest.raises(Exception, match="Env breakout did not come back to the saved observations in 60 replayed rows"):
        other.load_state_dict(saved)
    other.close()


def test_the_picture_is_the_game_that_is_played():
    cv2 = pytest.importorskip("cv2")
    env = host(AtariConfig(sticky=0.25), copies=2, render=True)
    env.start(0)
    error, stale, before = [], [], None
    for row in range(300):
        env.send(0, actions(env, row))
        obs = env.receive(0)["obs"][1, -1].numpy().astype(float)
        frame = env.frame(1)
        assert frame.shape == (210, 160, 3) and frame.dtype == np.uint8
        gray = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (84, 84), interpolation=cv2.INTER_AREA).astype(float)
        error.append(np.abs(gray - obs).max())
        stale.append(0 if before is None else np.abs(before - obs).max())
        before = gray
    assert max(error) <= 4, "colours are rounded, but no ball or paddle is elsewhere"
    assert np.median(stale) > 20
    assert env.frame(0).std(axis=2).max() > 50, "the bricks have colours"
    env.close()


def test_full_actions_and_fire_among_them():
    assert sim(AtariConfig(full_actions=True), 1).single_action_space.n == 18
    assert sim(AtariConfig(), 1, "seaquest").single_action_space.n == 18
    assert sim(AtariConfig(), 1, "freeway").single_action_space.n == 3


@pytest.mark.parametrize(
    ("rom", "near"), [("Breakout", "breakout"), ("ms-pacman", "ms_pacman"), ("spaceinvaders", "space_invaders")]
)
def test_an_unknown_rom_names_the_nearest_and_how_many_there_are(rom, near):
    total = len(ale_py.roms.get_all_rom_ids())
    with pytest.raises(UsageError, match=f"ale-py has no ROM '{rom}' among its {total}. Nearest: {near}"):
        atari.make(AtariConfig(), rom, 1)


def test_without_ale_py_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(PluginError, match=r'Atari games need ale-py: pip install "rlgan\[atari\]"'):
        atari.make(AtariConfig(), "breakout", 1)


def test_specs_name_the_games_and_import_no_emulator():
    specs = {spec.name: spec for spec in atari.rlgan_specs()}
    assert list(specs) == [
        "atari", "beamrider", "breakout", "enduro", "pong", "qbert", "seaquest", "spaceinvaders",
    ]  # fmt: skip
    assert specs["atari"].family and all(spec.host and spec.extra == "atari" for spec in specs.values())
    assert [score.value for score in specs["breakout"].scores] == [1.7, 30.5, 401.2, 366.9]
    env = specs["spaceinvaders"].factory(AtariConfig(), "", 1)
    assert env.single_action_space.n == 6
    code = (
        "import sys, rlgan_envs.atari as a; [*a.rlgan_specs()]; sys.exit(len({'ale_py', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
