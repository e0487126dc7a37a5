"""DCGAN (Radford et al. 2016): a generator and a discriminator of strided convolutions, trained against each other.

Differs from the paper: the generator begins and the discriminator ends with two fully connected layers, as InfoGAN's do
(Chen et al. 2016), the discriminator sees images moved by a few pixels, samples come from an average of the generator's
weights, and the noise is normal.
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
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.nn.images import BatchNorm, Permute, Shift, start_normal
from rlgan.nn.optimise import Adam, descend, soft_update
from rlgan.nn.torsos import Precision, compute_dtype
from rlgan.specs import GeneratorSpec, Preset
from rlgan.store.state import Saved


@dataclass(frozen=True)
class DCGANConfig:
    """Settings of DCGAN."""

    lr: Annotated[float, Gt(0)] = 5e-4
    """Adam step size of both networks."""
    beta1: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.5
    """Decay of Adam's first moment."""
    batch_size: Annotated[int, Gt(1)] = 64
    """Real images per update; as many are made."""
    noise: Annotated[int, Gt(0)] = 100
    """Length of the noise vector."""
    width: Annotated[int, Gt(0)] = 32
    """Channels of each network's layer next to the images; its other layers are multiples of it."""
    shift: Annotated[int, Ge(0)] = 2
    """Pixels by which the discriminator's images are moved at most, so that it learns few real ones by heart."""
    average: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.998
    """Decay of the average over generators that samples come from; 0 takes the newest."""
    precision: Precision = "auto"
    """Arithmetic of the layers; auto is bfloat16 where it is faster. Weights stay float32."""


class DCGAN(Saved):
    """Satisfies Generator. Images (B, C, H, W) uint8, H and W multiples of 4."""

    kept = ("generator", "averaged", "discriminator", "generator_adam", "discriminator_adam")

    def __init__(self, data: DataSet, config: DCGANConfig, device: torch.device) -> None:
        shape = tuple(data.real.shape[1:])
        if len(shape) != 3 or any(side % 4 for side in shape[1:]):
            raise UsageError(f"dcgan makes images with sides of 4, 8, 12, ... pixels, this data set has {shape}")
        self.config, self.device = config, device
        self.dtype = compute_dtype(config.precision, device)
        self.generator, self.averaged = (make_generator(config, shape) for _ in range(2))
        self.discriminator = make_discriminator(config, shape)
        for net in (self.generator, self.averaged, self.discriminator):
            net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged.requires_grad_(False).load_state_dict(self.generator.state_dict())
        betas = (config.beta1, 0.999)
        self.generator_adam = Adam(self.generator.parameters(), config.lr, betas)
        self.discriminator_adam = Adam(self.discriminator.parameters(), config.lr, betas)

    def phases(self) -> list[Phase]:
        """One phase: train on real images for the whole run."""
        return [Phase("train", Samples(self.config.batch_size), self.update)]

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One minibatch of real images: a step of the discriminator, then one of the generator."""
        c = self.config
        real = batch["real"].float() / 127.5 - 1
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            fake = self.generator(torch.randn(len(real), c.noise, device=self.device))
            on_real, on_fake = self.discriminator(torch.cat((real, fake.detach()))).float().chunk(2)
            loss_d = discriminator_loss(on_real, on_fake)
            descend(self.discriminator_adam, loss_d)
            loss_g = generator_loss(self.discriminator(fake).float())
        descend(self.generator_adam, loss_g)
        soft_update(self.averaged, self.generator, 1 - c.average)
        scores = {"on_real": on_real.detach().sigmoid().mean(), "on_fake": on_fake.detach().sigmoid().mean()}
        return {"loss_d": loss_d.detach(), "loss_g": loss_g.detach(), **scores}

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Return n images (n, C, H, W) uint8 by the averaged generator."""
        # whole batches as in training, by whose statistics images are normalised: one image alone would be another
        size = self.config.batch_size
        noise = torch.randn(-(-n // size), size, self.config.noise, device=self.device)
        images = torch.cat([self.averaged(part) for part in noise])[:n]
        return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def discriminator_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Cross entropy () of logits (B, 1) that call real images 1 and made ones 0 (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()


def generator_loss(on_fake: Tensor) -> Tensor:
    """The non-saturating loss (): made images shall be called real (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-on_fake).mean()


def make_generator(config: DCGANConfig, shape: tuple[int, ...]) -> nn.Module:
    """Noise (B, noise) to images (B, C, H, W) in [-1, 1]."""
    width, size = config.width, config.batch_size
    rows, columns = shape[1] // 4, shape[2] // 4
    return nn.Sequential(
        *(nn.Linear(config.noise, 8 * width, bias=False), BatchNorm(8 * width, size), nn.ReLU(True)),
        *(nn.Linear(8 * width, rows * columns * 2 * width, bias=False), nn.Unflatten(1, (rows, columns, 2 * width))),
        *(Permute(0, 3, 1, 2), BatchNorm(2 * width, size), nn.ReLU(True)),
        *(nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), BatchNorm(width, size), nn.ReLU(True)),
        *(nn.ConvTranspose2d(width, shape[0], 4, 2, 1), nn.Tanh()),
    ).apply(start_normal)


def make_discriminator(config: DCGANConfig, shape: tuple[int, ...]) -> nn.Module:
    """Images (B, C, H, W), each moved by some pixels, to logits (B, 1): is it real?"""
    width, size = config.width, config.batch_size
    features = 2 * width * (shape[1] // 4) * (shape[2] // 4)
    return nn.Sequential(
        *(Shift(config.shift), nn.Conv2d(shape[0], width, 4, 2, 1), nn.LeakyReLU(0.2, True)),
        *(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), BatchNorm(2 * width, size), nn.LeakyReLU(0.2, True)),
        *(Permute(0, 2, 3, 1), nn.Flatten(), nn.Linear(features, 8 * width, bias=False)),
        *(BatchNorm(8 * width, size), nn.LeakyReLU(0.2, True), nn.Linear(8 * width, 1)),
    ).apply(start_normal)


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """DCGAN and its settings for digits."""
    values = {"steps": 6_000, "eval.every": 2_000}
    preset = Preset(
        "digits", "digits", values, True, "expect 85% of samples recognised after 2,500 updates, 87 at the end"
    )
    summary = "convolutional GAN for small images"
    yield GeneratorSpec("dcgan", DCGAN, DCGANConfig, summary, presets=(preset,), tags=("images", "gan"))
