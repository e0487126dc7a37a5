from __future__ import annotations

import copy
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from rlgan.errors import EnvError, UsageError
from rlgan.simulators.host import HostVecEnv

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
KEYS = ("reward", "terminated", "truncated", "valid", "first")


class Count(VectorEnv):
    """Copy i plays episodes of i + 2 steps. It observes [copy, episode, step, seed, noise]; reward is step + action.

    Odd copies are truncated at their end, even ones terminated. It writes every observation into the same array.
    """

    def __init__(self, n: int, mode: AutoresetMode | None = NEXT, kind: type = np.float32) -> None:
        self.num_envs, self.mode = n, mode
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.single_observation_space = Box(-np.inf, np.inf, (5,), kind)
        self.single_action_space = Discrete(10)
        self.obs = np.zeros((n, 5), kind)
        self.obs[:, 0] = np.arange(n)
        self.ended = np.zeros(n, bool)

    def begin(self, mask: np.ndarray) -> None:
        self.obs[mask, 1] += 1
        self.obs[mask, 2] = 0
        self.obs[mask, 4] = self.rng.random(self.num_envs)[mask]

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if seed is not None:
            self.rng = np.random.default_rng(seed)
            self.obs[mask, 1] = -1
            self.obs[:, 3] = seed % 1000
        self.ended &= ~mask
        self.begin(mask)
        return self.obs, {}

    def step(self, actions):
        assert not (self.mode == DISABLED and self.ended.any())
        fresh = self.ended if self.mode == NEXT else np.zeros(self.num_envs, bool)
        self.obs[~fresh, 2] += 1
        reward = np.where(fresh, 0, self.obs[:, 2] + actions)
        self.begin(fresh)
        ended = (self.obs[:, 2] == self.obs[:, 0] + 2) & ~fresh
        odd, info = self.obs[:, 0] % 2 == 1, {}
        self.ended = ended
        if self.mode == SAME and ended.any():
            final = [o.copy() if e else None for o, e in zip(self.obs, ended, strict=True)]
            info["final_obs"] = np.array(final, object)
            self.begin(ended)
        return self.obs, reward, ended & ~odd, ended & odd, info


def host(make=Count, copies=2, groups=1, barrier=0, seed=7, timeout=30.0, **more) -> HostVecEnv:
    return HostVecEnv(make, copies, "cpu", groups=groups, seed=seed, barrier=barrier, timeout=timeout, **more)


def in_mode(mode):
    return lambda n: Count(n, mode)


def actions(env: HostVecEnv, g: int, row: int) -> torch.Tensor:
    everyone = torch.randint(0, 10, (env.num_envs,), generator=torch.Generator().manual_seed(row))
    return everyone[env.columns(g)]


def play(env: HostVecEnv, rows: int, first: int = 0, in_flight: bool = False) -> list[list[dict]]:
    played = []
    for row in range(first, first + rows):
        for g in range(env.groups):
            if not (in_flight and row == first):
                env.send(g, actions(env, g, row))
        played.append([env.receive(g) for g in range(env.groups)])
    return played


def column(played, key: str, i: int) -> list:
    return [row[0][key][i].tolist() for row in played]


def test_next_step_rows_are_those_of_a_hand_written_table():
    env = host()
    start = env.start(0)
    assert start[:, :3].tolist() == [[0, 0, 0], [1, 0, 0]]
    played = []
    for _ in range(7):
        env.send(0, torch.tensor([0, 5]))
        played.append([env.receive(0)])
    assert column(played, "reward", 0) == [1, 2, 0, 1, 2, 0, 1]
    assert column(played, "terminated", 0) == [False, True, False, False, True, False, False]
    assert column(played, "valid", 0) == [True, True, False, True, True, False, True]
    assert column(played, "first", 0) == [False, False, True, False, False, True, False]
    assert column(played, "reward", 1) == [6, 7, 8, 0, 6, 7, 8]
    assert column(played, "truncated", 1) == [False, False, True, False, False, False, True]
    assert [o[1:3] for o in column(played, "obs", 1)] == [[0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3]]
    assert start[:, 2].tolist() == [0, 0], "an observation changed after it was handed out"
    assert env.statistics.take() == {"episodes": 4, "return_mean": (3 + 3 + 21 + 21) / 4, "length_mean": 2.5}
    env.close()


