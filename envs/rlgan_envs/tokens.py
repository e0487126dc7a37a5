"""Writing as a game: what is written so far is the state, the next token the action, and an oracle or a judge pays.

So any agent with numbered actions writes. The oracle is that of ``data=oracle`` with the same seed, vocabulary, width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from gymnasium.spaces import Box, Discrete
from torch import Tensor
from torch.nn import functional as F

from rlgan.core.protocols import Policy, State
from rlgan.datasets import fingerprint
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.nn.text import START, TokenLSTM
from rlgan.specs import EnvSpec

END = 0


@dataclass(frozen=True)
class TokensConfig:
    """Settings of writing."""

    vocabulary: Annotated[int, Gt(1)] = 20
    """Tokens."""
    width: Annotated[int, Gt(0)] = 32
    """Length of the oracle's embedding and of its memory."""
    length: Annotated[int, Gt(0)] = 10
    """Most tokens of a sequence."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Draws the oracle."""
    shows: Literal["prefix", "last"] = "prefix"
    """What is seen: all that is written, or the last token alone, for agents with a memory."""
    end: bool = False
    """Whether token 0 ends a sequence, as the oracle has it too."""
    least: Annotated[int, Ge(0)] = 0
    """With ``end``: tokens that come before it. Above 0 actions are masked, which not all agents honour."""
    judge: Path | None = None
    """Directory of a generator's finished run, whose discriminator pays at the end instead: its belief that the
    sequence is real. Vocabulary, length and end are then those of that run."""


class TokensEnv:
    """State ``tokens`` (n, L), how many of them are ``written`` (n,), and the oracle's memory ``h``, ``c`` (n, W).

    Reward is the oracle's log probability of each token, in nats, so that a return is that of the sequence; with a
    judge it is 0, and at the end the belief. Terminated after the end or L tokens.
    """

    def __init__(self, config: TokensConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype, self.judge = torch.device(device), dtype, None
        vocabulary, self.length, end = config.vocabulary, config.length, END if config.end else None
        if config.judge:
            self.judge, self.protocol = _judge(config.judge, self.device)
            vocabulary, self.length, end = self.judge.size, self.judge.length, self.judge.policy.end
            for key, own in {"vocabulary": vocabulary, "length": self.length, "end": end is not None}.items():
                if (given := getattr(config, key)) not in (own, getattr(TokensConfig, key)):
                    wrong, right = (f"{value}".lower() for value in (given, own))
                    raise UsageError(
                        f"env.{key}={wrong} is not that of env.judge={config.judge}, which is {right}: leave it out"
                    )
        if config.least and (end is None or config.least >= self.length):
            raise UsageError(
                f"env.least={config.least} is for sequences that end by themselves, before {self.length} tokens: write "
                "env.end=true and a smaller env.least"
            )
        self.end, self.least, self.shows = end, config.least, config.shows
        self.max_steps = self.length + 1  # never reached: a sequence ends by itself
        rng = torch.Generator().manual_seed(config.seed)
        self.oracle = TokenLSTM(vocabulary, config.width, config.width, end).start(1.0, rng).to(self.device)
        self.oracle.requires_grad_(False)
        self.action_space = Discrete(vocabulary)
        places = self.length if config.shows == "prefix" else 1
        self.observation_space = Box(0.0, 1.0, (places * vocabulary,), np.float32)
        if config.least:
            self.action_mask = self._allowed

    def reset(self, n: int, rng: torch.Generator | None) -> State:
        """Nothing is written."""
        h, c = self.oracle.advance(torch.full((n,), START, device=self.device), self.oracle.blank(n))
        tokens = torch.zeros(n, self.length, dtype=torch.int64, device=self.device)
        return {"tokens": tokens, "written": tokens[:, 0].clone(), "h": h, "c": c}

    def observe(self, state: State) -> Tensor:
        """Each token of what is written, one-hot, and zeros for what is not (n, L V); or the last one alone (n, V)."""
        tokens, written = state["tokens"], state["written"]
        if self.shows == "last":
            tokens = tokens.gather(1, (written - 1).clamp(0, self.length - 1)[:, None])
            there = written[:, None] > 0
        else:
            there = torch.arange(self.length, device=self.device) < written[:, None]
        return (F.one_hot(tokens, self.oracle.vocabulary) * there[..., None]).to(self.dtype).flatten(1)

    def step(self, state: State, action: Tensor, rng: torch.Generator | None) -> tuple[State, Tensor, Tensor]:
        """Write one token."""
        written = state["written"]
        here = torch.arange(self.length, device=self.device) == written[:, None]
        tokens = torch.where(here, action[:, None], state["tokens"])
        over = written + 1 >= self.length
        if self.end is not None:
            over = over | (action == self.end)
        if self.judge is None:
            reward = self.oracle.logits(state["h"]).log_softmax(-1).gather(1, action[:, None]).squeeze(1)
        else:
            reward = self.judge.belief(self._ended(tokens, written + 1)) * over
        h, c = self.oracle.advance(action, (state["h"], state["c"]))
        return {"tokens": tokens, "written": written + 1, "h": h, "c": c}, reward.to(self.dtype), over

    def references(self) -> dict[str, Policy]:
        """Policies that see the oracle: one draws from it as it is, one takes its likeliest token. A judge has none."""
        if self.judge:
            return {}

        def logits(state: State) -> Tensor:
            found = self.oracle.logits(state["h"])
            return found if not self.least else found.masked_fill(~self._allowed(state), -torch.inf)

        def greedy(state: State, rng: torch.Generator | None) -> Tensor:
            return logits(state).argmax(-1)

        def oracle(state: State, rng: torch.Generator | None) -> Tensor:
            return torch.multinomial(logits(state).softmax(-1), 1, generator=rng).squeeze(1)

        return {"oracle": oracle, "greedy": greedy}

    def _allowed(self, state: State) -> Tensor:
        """All tokens (n, V), but not the end before ``least`` others."""
        number = torch.arange(self.oracle.vocabulary, device=self.device)
        return (number != self.end) | (state["written"][:, None] >= self.least)

    def _ended(self, tokens: Tensor, written: Tensor) -> Tensor:
        """Sequences (n, L) with their end in the place of what is not written."""
        if self.end is None:
            return tokens
        return tokens.masked_fill(torch.arange(self.length, device=self.device) >= written[:, None], self.end)


def _judge(folder: Path, device: torch.device) -> tuple[Any, str]:
    """The generator of a run, whose discriminator judges, and its fingerprint. UsageError: it has none."""
    from rlgan import trained
    from rlgan.store import checkpoint
    from rlgan.store.manifest import MANIFEST

    if not (folder / "config.yaml").is_file():
        raise UsageError(f"env.judge={folder} is not a run directory (it has no config.yaml): give that of a generator")
    found = trained.load(folder, str(device))
    if not hasattr(found.learner, "belief"):
        raise UsageError(f"env.judge={folder} holds nothing that judges sequences: give a run of generator=seqgan")
    saved, steps = checkpoint.newest(folder / "checkpoints", segments=False), found.run.config.steps
    if saved.step < steps:
        raise UsageError(
            f"env.judge={folder} is at step {saved.step:,} of {steps:,}, and a judge that learns would change the "
            f"reward: write `rlgan resume {folder}` first"
        )
    return found.learner, fingerprint((saved.path / MANIFEST).read_bytes())


@hookimpl
def rlgan_specs() -> Iterable[EnvSpec]:
    """Writing."""
    yield EnvSpec(
        "tokens",
        TokensEnv,
        TokensConfig,
        "write a sequence token by token, paid by an oracle or a discriminator",
        tags=("text", "discrete"),
    )
