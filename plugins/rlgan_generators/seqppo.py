"""SeqGAN with what came later: a reward for every token, a value baseline, clipped updates of large batches.

The discriminator is an LSTM that says of each token by how much it changes the log odds that what is written so far is
real. That is what the token earns, so that a sequence earns the odds of the whole: where they are exact, log p(real) -
log p(policy), whose mean is highest for the data's own distribution. Policy and value learn as PPO's (Schulman et al.
2017) from whole sequences; likelihood of real ones may go on beside. A discriminator at every token and large batches
are d'Autume et al.'s (2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.hookspecs import hookimpl
from rlgan.nn.optimise import optimise
from rlgan.nn.text import TokenLSTM, running_sum
from rlgan.specs import GeneratorSpec, Preset
from rlgan.tokens import counted
from rlgan_generators.writers import MINI, Writer, WriterConfig, mean_nll, token_advantages


@dataclass(frozen=True)
class SeqPPOConfig(WriterConfig):
    """Settings of SeqPPO."""

    pretrain: Annotated[int, Ge(0)] = 20
    """Passes over the data in which the generator learns by maximum likelihood."""
    pretrain_d: Annotated[int, Ge(0)] = 10
    """Passes of the discriminator over made sequences and the data, before the first round."""
    embedding_d: Annotated[int, Gt(0)] = 64
    """Length of the discriminator's embedding."""
    hidden_d: Annotated[int, Gt(0)] = 64
    """Units of the discriminator's memory."""
    dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.25
    """Share of the discriminator's memory that is dropped in its updates."""
    lr_d: Annotated[float, Gt(0)] = 3e-3
    """Adam step size of the discriminator."""
    updates_d: Annotated[int, Gt(0)] = 16
    """Updates of the discriminator in one round."""
    lr_pg: Annotated[float, Gt(0)] = 1e-3
    """Adam step size of policy and value in rounds."""
    written: Annotated[int, Gt(0)] = 512
    """Sequences that the policy learns from in one round."""
    epochs: Annotated[int, Gt(0)] = 4
    """Passes over these, in minibatches of ``batch_size``."""
    clip: Annotated[float, Gt(0)] = 0.2
    """How far the ratio of new to old probability counts."""
    gamma: Annotated[float, Interval(ge=0.0, le=1.0)] = 1.0
    """Discount of a token's reward for those before it."""
    lam: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.9
    """Decay of generalised advantages."""
    likelihood: Annotated[float, Ge(0)] = 0.0
    """Weight of the likelihood of real sequences in the policy's updates."""


