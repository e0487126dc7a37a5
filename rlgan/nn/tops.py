"""The last layers of a value network: plain, noisy, in two streams. Shapes: B rows, A actions, K numbers for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Top:
    """How the last hidden layer and the output of a value network are made."""

    each: int = 1
    """Numbers for each action."""
    dueling: bool = False
    """Two streams, each with a hidden layer of its own: see `Dueling`."""
    sigma: float = 0.0
    """Where noisy layers start; 0 is no noise."""

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        """A linear layer of the kind wanted."""
        return NoisyLinear(inputs, outputs, self.sigma) if self.sigma else nn.Linear(inputs, outputs)

    def hidden(self, inputs: int, width: int) -> nn.Module:
        """The last hidden layer; that of both streams is one product."""
        return self.layer(inputs, 2 * width if self.dueling else width)

    def out(self, width: int, outputs: int) -> nn.Module:
        """The output, A * K numbers."""
        return Dueling(self, width, outputs) if self.dueling else self.layer(width, outputs)


PLAIN = Top()


class Dueling(nn.Module):
    """``V + A_a - mean_a A`` (Wang et al. 2016, eq. 9) for each of the K numbers, (B, features) to (B, A * K).

    The first ``width`` features tell V, the last ones A: halves of a hidden layer, or all of what has no hidden layer.
    """

    def __init__(self, top: Top, width: int, outputs: int) -> None:
        super().__init__()
        self.width, self.each = width, top.each
        self.value, self.advantage = top.layer(width, top.each), top.layer(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Bring both streams together, in float32."""
        value = self.value(x[..., : self.width]).float().unsqueeze(-2)
        advantage = self.advantage(x[..., -self.width :]).float().unflatten(-1, (-1, self.each))
        return (value + advantage - advantage.mean(-2, keepdim=True)).flatten(-2)


class NoisyLinear(nn.Module):
    """A linear layer with learned, factorised Gaussian noise (Fortunato et al. 2018), (B, inputs) to (B, outputs).

    Its weights are ``mu + sigma * f(e_out) f(e_in)^T`` and its biases ``mu + sigma * f(e_out)``, with standard normal e
    and ``f(e) = sign(e) sqrt(|e|)``. The noisy weights are never made: ``f(e_in)`` multiplies what comes in and
    ``f(e_out)`` what goes out, so each row has noise of its own: copies explore each by itself, and the gradient of a
    minibatch varies less than with one draw for all.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.noisy = True
        """Off within `without_noise`."""

    def forward(self, x: Tensor) -> Tensor:
        """Draw fresh noise and apply the layer."""
        mean = F.linear(x, self.weight, self.bias)
        if not self.noisy:
            return mean
        outputs, inputs = self.weight.shape
        noise = torch.randn(len(x), inputs + outputs, device=x.device)
        into, out = (noise.sign() * noise.abs().sqrt()).split((inputs, outputs), -1)
        return torch.addcmul(mean, F.linear(x * into, self.weight_sigma, self.bias_sigma), out)


def without_noise(net: nn.Module, x: Tensor) -> Tensor:
    """``net(x)`` by the mean weights of its noisy layers."""
    layers = [layer for layer in net.modules() if isinstance(layer, NoisyLinear)]
    for layer in layers:
        layer.noisy = False
    try:
        return net(x)
    finally:
        for layer in layers:
            layer.noisy = True
