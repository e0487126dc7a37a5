"""SeqGAN's rewards as its paper writes them: one completion after another, position by position.

What `benchmarks/seqgan.py` measures rlgan's rollouts against, and a test compares them with. Only the networks' weights
are rlgan's; with ``uniform`` both draw the same tokens, otherwise torch.multinomial draws them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rlgan.nn.text import START, TextCNN, TokenLSTM


def cell(g: TokenLSTM, token: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    gates = [part.T for part in torch.chunk((g.embedding[token] @ g.inputs + h @ g.recurrent + g.bias).T, 4)]
    c = torch.sigmoid(gates[1]) * c + torch.sigmoid(gates[0]) * torch.tanh(gates[3])
    return torch.sigmoid(gates[2]) * torch.tanh(c), c


def complete(g: TokenLSTM, tokens: Tensor, keep: int, uniform: Tensor | None) -> Tensor:
    """Sequences (n, L) that keep the first tokens of others; ``uniform`` is (n, L)."""
    n, length = tokens.shape
    h = c = torch.zeros(n, g.size, device=tokens.device)
    token = torch.full((n,), START, device=tokens.device)
    made = []
    for t in range(length):
        h, c = cell(g, token, h, c)
        if t < keep:
            token = tokens[:, t]
        else:
            p = torch.softmax(h @ g.out + g.out_bias, 1)
            if uniform is None:
                token = torch.multinomial(p, 1).squeeze(1)
            else:
                reached = p.cumsum(1)
                token = (reached <= (uniform[:, t] * reached[:, -1])[:, None]).sum(1)
        made.append(token)
    return torch.stack(made, 1)


def belief(d: TextCNN, tokens: Tensor) -> Tensor:
    """Probability (n,) of being real, by plain convolutions over (n, 1, L, embedding)."""
    x = d.embedding.weight[tokens][:, None]
    features = []
    for layer in d.convolutions:
        kernel = layer.weight.view(len(layer.bias), 1, -1, x.shape[3])  # (filters, 1, width, embedding)
        features.append(torch.relu(F.conv2d(x, kernel, layer.bias)).squeeze(3).max(2).values)
    x = torch.cat(features, 1)
    size = x.shape[1]
    other = torch.relu(F.linear(x, d.highway.weight[:size], d.highway.bias[:size]))
    gate = torch.sigmoid(F.linear(x, d.highway.weight[size:], d.highway.bias[size:]))
    return torch.softmax(d.out(gate * other + (1 - gate) * x), 1)[:, 1]


@torch.no_grad()
def rewards(g: TokenLSTM, d: TextCNN, tokens: Tensor, rollouts: int, uniform: Tensor | None = None) -> Tensor:
    """(n, L): the double loop. ``uniform`` is (L - 1, rollouts, n, L)."""
    n, length = tokens.shape
    total = torch.zeros(n, length, device=tokens.device)
    for r in range(rollouts):
        for keep in range(1, length):
            given = None if uniform is None else uniform[keep - 1, r]
            total[:, keep - 1] += belief(d, complete(g, tokens, keep, given))
        total[:, length - 1] += belief(d, tokens)
    return total / rollouts
