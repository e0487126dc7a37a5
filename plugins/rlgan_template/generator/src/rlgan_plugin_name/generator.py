"""Variational autoencoder (Kingma & Welling 2014): images as what a small network makes of normal noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from rlgan import GeneratorSpec, Preset, hookimpl
from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.errors import UsageError
from rlgan.nn.optimise import Adam, optimise
from rlgan.nn.torsos import MLP


@dataclass(frozen=True)
class PluginNameConfig:
    """Settings of plugin_name."""

    lr: Annotated[float, Gt(0)] = 1e-3
    """Adam step size."""
    batch_size: Annotated[int, Gt(0)] = 64
    """Real images per update."""
    code: Annotated[int, Gt(0)] = 8
    """Numbers that an image is squeezed into."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers of both networks."""


class PluginNameGenerator:
    """An encoder of images into codes and a decoder of codes into images (B, C, H, W) uint8."""

    def __init__(self, data: DataSet, config: PluginNameConfig, device: torch.device) -> None:
        if data.real.dtype is not torch.uint8 or data.real.dim() != 4:
            raise UsageError(f"plugin_name makes images, this data set has {data.real.dtype} of {data.real.shape[1:]}")
        self.config, self.device, self.shape = config, device, data.real.shape[1:]
        pixels = prod(self.shape)
        self.encoder = MLP(pixels, config.hidden, 2 * config.code).to(device)
        self.decoder = MLP(config.code, config.hidden, pixels).to(device)
        self.optimiser = Adam([*self.encoder.parameters(), *self.decoder.parameters()], config.lr)

    def phases(self) -> list[Phase]:
        """One phase: train on real images for the whole run."""
        return [Phase("train", Samples(self.config.batch_size), self.update)]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real images: draw a code for each, and decode it again."""
        real = batch["real"].flatten(1) / 255
        mean, log_variance = self.encoder(real).chunk(2, -1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        error, distance = reconstruction(self.decoder(code), real), divergence(mean, log_variance)
        norm = optimise(self.optimiser, error + distance, max_norm=100.0)
        return {"error": error.detach(), "divergence": distance.detach(), "grad_norm": norm}

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Decode n codes of pure noise into images (n, C, H, W) uint8."""
        code = torch.randn(n, self.config.code, device=self.device)
        return (self.decoder(code).sigmoid() * 255).round().to(torch.uint8).view(n, *self.shape)

    def state_dict(self) -> dict[str, Any]:
        """Both networks and the optimiser."""
        return {name: getattr(self, name).state_dict() for name in ("encoder", "decoder", "optimiser")}

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Copy a saved state in."""
        for name, state in tree.items():
            getattr(self, name).load_state_dict(state)


def reconstruction(logits: Tensor, real: Tensor) -> Tensor:
    """Cross entropy () of real images (B, pixels) in 0 to 1, summed over pixels; the logits are the decoder's."""
    return F.binary_cross_entropy_with_logits(logits, real, reduction="none").sum(-1).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """How far the codes (B, code) are from standard normal ones, () (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """plugin_name and its tuned settings."""
    yield GeneratorSpec(
        "plugin_name",
        PluginNameGenerator,
        PluginNameConfig,
        "variational autoencoder for small images",
        presets=(
            Preset("digits", "digits", {"steps": 2_000, "threads": 1}, True, "before training no sample is recognised"),
        ),
        tags=("images", "autoencoder"),
    )
