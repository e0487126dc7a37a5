"""Networks of tokens: a recurrent model that writes sequences, and a convolutional one that judges them.

Shapes: n sequences of L tokens, (n, L) int64, from a vocabulary of V.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.tokens import counted

START = 0
"""What stands before the first token. It is an ordinary one, as in SeqGAN's code, or the end of the line before."""
PIECE = {"cpu": 1 << 18, "cuda": 1 << 27}
"""Logits that are held at once where no gradient is taken, by device: what a processor's cache keeps."""
REMEMBERED = 1 << 22
"""Numbers that `TokenLSTM.measure` holds at once of what is remembered in sequences."""
State = tuple[Tensor, Tensor]


class TokenLSTM(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) over tokens, with one bias for each gate.

    ``end`` is the token that ends a sequence: after it there is nothing but itself, and nothing more counts.
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int, end: int | None = None) -> None:
        super().__init__()
        self.vocabulary, self.size, self.end = vocabulary, hidden, end
        self.embedding = nn.Parameter(torch.empty(vocabulary, embedding))
        self.inputs = nn.Parameter(torch.empty(embedding, 4 * hidden))  # gates in the order i, f, o, c
        self.recurrent = nn.Parameter(torch.empty(hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        self.out = nn.Parameter(torch.empty(hidden, vocabulary))
        self.out_bias = nn.Parameter(torch.empty(vocabulary))

    def start(self, deviation: float, rng: torch.Generator | None = None) -> TokenLSTM:
        """Draw all parameters, biases too, from N(0, deviation)."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0.0, deviation, generator=rng)
        return self

    def blank(self, n: int) -> State:
        """The state before the start."""
        zeros = self.bias.new_zeros(n, self.size)
        return zeros, zeros

    def advance(self, token: Tensor, state: State) -> State:
        """The state after one more token (n,)."""
        return self._cell(F.embedding(token, self.embedding) @ self.inputs, state)

    def _cell(self, x: Tensor, state: State) -> State:
        h, c = state
        i, f, o, g = (x + h @ self.recurrent + self.bias).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What is remembered before each token of (n, L): two tensors (L, n, hidden)."""
        seen = F.pad(tokens[:, :-1], (1, 0), value=START)
        state, found = self.blank(len(tokens)), []
        for x in (F.embedding(seen.T, self.embedding) @ self.inputs).unbind():
            state = self._cell(x, state)
            found.append(state)
        return torch.stack([h for h, _ in found]), torch.stack([c for _, c in found])

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of the next token."""
        return torch.addmm(self.out_bias, hidden.flatten(0, -2), self.out).view(*hidden.shape[:-1], -1)

    def log_prob(self, tokens: Tensor, temperature: float = 1.0, given: Tensor | None = None) -> Tensor:
        """Log probability of each token of (n, L), given those before it, or those of other sequences ``given``; 0
        where it does not count.
        """
        hidden, _ = self.states(tokens if given is None else given)
        log = (self.logits(hidden) / temperature).log_softmax(-1).gather(-1, tokens.T.unsqueeze(-1))
        return log.squeeze(-1).T * counted(tokens, self.end)

    @torch.no_grad()
    def measure(self, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """As `log_prob`, and the entropy (n, L) of the distribution that each token is drawn from; in pieces."""
        rows = max(1, PIECE[tokens.device.type] // (self.vocabulary * tokens.shape[1]))
        # written in place: small tensors that outlive the large ones of their piece would leave holes in the heap
        found = self.out.new_empty(2, *tokens.shape)
        # remembering for so few rows as their logits allow would be slow; a unit takes 8 numbers for each token
        many = max(rows, REMEMBERED // (8 * self.size * tokens.shape[1]))
        for read, write in zip(tokens.split(many), found.split(many, 1), strict=True):
            pieces = (read.split(rows), self.states(read)[0].split(rows, 1), write.split(rows, 1))
            for part, hidden, (taken, entropy) in zip(*pieces, strict=True):
                log = (self.logits(hidden) / temperature).log_softmax(-1)
                counts = counted(part, self.end)
                torch.mul(log.gather(-1, part.T.unsqueeze(-1)).squeeze(-1).T, counts, out=taken)
                # a logit of -inf has probability 0 and adds nothing
                torch.mul(-(log.exp() * log.clamp_min(-1e30)).sum(-1).T, counts, out=entropy)
        return found[0], found[1]

    @torch.no_grad()
    def draw(self, hidden: Tensor, last: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        """The next token (n,) of each sequence, by its own uniform number (n,) in [0, 1): its place in the
        distribution function. One number a token instead of one for each word of the vocabulary.
        """
        # the function is searched in two steps, the block of words and the word: a sum over all words is fast and
        # exactly repeatable on any device, a running sum is neither
        side = math.isqrt(self.vocabulary - 1) + 1
        missing = side * side - self.vocabulary
        out = F.pad(self.out, (0, missing)) / temperature
        bias = F.pad(self.out_bias, (0, missing), value=-torch.inf) / temperature
        rows, pieces = max(1, PIECE[hidden.device.type] // len(bias)), []
        for h, u in zip(hidden.split(rows), uniform.split(rows), strict=True):
            logits = torch.addmm(bias, h, out)
            weight = (logits - logits.amax(-1, keepdim=True)).exp().view(-1, side, side)
            sums = weight.sum(-1)
            block, rest = _place(sums, u * sums.sum(-1))
            word, _ = _place(weight.gather(1, block.view(-1, 1, 1).expand(-1, 1, side)).squeeze(1), rest)
            pieces.append(block * side + word)
        token = torch.cat(pieces).clamp_max(self.vocabulary - 1)
        return token if self.end is None else torch.where(last == self.end, last, token)

    @torch.no_grad()
    def sample(self, uniform: Tensor, prefix: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Sequences (n, L) by uniform numbers (n, L), each beginning with ``prefix`` (P,)."""
        n, length = uniform.shape
        given = 0 if prefix is None else len(prefix)
        state = self.advance(uniform.new_full((n,), START, dtype=torch.int64), self.blank(n))
        tokens: list[Tensor] = []
        for t in range(length):
            if prefix is not None and t < given:
                token = prefix[t].expand(n)
            else:
                # at the start there is no end before, whatever number START has
                last = tokens[-1] if tokens else torch.full_like(state[0][:, 0], -1, dtype=torch.int64)
                token = self.draw(state[0], last, uniform[:, t], temperature)
            tokens.append(token)
            state = self.advance(token, state)
        return torch.stack(tokens, 1)

    @torch.no_grad()
    def completions(self, tokens: Tensor, uniform: Tensor) -> Tensor:
        """Finish every prefix of sequences (n, L) R times: (L - 1, R, n, L), of which [t - 1] keeps t tokens.

        ``uniform`` is (L - 1, R, n, L), of which [t - 1, ..., s] draws token s >= t. All prefixes run side by side: at
        token s those of s tokens and fewer are at work, the one of s tokens being new.
        """
        prefixes, rollouts, n, length = uniform.shape
        hidden, cells = self.states(tokens)
        made = tokens.expand(prefixes, rollouts, n, length).clone()
        h, c = self.blank(0)
        for s in range(1, length):
            h, c = (torch.cat((old, new[s].repeat(rollouts, 1))) for old, new in ((h, hidden), (c, cells)))
            working = made[:s]
            token = self.draw(h, working[..., s - 1].flatten(), uniform[:s, ..., s].flatten())
            working[..., s] = token.view(s, rollouts, n)
            h, c = self.advance(token, (h, c))
        return made


class TextCNN(nn.Module):
    """Convolutions of several widths over embedded tokens, the most of each over time, and one highway layer.

    Kim (2014) with the highway of Srivastava et al. (2015), as SeqGAN's discriminator: (B, L) to logits (B, 2) of being
    made and being real. ``dropout`` is the share of features that is dropped. With several ``parts`` the embedding is
    cut into so many, which the rest looks at one by one: logits are (B * parts, 2).
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        widths: tuple[int, ...],
        filters: tuple[int, ...],
        dropout: float,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.dropout, self.parts, self.widths, features = dropout, parts, widths, sum(filters)
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.convolutions = nn.ModuleList(
            nn.Linear(width * embedding // parts, count) for width, count in zip(widths, filters, strict=True)
        )
        self.highway = nn.Linear(features, 2 * features)  # what comes in its place, then the gate
        self.out = nn.Linear(features, 2)
        nn.init.uniform_(self.embedding.weight, -1, 1)
        for layer in (*self.convolutions, self.out):
            nn.init.trunc_normal_(layer.weight, 0.0, 0.1, -0.2, 0.2)
            nn.init.constant_(layer.bias, 0.1)
        for half in self.highway.weight.chunk(2):
            nn.init.xavier_uniform_(half)
        nn.init.zeros_(self.highway.bias)

    def forward(self, tokens: Tensor, training: bool) -> Tensor:
        """``training`` drops features."""
        return self.out(self.features(self.embedding(tokens), training))

    def features(self, embedded: Tensor, training: bool) -> Tensor:
        """What the highway gives (B * parts, F) of embedded tokens (B, L, embedding); ``training`` drops some."""
        size = embedded.shape[2] // self.parts
        cut = embedded.unflatten(2, (self.parts, size)).transpose(1, 2).flatten(0, 1)
        # products of windows beat short convolutions
        found = [
            layer(windows(cut, width)).amax(1) for layer, width in zip(self.convolutions, self.widths, strict=True)
        ]
        x = torch.cat(found, 1).relu()
        other, gate = self.highway(x).chunk(2, 1)
        return F.dropout(torch.lerp(x, other.relu(), gate.sigmoid()), self.dropout, training)

    @torch.no_grad()
    def belief(self, tokens: Tensor, rows: int = 512) -> Tensor:
        """Probability (n,) that sequences (n, L) are real, ``rows`` of them at a time."""
        return torch.cat([self(part, False).float().softmax(1)[:, 1] for part in tokens.split(rows)])


def windows(x: Tensor, width: int) -> Tensor:
    """Every ``width`` tokens in a row of (B, L, size), (B, L - width + 1, width * size)."""
    count = x.shape[1] - width + 1
    if torch.compiler.is_compiling():
        # the compiler would sum unfold's gradient by index, on CUDA after a sort; of slices it makes one kernel
        return torch.cat([x[:, k : k + count] for k in range(width)], 2)
    return x.flatten(1).unfold(1, width * x.shape[2], x.shape[2])


def running_sum(x: Tensor) -> Tensor:
    """Sums up to each place of short rows (n, k), in one order on any device: torch.cumsum promises none on CUDA."""
    k = x.shape[1]
    return x @ torch.ones(k, k, device=x.device).triu()


def _place(weight: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """Where the running sum of weights (n, k) passes each goal (n,), and how far beyond the place's beginning it is."""
    reached = running_sum(weight)
    index = (reached <= goal[:, None]).sum(1).clamp_max(weight.shape[1] - 1)
    return index, goal - (reached - weight).gather(1, index[:, None]).squeeze(1)