class SeqPPO(Writer):
    """Satisfies Generator. Sequences (n, L) int64."""

    kept = (*Writer.kept, "discriminator", "value", "policy_adam", "value_adam", "discriminator_adam", "latest")

    def __init__(self, data: DataSet, config: SeqPPOConfig, device: torch.device) -> None:
        super().__init__(data, config, device)
        self.config, self.real = config, data.real.to(device)
        self.discriminator = TokenLSTM(self.size, config.embedding_d, config.hidden_d, self.policy.end).start(0.1)
        self.discriminator.to(device)
        self.value = nn.Linear(config.hidden, 1).to(device)
        self.policy_adam = self.adam(self.policy.parameters(), config.lr_pg)
        self.value_adam = self.adam(self.value.parameters(), config.lr_pg)
        self.discriminator_adam = self.adam(self.discriminator.parameters(), config.lr_d)
        self.latest = {name: torch.zeros((), device=device) for name in ("reward", "loss_g", "loss_v", "clipped")}
        """Means over the generator's last round."""

    def phases(self) -> list[Phase]:
        """Maximum likelihood, the discriminator alone, then both in rounds."""
        c = self.config
        real, per_pass = Samples(c.batch_size), self.count // c.batch_size
        return [
            Phase("pretrain", real, self.likelihood, c.pretrain * per_pass, "updates"),
            Phase("pretrain-d", real, self.update, c.pretrain_d * per_pass, "updates"),
            Phase("train", real, self.update, delayed=((c.updates_d, self.improve),)),
        ]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real sequences, and as many that the policy of the moment makes, for the discriminator."""
        real = batch["real"]
        tokens = torch.cat((real, self.made(len(real))))
        is_real = torch.arange(len(tokens), device=self.device) < len(real)
        counts, logits = counted(tokens, self.policy.end), running_sum(self.adds(tokens, self.config.dropout))
        error = F.binary_cross_entropy_with_logits(logits, is_real[:, None].float().expand_as(logits), counts.float())
        loss = error * counts.numel() / counts.sum()
        optimise(self.discriminator_adam, loss, self.max_norm)
        right = (((logits > 0) == is_real[:, None]) & counts).sum() / counts.sum()
        return {"loss_d": loss.detach(), "accuracy": right, **self.latest}

    def adds(self, tokens: Tensor, dropout: float = 0.0) -> Tensor:
        """What each token adds (n, L) to the log odds that sequences (n, L) are real."""
        hidden = F.dropout(self.discriminator.states(tokens)[0], dropout, dropout > 0)
        # one column of the last layer for each token, not the logits of all
        columns = F.embedding(tokens.T, self.discriminator.out.T)
        return ((hidden * columns).sum(-1) + self.discriminator.out_bias[tokens.T]).T

    def improve(self, batch: Batch) -> None:
        """Write sequences, and learn from them by several passes of clipped updates."""
        c, end = self.config, self.policy.end
        tokens = self.made(c.written)
        with torch.no_grad():
            old, _ = self.policy.measure(tokens)
            reward = self.adds(tokens) * counted(tokens, end)
            value = self.value(self.policy.states(tokens)[0]).squeeze(-1).T
            advantage = token_advantages(reward, value, tokens, end, c.gamma, c.lam)
            target = advantage + value
            advantage = normalised(advantage, counted(tokens, end))
        orders = torch.rand(c.epochs, c.written, device=self.device).argsort(1)
        found = [
            self._learn(tokens[index], old[index], advantage[index], target[index])
            for order in orders
            for index in order.split(c.batch_size)
        ]
        means = (
            reward.sum(1).mean(),
            *(torch.stack(part).mean() for part in zip(*found, strict=True)),
        )
        for name, mean in zip(self.latest, means, strict=True):
            self.latest[name].copy_(mean)

    def _learn(self, tokens: Tensor, old: Tensor, advantage: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        c, counts = self.config, counted(tokens, self.policy.end)
        log_prob = self.policy.log_prob(tokens)
        loss = clipped_loss(log_prob, old, advantage, counts, c.clip)
        total = loss
        if c.likelihood:
            real = self.real[torch.randint(self.count, (len(tokens),), device=self.device)]
            total = loss + c.likelihood * mean_nll(self.policy.log_prob(real), real, self.policy.end)
        optimise(self.policy_adam, total, self.max_norm)
        value = self.value(self.policy.states(tokens)[0].detach()).squeeze(-1).T
        loss_v = ((value - target).square() * counts).sum() / counts.sum()
        optimise(self.value_adam, loss_v, self.max_norm)
        outside = (((log_prob.detach() - old).exp() - 1).abs() > c.clip) & counts
        return loss.detach(), loss_v.detach(), outside.sum() / counts.sum()


def normalised(advantage: Tensor, counts: Tensor) -> Tensor:
    """Advantages (n, L) with mean 0 and deviation 1 over the tokens that count."""
    mean = (advantage * counts).sum() / counts.sum()
    return (advantage - mean) / (((advantage - mean).square() * counts).sum() / counts.sum()).sqrt().clamp_min(1e-8)


def clipped_loss(log_prob: Tensor, old: Tensor, advantage: Tensor, counts: Tensor, clip: float) -> Tensor:
    """PPO's loss (), a mean over the tokens that count of (n, L) (Schulman et al. 2017, equation 7)."""
    ratio = (log_prob - old).exp()
    worse = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -(worse * counts).sum() / counts.sum()


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """SeqPPO."""
    mini = {
        **MINI,
        "steps": 20 * 64 + 10 * 64 + 60 * 16,
        "eval.every": 320,
    }
    presets = (Preset("mini", "oracle", mini, True, "a small oracle"),)
    summary = "LSTM rewarded at every token, with clipped updates"
    yield GeneratorSpec("seqppo", SeqPPO, SeqPPOConfig, summary, presets=presets, tags=("text", "gan"))
