"""VecEnv against a literal simulation of its rows: resets, time limit, statistics, purity of randomness."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rlgan.core.vec import VecEnv
from rlgan.errors import EnvError


class Counter:
    """Counts up from a random start below 3; terminates at 7; the action is added to the reward."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Discrete(5)

    def __init__(self, max_steps=5):
        self.max_steps = max_steps

    def reset(self, n, rng):
        return {"count": torch.randint(3, (n,), generator=rng), "seen": torch.zeros(n, 2)}

    def observe(self, state):
        return state["count"][:, None].float()

    def step(self, state, action, rng):
        count = state["count"] + 1
        return {"count": count, "seen": state["seen"] + 1}, 10.0 * count + action, count >= 7

    def metrics(self, state):
        return {"final_count": state["count"].float()}


def test_rows_follow_next_step():
    torch.manual_seed(0)
    n = 64
    env = VecEnv(Counter(), n, "cpu")
    obs, info = env.reset(seed=1)
    assert info["first"].all()
    count, length, over = obs[:, 0].clone(), torch.zeros(n), torch.zeros(n, dtype=torch.bool)
    returns, lengths, finals, running = [], [], [], torch.zeros(n)
    steps = 0
    for _ in range(200):
        action = torch.randint(5, (n,))
        obs, reward, terminated, truncated, info = env.step(action)
        for i in range(n):
            if over[i]:
                assert not info["valid"][i] and info["first"][i]
                assert reward[i] == 0 and not terminated[i] and not truncated[i] and not info["over"][i]
                assert 0 <= obs[i, 0] < 3
                length[i] = running[i] = 0
                over[i] = False
            else:
                steps += 1
                length[i] += 1
                assert info["valid"][i] and not info["first"][i]
                assert obs[i, 0] == count[i] + 1, "the row after a step shows its true observation, also at an end"
                assert reward[i] == 10 * obs[i, 0] + action[i]
                running[i] += reward[i]
                assert terminated[i] == (obs[i, 0] >= 7)
                assert truncated[i] == (length[i] == 5 and not terminated[i])
                over[i] = terminated[i] | truncated[i]
                assert info["over"][i] == over[i]
                if over[i]:
                    returns.append(float(running[i]))
                    lengths.append(float(length[i]))
                    finals.append(float(obs[i, 0]))
            count[i] = obs[i, 0]
    assert 0.7 * 200 * n < steps < 200 * n
    row = env.statistics.take()
    assert row["episodes"] == len(returns) > 1000
    assert row["return_mean"] == pytest.approx(np.mean(returns), rel=1e-5)
    assert row["length_mean"] == pytest.approx(np.mean(lengths), rel=1e-5)
    assert row["final_count_mean"] == pytest.approx(np.mean(finals), rel=1e-5)
    assert env.statistics.take() == {"episodes": 0, "return_mean": None, "length_mean": None, "final_count_mean": None}


def test_seeded_reset_leaves_the_default_generator_alone():
    env = VecEnv(Counter(), 8, "cpu")
    before = torch.get_rng_state()
    env.reset(seed=3)
    env.step(torch.zeros(8, dtype=torch.int64))
    assert torch.equal(before, torch.get_rng_state())


def test_saved_state_continues_bit_for_bit():
    torch.manual_seed(0)
    env, other = VecEnv(Counter(), 16, "cpu"), VecEnv(Counter(), 16, "cpu")
    env.start()
    actions = torch.randint(5, (40, 16))
    for a in actions[:20]:
        env.step(a)
    state = torch.get_rng_state()
    other.load_state_dict(env.state_dict())
    first = [env.step(a) for a in actions[20:]]
    torch.set_rng_state(state)
    for a, (obs, reward, terminated, truncated, _) in zip(actions[20:], first, strict=True):
        again = other.step(a)
        assert torch.equal(obs, again[0]) and torch.equal(reward, again[1])
        assert torch.equal(terminated, again[2]) and torch.equal(truncated, again[3])
    assert env.statistics.take() == other.statistics.take()


def test_compiled_step_draws_the_same_numbers():
    import torch._inductor.config as inductor

    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        env = VecEnv(Counter(), 32, "cpu")
        env.start()
        with inductor.patch(fallback_random=True):
            step = torch.compile(env.step, fullgraph=True) if compiled else env.step
            rows = [step(torch.full((32,), t % 5)) for t in range(25)]
        results.append(rows)
    for eager, fast in zip(*results, strict=True):
        assert torch.equal(eager[0], fast[0]) and torch.equal(eager[2], fast[2])
        assert torch.allclose(eager[1], fast[1], atol=1e-5)


def test_an_env_that_raises_is_named():
    env = VecEnv(Counter(), 4, "cpu")
    env.start()
    env.send(0, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(EnvError, match=r"env Counter raised RuntimeError in its step: .*size"):
        env.receive(0)
