"""Returns and advantages against hand-computed numbers and literal per-copy loops."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlgan.core.returns import gae, lambda_returns, n_step


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def rows(seed, t=12, n=5):
    g = torch.Generator().manual_seed(seed)
    reward, value, nxt = (torch.randn(t, n, generator=g, dtype=torch.float64) for _ in range(3))
    terminated = torch.rand(t, n, generator=g) < 0.2
    truncated = (torch.rand(t, n, generator=g) < 0.2) & ~terminated
    return reward, value, nxt, terminated, truncated


def test_gae_by_hand():
    # two rows, the second terminates: delta = (1 + .5*4 - 2, 3 - 4) = (1, -1); A0 = 1 + .5*.5*(-1)
    flags = torch.tensor([[False], [True]])
    got = gae(column(1, 3), column(2, 4), column(4, 9), flags, flags & False, gamma=0.5, lam=0.5)
    assert got.flatten().tolist() == [0.75, -1.0]


def test_gae_truncation_keeps_the_bootstrap_and_cuts_the_sum():
    cut = torch.tensor([[True], [False]])
    got = gae(column(1, 3), column(2, 4), column(10, 6), cut & False, cut, gamma=0.5, lam=1.0)
    assert got.flatten().tolist() == [1 + 5 - 2, 3 + 3 - 4]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_a_literal_loop(seed, gamma, lam):
    reward, value, nxt, terminated, truncated = rows(seed)
    got = gae(reward, value, nxt, terminated, truncated, gamma, lam)
    for n in range(reward.shape[1]):
        for t in range(len(reward)):
            total, weight = 0.0, 1.0
            for k in range(t, len(reward)):
                bootstrap = 0.0 if terminated[k, n] else gamma * float(nxt[k, n])
                total += weight * (float(reward[k, n]) + bootstrap - float(value[k, n]))
                if terminated[k, n] or truncated[k, n]:
                    break
                weight *= gamma * lam
            assert abs(total - float(got[t, n])) < 1e-9


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_lambda_returns_equal_a_literal_recursion(seed, gamma, lam):
    reward, _, nxt, terminated, truncated = rows(seed)
    got = lambda_returns(reward, nxt, terminated, truncated, gamma, lam)

    def g(t, n):
        if terminated[t, n]:
            return float(reward[t, n])
        last = t == len(reward) - 1 or bool(truncated[t, n])
        v = float(nxt[t, n])
        following = v if last else (1 - lam) * v + lam * g(t + 1, n)
        return float(reward[t, n]) + gamma * following

    for n in range(reward.shape[1]):
        for t in range(len(reward)):
            assert abs(g(t, n) - float(got[t, n])) < 1e-9


def test_lambda_returns_minus_values_is_gae():
    reward, value, _, terminated, truncated = rows(3)
    # consistent values: V of the next observation is the next row's value
    last = torch.randn(1, reward.shape[1], dtype=torch.float64)
    nxt = torch.cat([value[1:], last])
    advantage = gae(reward, value, nxt, terminated, truncated, 0.9, 0.7)
    target = lambda_returns(reward, nxt, terminated, truncated, 0.9, 0.7)
    assert torch.allclose(advantage + value, target, atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0, 1))
def test_n_step_equals_a_literal_loop(seed, n, gamma):
    reward, _, _, terminated, truncated = rows(seed, t=n, n=40)
    total, discount, length = n_step(reward, terminated, truncated, gamma)
    for b in range(40):
        summed, k = 0.0, 0
        for i in range(n):
            summed += gamma**i * float(reward[i, b])
            k = i + 1
            if terminated[i, b] or truncated[i, b]:
                break
        expected = 0.0 if terminated[k - 1, b] else gamma**k
        assert abs(summed - float(total[b])) < 1e-9
        assert abs(expected - float(discount[b])) < 1e-9
        assert k == int(length[b])