@pytest.mark.parametrize("mode", [SAME, DISABLED])
def test_in_step_resets_have_no_invalid_row_and_a_final_observation(mode):
    env = host(in_mode(mode))
    env.start(0)
    played = []
    for _ in range(6):
        env.send(0, torch.tensor([0, 0]))
        played.append([env.receive(0)])
    assert column(played, "valid", 1) == [True] * 6
    assert column(played, "reward", 1) == [1, 2, 3, 1, 2, 3]
    assert column(played, "first", 1) == [False, False, True, False, False, True]
    assert [o[1:3] for o in column(played, "obs", 1)] == [[0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]]
    assert [o[1:3] for o in column(played, "final_obs", 1)] == [[0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3]]
    assert [o[1:3] for o in column(played, "obs", 0)] == [[0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [3, 0]]
    assert env.statistics.take() == {"episodes": 5, "return_mean": (3 * 3 + 6 * 2) / 5, "length_mean": 2.4}
    env.close()


def test_a_barrier_cuts_resets_with_a_seed_and_counts_no_game():
    env = host(copies=3, barrier=4)
    env.start(0)
    played = []
    for _ in range(9):
        env.send(0, torch.zeros(3, dtype=torch.int64))
        played.append([env.receive(0)])
    # Copy 0 rests on row 2 and is cut in its second game, copy 1 rests on row 3, copy 2 ends on row 3 by itself.
    assert column(played, "valid", 0) == [True, True, False, True, False, True, True, False, False]
    assert column(played, "truncated", 0) == [False, False, False, True, False, False, False, False, False]
    assert column(played, "valid", 1) == [True, True, True, False, False, True, True, True, False]
    assert column(played, "truncated", 1) == [False, False, True, False, False, False, False, True, False]
    assert column(played, "terminated", 2) == [False, False, False, True, False, False, False, False, False]
    assert column(played, "truncated", 2) == [False, False, False, False, False, False, False, True, False]
    assert [row[0]["first"].tolist() for row in played][4] == [True, True, True]
    assert played[4][0]["reward"].tolist() == [0, 0, 0]
    assert played[4][0]["obs"][:, 1:3].tolist() == [[0, 0]] * 3
    seeds = [played[row][0]["obs"][0, 3].item() for row in (0, 4, 8)]
    assert len(set(seeds)) == 3
    # Copy 0: 3, 3 and a cut game; copy 1: 6, 6; copy 2: 10 and a cut game of 3 rows.
    assert env.statistics.take() == {"episodes": 5, "return_mean": (3 + 3 + 6 + 6 + 10) / 5, "length_mean": 14 / 5}
    env.close()


def test_groups_have_their_own_seeds_and_do_not_depend_on_the_order_of_receiving():
    runs = []
    for turns in ((0, 1), (1, 0)):
        env = host(copies=6, groups=2, barrier=5)
        starts = {g: env.start(g) for g in turns}
        rows: dict[int, list] = {0: [], 1: []}
        for row in range(12):
            for g in turns:
                env.send(g, actions(env, g, row))
            for g in turns:
                rows[g].append(env.receive(g))
        assert starts[0][0, 3] != starts[1][0, 3]
        runs.append((starts, rows, env.statistics.take()))
        env.close()
    (starts, rows, totals), (again, others, same_totals) = runs
    assert totals == same_totals
    for g in (0, 1):
        assert torch.equal(starts[g], again[g])
        for a, b in zip(rows[g], others[g], strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
    assert env.columns(0) == slice(0, 3) and env.columns(1) == slice(3, 6)


@pytest.mark.parametrize("mode", [NEXT, SAME, DISABLED])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("in_flight", [False, True])
@pytest.mark.parametrize("at", [0, 1, 4, 5, 6, 9, 10, 13])
def test_resume_by_replay_equals_the_uninterrupted_run(mode, groups, in_flight, at, capsys):
    env = host(in_mode(mode), copies=4, groups=groups, barrier=5)
    for g in range(groups):
        env.start(g)
    play(env, at)
    if in_flight:
        for g in range(groups):
            env.send(g, actions(env, g, at))
    saved = copy.deepcopy(env.state_dict())
    rest = play(env, 12, at, in_flight)
    totals = env.statistics.take()
    env.close()

    resumed = host(in_mode(mode), copies=4, groups=groups, barrier=5)
    resumed.load_state_dict(saved)
    assert f"Count: replaying {len(saved['simulators']['0']['sent'])} rows" in capsys.readouterr().err
    again = play(resumed, 12, at, in_flight)
    for row, others in zip(rest, again, strict=True):
        for a, b in zip(row, others, strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
    assert resumed.statistics.take() == totals
    resumed.close()


def test_loading_into_a_running_env_equals_a_fresh_one():
    env = host(barrier=50)
    env.start(0)
    play(env, 7)
    env.send(0, actions(env, 0, 7))
    saved = copy.deepcopy(env.state_dict())
    rest = play(env, 5, 7, in_flight=True)
    env.send(0, actions(env, 0, 12))
    env.load_state_dict(saved)
    again = play(env, 5, 7, in_flight=True)
    assert all(torch.equal(a[0]["obs"], b[0]["obs"]) for a, b in zip(rest, again, strict=True))
    env.close()


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_rows_on_a_gpu_equal_those_on_the_cpu(mode):
    envs = [
        HostVecEnv(in_mode(mode), 4, device, groups=2, seed=7, barrier=5, timeout=30.0) for device in ("cpu", "cuda")
    ]
    for g in (0, 1):
        start, other = (env.start(g) for env in envs)
        assert other.device.type == "cuda" and torch.equal(start, other.cpu())
    for row, others in zip(*(play(env, 12) for env in envs), strict=True):
        for a, b in zip(row, others, strict=True):
            assert all(torch.equal(a[key], b[key].cpu()) for key in a)
    assert envs[0].statistics.take() == envs[1].statistics.take()
    for env in envs:
        env.close()


def test_the_state_is_small_and_plain():
    env = host(copies=8, barrier=50_000)
    env.start(0)
    play(env, 300)
    state = env.state_dict()["simulators"]["0"]
    assert state["sent"].dtype == torch.uint8 and state["sent"].shape == (300, 8)
    assert {key: type(value) for key, value in state.items() if key != "sent"} == {
        "row": int,
        "barrier": int,
        "flying": bool,
        "seen": str,
    }
    env.close()


def test_a_simulator_that_does_not_come_back_is_refused():
    env = host(barrier=50)
    env.start(0)
    play(env, 3)
    saved = env.state_dict()
    saved["simulators"]["0"]["sent"][0] += 1
    saved["simulators"]["0"]["seen"] = "0" * 64
    with pytest.raises(EnvError, match="Env Count did not come back to the saved observations in 3 replayed rows"):
        env.load_state_dict(saved)
    with pytest.raises(UsageError, match="The checkpoint has barrier=50 but this run has barrier=60: use the same"):
        host(barrier=60).load_state_dict(saved)
    env.close()


def test_no_barrier_no_checkpoint():
    env = host(barrier=0)
    env.start(0)
    with pytest.raises(EnvError, match=r"cannot be saved: set barrier\.every above 0"):
        env.state_dict()
    env.close()


def test_float64_becomes_float32_and_reward_too():
    env = host(lambda n: Count(n, NEXT, np.float64))
    assert env.single_observation_space.dtype == np.float32
    assert env.start(0).dtype == torch.float32
    env.send(0, torch.zeros(2, dtype=torch.int32))
    step = env.receive(0)
    assert {key: str(step[key].dtype) for key in ("obs", *KEYS)} == {
        "obs": "torch.float32",
        "reward": "torch.float32",
        "terminated": "torch.bool",
        "truncated": "torch.bool",
        "valid": "torch.bool",
        "first": "torch.bool",
    }
    env.close()


def test_over_tells_the_end_of_a_game_where_terminated_says_more():
    class Lives(Count):
        def step(self, actions):
            obs, reward, terminated, truncated, _ = super().step(actions)
            return obs, reward, terminated | (actions == 9), truncated, {"over": terminated | truncated}

    env = host(Lives)
    env.start(0)
    env.send(0, torch.tensor([9, 9]))
    step = env.receive(0)
    assert step["terminated"].tolist() == [True, True] and step["over"].tolist() == [False, False]
    env.send(0, torch.tensor([0, 0]))
    step = env.receive(0)
    assert step["valid"].tolist() == [True, True] and step["first"].tolist() == [False, False]
    assert step["over"].tolist() == [True, False] and env.statistics.take()["episodes"] == 1
    env.close()


def broken(field: int, value):
    class Broken(Count):
        def step(self, actions):
            step = list(super().step(actions))
            step[field] = value(self.num_envs)
            return tuple(step)

    return Broken


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (broken(0, lambda n: np.zeros((n, 4), np.float32)), r"the observation as float32 of \(2, 4\) at row"),
        (broken(0, lambda n: np.zeros((n, 5))), r"the observation as float64 of .*; it must be float32 of \(2, 5\)\."),
        (broken(0, lambda n: [[0.0] * 5] * n), "the observation as list at row"),
        (broken(1, lambda n: np.zeros(n + 1)), r"the reward as float64 of \(3,\) at row 0; it must be numbers of"),
        (broken(2, lambda n: np.zeros(n)), r"terminated as float64 of \(2,\) at row 0; it must be bool of \(2,\)"),
        (broken(3, lambda n: np.zeros((n, 1), bool)), r"truncated as bool of \(2, 1\) at row 0; it must be bool of"),
        (broken(4, lambda n: {"over": np.zeros(n)}), r"info\['over'\] as float64"),
    ],
)
def test_wrong_shapes_and_types_are_named(make, sentence):
    env = host(make, name="gym:Broken-v0")
    env.start(0)
    env.send(0, torch.tensor([0, 0]))
    with pytest.raises(EnvError, match="Env gym:Broken-v0 returned " + sentence):
        env.receive(0)
    env.close()


def test_what_a_simulator_raises_is_named_with_its_copy():
    class Raises(Count):
        def step(self, actions):
            error = ValueError("the arm fell off")
            error.copy_index = 1
            raise error

    env = host(Raises, copies=6, groups=2, name="arm")
    env.start(1)
    env.send(1, torch.tensor([0, 0, 0]))
    with pytest.raises(EnvError, match="Env arm raised ValueError in copy 4 at row 0: the arm fell off") as caught:
        env.receive(1)
    assert isinstance(caught.value.__cause__, ValueError)
    env.close()


def test_what_cannot_be_an_env_is_refused():
    class Nested(Count):
        def __init__(self, n):
            super().__init__(n)
            self.single_observation_space = Dict({"a": Discrete(2)})

    class NoFinal(Count):
        def __init__(self, n):
            super().__init__(n, SAME)

        def step(self, actions):
            return *super().step(actions)[:4], {}

    with pytest.raises(EnvError, match=r"observes Dict; wrap it in gymnasium\.wrappers\.FlattenObservation"):
        host(Nested)
    with pytest.raises(EnvError, match="does not say how it resets"):
        host(in_mode(None))
    with pytest.raises(UsageError, match="copies=3 cannot be split into groups=2: make copies a multiple of groups"):
        host(copies=3, groups=2)
    env = host(NoFinal)
    env.start(0)
    play(env, 1)
    with pytest.raises(EnvError, match=r"gives no info\['final_obs'\]"):
        play(env, 1)
    with pytest.raises(EnvError, match=r"takes actions of shape \(2,\), not \(3,\)"):
        env.send(0, torch.zeros(3))
    env.close()


HANGS = """
import sys, time, torch
sys.path.insert(0, {tests!r})
from test_host import Count, host
class Hangs(Count):
    def step(self, actions):
        time.sleep(60)
env = host(Hangs, timeout=0.5, name="slow", saved=lambda: "x is kept")
env.start(0)
env.send(0, torch.tensor([0, 0]))
env.receive(0)
"""


def test_a_hang_ends_the_process_with_a_sentence():
    began = time.monotonic()
    code = HANGS.format(tests=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 4
    assert ended.stderr == ("Env slow did not answer within 0.5 seconds, so the process was ended; x is kept\n")
    assert time.monotonic() - began < 30


def test_slow_steps_in_a_row_are_no_hang():
    class Slow(Count):
        def step(self, actions):
            time.sleep(0.1)
            return super().step(actions)

    env = host(Slow, timeout=0.3)
    env.start(0)
    assert len(play(env, 6)) == 6
    env.close()


def test_gymnasium_vector_envs_of_all_modes_agree_on_what_is_learnt():
    rewards = {}
    for mode in (NEXT, SAME, DISABLED):

        def make(n, mode=mode):
            kwargs = {"autoreset_mode": mode}
            return gymnasium.make_vec("CartPole-v1", n, vectorization_mode="sync", vector_kwargs=kwargs)

        env = host(make, copies=1)
        env.start(0)
        rows = []
        for row in range(200):
            env.send(0, torch.tensor([row // 2 % 2]))
            step = env.receive(0)
            if step["valid"][0]:
                rows.append((step["reward"].item(), step["terminated"].item()))
        rewards[mode] = rows[:60]
        env.close()
    assert rewards[NEXT][:20] == rewards[SAME][:20] == rewards[DISABLED][:20]
    assert rewards[SAME] == rewards[DISABLED]
