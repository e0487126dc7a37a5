"""SeqGAN's rewards as its paper writes them, one completion after another, position by position; and its discriminator.

What `benchmarks/seqgan.py` measures rlgan's against, and a test compares them with. Only the networks' weights
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


def logits(d: TextCNN, tokens: Tensor, dropout: float = 0.0) -> Tensor:
    """Logits (n, 2) of being made and being real, by plain convolutions over (n, 1, L, embedding)."""
    x = d.embedding.weight[tokens][:, None]
    features = []
    for layer in d.convolutions:
        kernel = layer.weight.view(len(layer.bias), 1, -1, x.shape[3])  # (filters, 1, width, embedding)
        features.append(torch.relu(F.conv2d(x, kernel, layer.bias)).squeeze(3).max(2).values)
    x = torch.cat(features, 1)
    size = x.shape[1]
    other = torch.relu(F.linear(x, d.highway.weight[:size], d.highway.bias[:size]))
    gate = torch.sigmoid(F.linear(x, d.highway.weight[size:], d.highway.bias[size:]))
    return d.out(F.dropout(gate * other + (1 - gate) * x, dropout))


def belief(d: TextCNN, tokens: Tensor) -> Tensor:
    """Probability (n,) of being real."""
    return torch.softmax(logits(d, tokens), 1)[:, 1]


def step(d: TextCNN, adam: torch.optim.Adam, tokens: Tensor, is_real: Tensor, dropout: float, decay: float) -> None:
    """An update of the discriminator on sequences (n, L), of which some are real (n,)."""
    penalty = sum(w.square().sum() for w in d.out.parameters()) / 2
    loss = F.cross_entropy(logits(d, tokens, dropout), is_real.long()) + decay * penalty
    adam.zero_grad()
    loss.backward()
    adam.step()


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
