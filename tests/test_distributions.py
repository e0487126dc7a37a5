"""Distributions over actions against torch.distributions."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import distributions as oracle

from rlgan.errors import UsageError
from rlgan.nn.distributions import distribution_over, forbid

CPU = torch.device("cpu")


def test_categorical_is_torchs():
    torch.manual_seed(0)
    pi = distribution_over(Discrete(5, start=3), CPU)
    logits = 3 * torch.randn(7, 4, 5)
    draw = pi.draw(logits)
    assert draw.shape == (7, 4) and pi.size == 5
    expected = oracle.Categorical(logits=logits)
    assert torch.allclose(pi.log_prob(logits, draw), expected.log_prob(draw), atol=1e-6)
    assert torch.allclose(pi.entropy(logits), expected.entropy(), atol=1e-6)
    assert torch.equal(pi.mode(logits), logits.argmax(-1))
    assert torch.equal(pi.action(draw), draw + 3)


def test_categories_are_drawn_by_their_probability():
    torch.manual_seed(0)
    pi = distribution_over(Discrete(4), CPU)
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    counts = torch.bincount(pi.draw(logits.expand(200_000, 4)), minlength=4)
    assert (counts / 200_000 - logits.softmax(0)).abs().max() < 0.005


def test_several_categories_add_up():
    torch.manual_seed(0)
    pi = distribution_over(MultiDiscrete([2, 3, 4], start=[0, 1, 5]), CPU)
    logits = torch.randn(6, 9)
    draw = pi.draw(logits)
    parts = [oracle.Categorical(logits=part) for part in logits.split([2, 3, 4], -1)]
    assert pi.size == 9 and draw.shape == (6, 3)
    log_prob = sum(part.log_prob(draw[:, i]) for i, part in enumerate(parts))
    assert torch.allclose(pi.log_prob(logits, draw), log_prob, atol=1e-6)
    assert torch.allclose(pi.entropy(logits), sum(part.entropy() for part in parts), atol=1e-6)
    assert torch.equal(pi.mode(logits), torch.stack([part.logits.argmax(-1) for part in parts], -1))
    assert torch.equal(pi.action(draw), draw + torch.tensor([0, 1, 5]))


def test_gaussian_is_torchs():
    torch.manual_seed(0)
    space = Box(np.float32([-1, -2]), np.float32([1, 0.5]))
    pi = distribution_over(space, CPU)
    mean, log_std = torch.randn(5, 2), 0.5 * torch.randn(5, 2)
    parameters = torch.cat([mean, log_std], -1)
    draw = pi.draw(parameters)
    expected = oracle.Independent(oracle.Normal(mean, log_std.exp()), 1)
    assert torch.allclose(pi.log_prob(parameters, draw), expected.log_prob(draw), atol=1e-5)
    assert torch.allclose(pi.entropy(parameters), expected.entropy(), atol=1e-6)
    assert torch.equal(pi.mode(parameters), mean)
    many = pi.draw(torch.tensor([1.0, -3.0, 0.0, -1.0]).expand(100_000, 4))
    assert torch.allclose(many.mean(0), torch.tensor([1.0, -3.0]), atol=0.02)
    assert torch.allclose(many.std(0), torch.tensor([1.0, 0.36788]), atol=0.02)
    # what the env takes lies within its bounds; the draw itself does not
    assert torch.equal(pi.action(many), many.clamp(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.5])))


def test_a_box_of_any_shape_and_dtype():
    pi = distribution_over(Box(-1.0, 1.0, (2, 3), np.float64), CPU)
    action = pi.action(pi.draw(torch.zeros(4, 12)))
    assert action.shape == (4, 2, 3) and action.dtype == torch.float64
    scalar = distribution_over(Box(-1.0, 1.0, (), np.float32), CPU)
    assert scalar.action(scalar.draw(torch.zeros(4, 2))).shape == (4,)


def test_forbidden_actions_have_no_probability_and_no_gradient():
    torch.manual_seed(0)
    pi = distribution_over(Discrete(4), CPU)
    logits = torch.randn(1000, 4, requires_grad=True)
    mask = torch.tensor([True, False, True, False])
    masked = forbid(logits, mask.expand(1000, 4))
    assert not pi.draw(masked).remainder(2).any() and not pi.mode(masked).remainder(2).any()
    # as if there were only the two that are allowed
    expected = oracle.Categorical(logits=logits[:, [0, 2]])
    assert torch.allclose(pi.entropy(masked), expected.entropy(), atol=1e-6)
    assert torch.allclose(pi.log_prob(masked, torch.full((1000,), 2)), expected.logits[:, 1], atol=1e-6)
    (pi.entropy(masked).sum() + pi.log_prob(masked, torch.zeros(1000, dtype=torch.int64)).sum()).backward()
    assert logits.grad[:, [1, 3]].eq(0).all() and logits.grad.isfinite().all()


def test_other_spaces_are_refused():
    with pytest.raises(UsageError, match=r"no distribution over MultiBinary.*write actions as Discrete"):
        distribution_over(MultiBinary(3), CPU)
