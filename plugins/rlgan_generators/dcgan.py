"""DCGAN (Radford et al. 2016): a generator and a discriminator of strided convolutions, trained against each other.

Differs from the paper: the discriminator ends and the generator begins with a fully connected layer, samples come from
an exponential average of the generator's weights, and the noise is normal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.optimise import Adam, optimise, soft_update
from rlgan.core.protocols import Batch, DataSet, Phase, Samples
from rlgan.core.state import Saved
from rlgan.errors import UsageError
from rlgan.hookspecs import hookimpl
from rlgan.nn.torsos import Precision, compute_dtype
from rlgan.specs import GeneratorSpec, Preset

MAX_NORM = 100.0
"""Of gradients: far above those of a healthy run."""


@dataclass(frozen=True)
class DCGANConfig:
    """Settings of DCGAN."""

    lr: Annotated[float, Gt(0)] = 2e-4
    """Adam step size of both networks."""
    beta1: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.5
    """Decay of Adam's first moment."""
    batch_size: Annotated[int, Gt(1)] = 64
    """Real images per update; as many are made."""
    noise: Annotated[int, Gt(0)] = 100
    """Length of the noise vector."""
    width: Annotated[int, Gt(0)] = 32
    """Channels of the discriminator's first layer; the other layers are multiples of it."""
    average: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.995
    """Decay of the average over generators that samples come from; 0 takes the newest."""
    precision: Precision = "auto"
    """Arithmetic of the convolutions; auto is bfloat16 where it is faster. Weights stay float32."""


class DCGAN(Saved):
    """Satisfies Generator. Images (B, C, H, W) uint8, H and W divisible by 4."""

    kept = ("generator", "averaged", "discriminator", "generator_adam", "discriminator_adam")

    def __init__(self, data: DataSet, config: DCGANConfig, device: torch.device) -> None:
        if data.real.dim() != 4 or data.real.shape[2] % 4 or data.real.shape[3] % 4:
            shape = tuple(data.real.shape[1:])
            raise UsageError(f"dcgan makes images whose height and width are multiples of 4, this data set has {shape}")
        self.config, self.device = config, device
        self.dtype = compute_dtype(config.precision, device)
        shape = tuple(data.real.shape[1:])
        self.generator, self.averaged = (make_generator(config.noise, config.width, shape).to(device) for _ in range(2))
        self.averaged.requires_grad_(False).load_state_dict(self.generator.state_dict())
        self.discriminator = make_discriminator(config.width, shape).to(device)
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
        noise = torch.randn(len(real), c.noise, device=self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            fake = self.generator(noise)
            on_real, on_fake = self.discriminator(real).float(), self.discriminator(fake.detach()).float()
            loss_d = discriminator_loss(on_real, on_fake)
            optimise(self.discriminator_adam, loss_d, MAX_NORM)
            loss_g = generator_loss(self.discriminator(fake).float())
        optimise(self.generator_adam, loss_g, MAX_NORM)
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


def make_generator(noise: int, width: int, shape: tuple[int, ...]) -> nn.Module:
    """Noise (B, noise) to images (B, C, H, W) in [-1, 1]."""
    channels, height, width_ = shape[0], shape[1] // 4, shape[2] // 4
    return nn.Sequential(
        nn.Linear(noise, 4 * width * height * width_, bias=False),
        nn.Unflatten(1, (4 * width, height, width_)),
        nn.BatchNorm2d(4 * width, track_running_stats=False),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width, track_running_stats=False),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, channels, 4, 2, 1),
        nn.Tanh(),
    ).apply(initialise)


def make_discriminator(width: int, shape: tuple[int, ...]) -> nn.Module:
    """Images (B, C, H, W) to logits (B, 1): is it real?"""
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width, track_running_stats=False),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * width * (shape[1] // 4) * (shape[2] // 4), 1),
    ).apply(initialise)


def initialise(module: nn.Module) -> None:
    """Normal weights of deviation 0.02, as in the paper."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)


@hookimpl
def rlgan_specs() -> Iterable[GeneratorSpec]:
    """DCGAN and its settings for digits."""
    note = "expect digits after half a minute and about 60% of them recognised at the end, in about 2 minutes"
    yield GeneratorSpec(
        "dcgan",
        DCGAN,
        DCGANConfig,
        "convolutional GAN for small images",
        presets=(Preset("digits", "digits", {"steps": 4_000, "eval.every": 1_000}, True, note),),
        tags=("images", "gan"),
    )
