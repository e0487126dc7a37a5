"""The conformance kit names each fault that an env can have, and finds none where there is none."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from rlgan import EnvSpec
from rlgan.core.vec import VecEnv
from rlgan.errors import ConformanceError, PluginError, UsageError
from rlgan.registry import Registry
from rlgan.testing import EnvConformance, VecEnvConformance, check_env, check_vec_env
from rlgan.testing.env import env_checks
from rlgan.testing.live import first_difference


@dataclass(frozen=True)
class WalkConfig:
    """Settings."""

    max_steps: int = 30
    """Steps."""


class Walk:
    """A random walk on 0..1 with a drift by the action, which ends at 1. Correct; the faults are in its subclasses."""

    observation_space = Box(-1.0, 2.0, (2,), np.float32)
    action_space = Discrete(3)

    def __init__(self, config: WalkConfig, device: Any, dtype: torch.dtype) -> None:
        self.max_steps, self.device, self.dtype = config.max_steps, device, dtype

    def reset(self, n, rng):
        start = torch.rand(n, generator=rng, device=self.device, dtype=self.dtype) / 2
        return {"place": start, "age": torch.zeros(n, dtype=torch.int64, device=self.device)}

    def observe(self, state):
        return torch.stack((state["place"], state["age"] / 1000), -1)

    def step(self, state, action, rng):
        noise = torch.rand(len(action), generator=rng, device=self.device, dtype=self.dtype)
        place = (state["place"] + 0.1 * (action - 1) + 0.1 * noise).clamp(0, 1)
        return {"place": place, "age": state["age"] + 1}, -place - 0.5, place >= 1

    def metrics(self, state):
        return {"place": state["place"]}

    def references(self):
        return {"still": lambda state, rng: torch.ones_like(state["age"])}


class Float64Reward(Walk):
    """Its observation has the wrong dtype."""

    def observe(self, state):
        return super().observe(state).double()


class FlatReward(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return state, reward[:, None], terminated


class DoubleReward(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return state, reward.double(), terminated


class SlashInState(Walk):
    def reset(self, n, rng):
        return {**super().reset(n, rng), "a/b": torch.zeros(n)}


class BoastfulMetric(Walk):
    def metrics(self, state):
        return {"return": torch.full_like(state["place"], 500.0)}


class LosesKey(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return {"place": state["place"]}, reward, terminated


class NoSteps(Walk):
    def __init__(self, config, device, dtype):
        super().__init__(config, device, dtype)
        self.max_steps = 30.0


class StateInPlace(Walk):
    def step(self, state, action, rng):
        state["age"] += 1
        return super().step({**state, "age": state["age"] - 1}, action, rng)


class ActionInPlace(Walk):
    def step(self, state, action, rng):
        return super().step(state, action.clamp_(1, 2), rng)


class ObservesInPlace(Walk):
    def observe(self, state):
        state["place"].mul_(0.5)
        return super().observe(state)


class Overwrites(Walk):
    """Writes every reward into the same tensor."""

    reward: Any = None

    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        self.reward = reward if self.reward is None else self.reward.copy_(reward)
        return state, self.reward, terminated


class ForgetsRng(Walk):
    def reset(self, n, rng):
        return super().reset(n, None)


class ForgetsRngInStep(Walk):
    def step(self, state, action, rng):
        return super().step(state, action, None)


class NumpyDraws(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return state, reward + float(np.random.rand()), terminated


class PythonDraws(Walk):
    def reset(self, n, rng):
        state = super().reset(n, rng)
        return {**state, "place": state["place"] * random.random()}


class OwnGenerator(Walk):
    def __init__(self, config, device, dtype):
        super().__init__(config, device, dtype)
        self.rng = np.random.default_rng(0)

    def reset(self, n, rng):
        return super().reset(n, torch.Generator().manual_seed(int(self.rng.integers(1000))))


class OwnGeneratorWhereNoneIsGiven(Walk):
    """Correct with a generator, and not repeatable in a run."""

    def __init__(self, config, device, dtype):
        super().__init__(config, device, dtype)
        self.rng = torch.Generator()

    def reset(self, n, rng):
        return super().reset(n, rng or self.rng)


class Counts(Walk):
    """Hidden state: the drift grows with every step taken."""

    taken = 0

    def step(self, state, action, rng):
        self.taken += 1
        state, reward, terminated = super().step(state, action, rng)
        return state, reward - self.taken, terminated


class HiddenGoal(Walk):
    """Hidden state: a goal that reset draws."""

    def reset(self, n, rng):
        self.goal = torch.rand(n, generator=rng)
        return super().reset(n, rng)

    def step(self, state, action, rng):
        state, _, terminated = super().step(state, action, rng)
        return state, -(state["place"] - self.goal).abs(), terminated


class ObservesItself(Walk):
    def reset(self, n, rng):
        self.offset = torch.rand(n, generator=rng)
        return super().reset(n, rng)

    def observe(self, state):
        return super().observe(state) + self.offset[:, None] / 10


class SharedMean(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return state, reward - reward.mean(), terminated


class Cumulative(Walk):
    """Copies depend on the ones before them."""

    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return {**state, "age": state["age"].cumsum(0)}, reward, terminated


class Asks(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        if terminated.any():
            reward = reward + 1
        return state, reward, terminated


class Items(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return state, reward - 0 * state["age"][0].item(), terminated


class Masks(Walk):
    def observe(self, state):
        seen = super().observe(state)
        late = state["age"] > 10
        seen[late] = seen[late] / 2
        return seen


class OwnLimit(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return state, reward, terminated | (state["age"] >= self.max_steps)


class OutOfSpace(Walk):
    observation_space = Box(0.0, 0.6, (2,), np.float32)


class NotFinite(Walk):
    def observe(self, state):
        seen = super().observe(state)
        return torch.where(state["age"][:, None] == 4, seen / 0, seen)


class NanReward(Walk):
    def step(self, state, action, rng):
        state, reward, terminated = super().step(state, action, rng)
        return state, torch.where(state["age"] == 5, torch.nan, reward), terminated


class BadMetric(Walk):
    def metrics(self, state):
        return {"place": state["place"].mean()}


class BadReference(Walk):
    def references(self):
        return {"off": lambda state, rng: torch.full_like(state["age"], 3)}


class BadReferenceSpace(BadReference):
    reference_space = Box(0.0, 1.0, (2,), np.float32)


class GoodReferenceSpace(BadReference):
    reference_space = Discrete(4)


class BadPicture(Walk):
    def render(self, state, i):
        return np.zeros((4, 4), np.uint8)


class OtherSpaces(Walk):
    def evaluated(self):
        other = Walk(WalkConfig(), self.device, self.dtype)
        other.action_space = Discrete(2)
        return other


FAULTS = {
    OtherSpaces: r"has other spaces in evaluated\(\): agents play both, so they must be the same",
    Float64Reward: r"returned the observation as float64 of \(16, 2\) on cpu; it must be float32 of \(16, 2\)",
    FlatReward: r"returned the reward as float32 of \(16, 1\) on cpu; it must be float32 of \(16,\)",
    DoubleReward: r"returned the reward as float64 of \(16,\) on cpu; it must be float32 of \(16,\)",
    SlashInState: r"has a state named 'a/b'; names are strings without '/' that do not begin with '\$'",
    BoastfulMetric: r"has a metric named 'return', which every record has: give it another name",
    LosesKey: r"returned the state as \['place'\] from step; it must have the keys \['age', 'place'\]",
    NoSteps: r"has max_steps=30.0; it must be a whole number of at least 1",
    StateInPlace: r"changes the state's 'age' in place in step: return new tensors",
    ActionInPlace: r"changes the action in place in step",
    ObservesInPlace: r"changes the state's 'place' in place in observe",
    Overwrites: r"overwrites the reward that an earlier step returned",
    ForgetsRng: r"draws from torch's default generator in reset: pass generator=rng",
    ForgetsRngInStep: r"draws from torch's default generator in step: pass generator=rng",
    NumpyDraws: r"draws from NumPy's global generator in step",
    PythonDraws: r"draws from Python's random module in reset",
    OwnGenerator: r"another value of the state's 'place' in two resets with the same seed in rng: something beside rng",
    OwnGeneratorWhereNoneIsGiven: r"in two resets with rng=None and the same default generator: something beside rng",
    Counts: r"another value of the reward for the same state, action and random numbers, a second time: put what step",
    HiddenGoal: r"another value of the reward for the same state, .*, after another reset and other steps: put",
    ObservesItself: r"another value of the observation before the step for the same state",
    SharedMean: r"mixes copies: the reward of other copies changes with the state and action of copy 15",
    Cumulative: r"mixes copies: the state's 'age' of other copies changes with the state and action of copy 0",
    Asks: r"reads tensors back in step, .*: `if tensor` at test_testing_env.py:\d+ \(if terminated.any\(\):\)",
    Items: r"reads tensors back in step, .*: item\(\) at test_testing_env.py:\d+ \(return state, reward - 0",
    Masks: r"reads tensors back in observe, .*: indexing with a mask at test_testing_env.py:\d+ \(seen\[late\] =",
    OwnLimit: r"terminates every episode that gets to its max_steps=15: the time limit belongs to VecEnv",
    OutOfSpace: r"gives an observation at row \d+ that lies outside of Box.* in copy \d+: \[0.6",
    NotFinite: r"gives an observation at row 3 that is not finite in copy \d+",
    NanReward: r"gives a reward that is not finite \(copy \d+, row 4, reward nan\)",
    BadMetric: r"returned the metric 'place' as float32 of \(\); it must be \(16,\)",
    BadReference: r"has the reference 'off', whose action lies outside of Discrete\(3\) in copy 0: 3",
    BadReferenceSpace: r"has the reference 'off', whose action is int64 of \(16,\) on cpu, and Box\(0.0, 1.0, ",
    BadPicture: r"renders ndarray; it must be a uint8 array \(H, W, 3\)",
}


@pytest.mark.parametrize("env", FAULTS, ids=lambda env: env.__name__)
def test_each_planted_fault_is_named(env: type[Walk]) -> None:
    with pytest.raises(ConformanceError, match=FAULTS[env]) as it:
        check_env(env, WalkConfig())
    assert str(it.value).startswith(f"env {env.__name__} ")
    assert "\n" not in str(it.value)
    assert isinstance(it.value, AssertionError) and isinstance(it.value, PluginError)


def test_references_may_do_more_than_agents() -> None:
    check_env(GoodReferenceSpace, WalkConfig())


class TestWalk(EnvConformance):
    env = Walk
    config = WalkConfig()


class PoissonWalk(Walk):
    """Correct, with a random function that uses up more numbers the larger its argument."""

    def reset(self, n, rng):
        return {**super().reset(n, rng), "sum": torch.zeros(n)}

    def observe(self, state):
        return super().observe(state)

    def step(self, state, action, rng):
        following, reward, terminated = super().step(state, action, rng)
        count = torch.poisson(20 * state["place"] + action, generator=rng)
        count = count + torch.poisson(5 * state["place"], generator=rng)
        return {**following, "sum": count}, reward - count, terminated


class TestPoissonWalk(EnvConformance):
    env = PoissonWalk
    config = WalkConfig()


def test_copies_that_mix_are_found_beside_poisson_draws() -> None:
    class Mixed(PoissonWalk):
        def step(self, state, action, rng):
            state, reward, terminated = super().step(state, action, rng)
            return state, reward - reward.mean(), terminated

    with pytest.raises(ConformanceError, match="mixes copies: the reward of other copies"):
        check_env(Mixed, WalkConfig())


def test_an_episode_of_fixed_length_below_max_steps_is_no_time_limit() -> None:
    class Five(Walk):
        def step(self, state, action, rng):
            state, reward, _ = super().step(state, action, rng)
            return state, reward, state["age"] >= 5

    check_env(Five, WalkConfig())


def test_settings_come_from_the_annotation_or_are_asked_for() -> None:
    check_env(Walk)
    with pytest.raises(UsageError, match="does not say what its settings are: annotate its config, or give config="):
        check_env(lambda config, device, dtype: Walk(config, device, dtype))

    @dataclass(frozen=True)
    class Needy:
        size: int

    said = r"^the settings of env walk have no defaults to check with \(.*'size'\): check it in a test, with"
    with pytest.raises(UsageError, match=said):
        check_env(EnvSpec("walk", Walk, Needy, "a walk"))
    spec = EnvSpec("walk", Counts, WalkConfig, "a walk")
    with pytest.raises(ConformanceError, match=r"^env walk gives another value of the reward"):
        check_env(spec)


def test_what_the_plugin_raises_is_named() -> None:
    class Raises(Walk):
        def metrics(self, state):
            raise KeyError("stock")

    with pytest.raises(ConformanceError, match=r"^env Raises raised KeyError in its metrics: 'stock'$"):
        check_env(Raises, WalkConfig())


def test_checks_leave_the_random_stream_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_env(Walk, WalkConfig())
    assert torch.equal(before, torch.get_rng_state())


ARGUMENTS = {"gym": "gym:CartPole-v1", "atari": "atari:pong"}
BUILT_IN = [entry.name for entry in Registry().names("envs") if entry.distribution == "rlgan"]
GAMES = {entry.name for entry in Registry().names("envs") if entry.module == "rlgan_envs.atari"} - {"atari", "breakout"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(ARGUMENTS.get(n, n), marks=[pytest.mark.slow] if n in GAMES else []) for n in BUILT_IN],
)
def test_every_built_in_env_passes(name: str) -> None:
    """Games of one module differ in the ROM alone: most of them are slow tests."""
    check_env(name)


class RewardOnInvalid(VecEnv):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward - (~info["valid"]).float(), terminated, truncated, info


class NoInvalidRows(VecEnv):
    def step(self, action):
        *row, info = super().step(action)
        return *row, {**info, "valid": torch.ones_like(info["valid"])}


class BothEnds(VecEnv):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated | terminated, info


class FirstTooEarly(VecEnv):
    def step(self, action):
        *row, info = super().step(action)
        return *row, {**info, "first": info["over"]}


class FlagsAsNumbers(VecEnv):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated.float(), truncated, info


class SavesHalf(VecEnv):
    def load_state_dict(self, tree):
        over = self.over
        super().load_state_dict(tree)
        self.over = over


class SameBuffer(VecEnv):
    def step(self, action):
        obs, *rest = super().step(action)
        if not hasattr(self, "buffer"):
            self.buffer = obs.clone()
        return self.buffer.copy_(obs), *rest


VEC_FAULTS = {
    RewardOnInvalid: r"gives a reward on an invalid row, where it must be 0 \(copy \d+, row \d+, reward -1\)",
    NoInvalidRows: r"marks a row as valid that follows an end, or the other way round \(copy",
    BothEnds: r"gives both terminated and truncated \(copy",
    FirstTooEarly: r"gives first somewhere else than after an end \(copy",
    FlagsAsNumbers: r"returned terminated as float32 of \(8,\) at row 0; it must be bool of \(8,\)",
    SavesHalf: r"gives another value of .* after its saved state was loaded into a new instance",
    SameBuffer: r"overwrites the observation that it returned \d+ rows after the start",
}


@pytest.mark.parametrize("vec", VEC_FAULTS, ids=lambda vec: vec.__name__)
def test_each_planted_fault_of_rows_is_named(vec: type[VecEnv]) -> None:
    with pytest.raises(ConformanceError, match=rf"^env walk {VEC_FAULTS[vec]}"):
        check_vec_env(lambda: vec(Walk(WalkConfig(9), torch.device("cpu"), torch.float32), 8, "cpu"), "walk")


class TestRowsOfWalk(VecEnvConformance):
    def make(self):
        return VecEnv(Walk(WalkConfig(9), torch.device("cpu"), torch.float32), 8, "cpu")


class TestRowsOfGymnasium(VecEnvConformance):
    def make(self):
        return gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync")


def test_gymnasiums_vector_envs_must_reset_in_the_next_step() -> None:
    def make() -> Any:
        mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
        return gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs=mode)

    with pytest.raises(ConformanceError, match=r"^env make resets by .*SAME_STEP; its rows must follow .*NEXT_STEP"):
        check_vec_env(make)


def test_checks_have_names() -> None:
    names = [check.name for check in env_checks("cartpole")]
    assert names[:3] == ["shapes", "in place", "randomness"] and names[-3:] == ["rows", "repetition", "resume"]
    assert [check.name for check in env_checks("gym:CartPole-v1")] == ["rows", "repetition", "resume"]


def test_nan_equals_nan_when_two_steps_are_compared() -> None:
    """So that a NaN is reported as what it is, and not as randomness or an overwritten tensor besides."""
    one, two = torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0])
    assert first_difference({"reward": one, "n": 1}, {"reward": one.clone(), "n": 1}) is None
    assert first_difference({"reward": one}, {"reward": two}) == "reward"
    assert first_difference({"reward": two}, {"reward": two.double()}) == "reward"
