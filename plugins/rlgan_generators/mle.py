"""Maximum likelihood: an LSTM learns to write by real sequences alone. What every rewarded generator has to beat.

With ``own`` above 0 it is scheduled sampling (Bengio et al. 2015): some of the tokens that it goes on from are its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import optimise
from rlgan.nn.text import START, TokenLSTM
from rlgan.specs import GeneratorSpec, Preset
from rlgan_generators.writers import MINI, Writer, WriterConfig, mean_nll


@dataclass(frozen=True)
class MLEConfig(WriterConfig):
    """Settings of likelihood."""

    shuffle: bool = True
    """Whether each pass takes the data in another order; SeqGAN's code keeps one."""
    own: Annotated[float, Ge(0)] = 0.0
    """The share of tokens that it goes on from which are its own, in the first pass over the data; it rises by as much
    with each one."""
    most_own: Annotated[float, Interval(ge=0.0, le=1.0)] = 1.0
    """Where that share ends."""


class MLE(Writer):
    """Satisfies Generator. Sequences (n, L) int64."""

    def __init__(self, data: DataSet, config: MLEConfig, device: torch.device) -> None:
        super().__init__(data, config, device)
        self.config = config

    def phases(self) -> list[Phase]:
        """Likelihood to the end of the run."""
        c = self.config
        return [Phase("train", Samples(c.batch_size, shuffle=c.shuffle), self.scheduled if c.own else self.likelihood)]

    def scheduled(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real sequences, each token after some that are its own."""
        real, done = batch["real"], (batch["step"] - 1) // (self.count // self.config.batch_size)
        own = (self.config.own * (done + 1)).clamp_max(self.config.most_own)
        given = mixed(self.policy, real, own, torch.rand(2, *real.shape, device=self.device))
        loss = mean_nll(self.policy.log_prob(real, given=given), real, self.policy.end)
        norm = optimise(self.mle_adam, loss, self.max_norm)
        return {"loss": loss.detach(), "norm": norm, "own": own}


@torch.no_grad()
def mixed(policy: TokenLSTM, real: Tensor, own: Tensor, uniform: Tensor) -> Tensor:
    """Sequences (n, L) of which each token is the policy's own with probability ``own`` (), and else the real one.

    ``uniform`` is (2, n, L): which are its own, and which token then.
    """
    n, length = real.shape
    state = policy.advance(torch.full((n,), START, device=real.device), policy.blank(n))
    last, found = torch.full((n,), -1, device=real.device), []
    for t in range(length):
        drawn = policy.draw(state[0], last, uniform[1, :, t])
        last = torch.where(uniform[0, :, t] < own, drawn, real[:, t])
        state = policy.advance(last, state)
        found.append(last)
    return torch.stack(found, 1)


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """Likelihood, and what SeqGAN's paper compares with."""
    mini = {**MINI, "steps": 40 * 64, "eval.every": 640}
    # 156 updates a pass
    published = {"eval.samples": 9_984, "eval.every": 20 * 156, "generator.shuffle": False, "generator.eps_hat": True}
    paper = {**published, "generator.lr": 1e-3}
    presets = (
        Preset("mini", "oracle", mini, True, "a small oracle"),
        Preset("repo", "oracle", {**published, "steps": 120 * 156}, note="what SeqGAN's repository begins from"),
        Preset("paper", "oracle", {**paper, "steps": 350 * 156}, note="the paper's baseline of likelihood"),
        Preset(
            "scheduled",
            "oracle",
            {**paper, "steps": 300 * 156, "generator.own": 0.002},
            note="the paper's baseline of scheduled sampling",
        ),
    )
    yield GeneratorSpec("mle", MLE, MLEConfig, "LSTM by maximum likelihood", presets=presets, tags=("text",))
