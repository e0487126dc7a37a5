"""The plain side of `dcgan.py`: DCGAN as a textbook writes it, in a process of its own, which prints one line of JSON.

The networks, losses, shifts, step sizes and average of `generator=dcgan`, in eager float32 with torch.optim.Adam.
`tests/test_generators.py` holds that both sides take the same step.
"""

from __future__ import annotations

import argparse
import copy
import json
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from rlgan_data.digits import DigitsConfig, make
from rlgan_generators.dcgan import DCGANConfig

SIDE = 28


def bn(channels: int) -> nn.Module:
    """Normalise by the batch at hand."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


class Textbook:
    """Two networks, their optimisers, and the average of one."""

    def __init__(self, config: DCGANConfig) -> None:
        self.config, w = config, config.width
        self.generator = nn.Sequential(
            nn.Linear(config.noise, 8 * w, bias=False),
            nn.BatchNorm1d(8 * w, track_running_stats=False),
            nn.ReLU(),
            nn.Linear(8 * w, 2 * w * 7 * 7, bias=False),
            nn.Unflatten(1, (2 * w, 7, 7)),
            bn(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 4, 2, 1, bias=False),
            bn(w),
            nn.ReLU(),
            nn.ConvTranspose2d(w, 1, 4, 2, 1),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, w, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 4, 2, 1, bias=False),
            bn(2 * w),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * w * 7 * 7, 8 * w, bias=False),
            nn.BatchNorm1d(8 * w, track_running_stats=False),
            nn.LeakyReLU(0.2),
            nn.Linear(8 * w, 1),
        )
        for module in (*self.generator.modules(), *self.discriminator.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
        self.averaged = copy.deepcopy(self.generator)
        betas = (config.beta1, 0.999)
        self.generator_adam = torch.optim.Adam(self.generator.parameters(), config.lr, betas)
        self.discriminator_adam = torch.optim.Adam(self.discriminator.parameters(), config.lr, betas)
        self.cross_entropy = nn.BCEWithLogitsLoss()

    def shift(self, images: Tensor) -> Tensor:
        """Move each image by some pixels, as Zhao et al. (2020) write it."""
        most = self.config.shift
        down, right = torch.randint(2 * most + 1, (2, len(images), 1, 1))
        index = torch.meshgrid(*(torch.arange(n) for n in (len(images), SIDE, SIDE)), indexing="ij")
        padded = F.pad(images, (most,) * 4, value=-1.0)
        return padded.permute(0, 2, 3, 1)[index[0], index[1] + down, index[2] + right].permute(0, 3, 1, 2)

    def update(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step of each network."""
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        fake = self.generator(torch.randn(len(real), self.config.noise))
        self.discriminator_adam.zero_grad()
        loss_d = self.cross_entropy(self.discriminator(self.shift(real)), ones)
        loss_d = loss_d + self.cross_entropy(self.discriminator(self.shift(fake.detach())), zeros)
        loss_d.backward()
        self.discriminator_adam.step()
        self.generator_adam.zero_grad()
        loss_g = self.cross_entropy(self.discriminator(self.shift(fake)), ones)
        loss_g.backward()
        self.generator_adam.step()
        with torch.no_grad():
            for average, new in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
                average.mul_(self.config.average).add_(new, alpha=1 - self.config.average)
        return loss_d.detach(), loss_g.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True, help="updates before the slope is taken")
    parser.add_argument("--every", type=int, required=True, help="updates between readings of the clock")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = DCGANConfig()
    gan = Textbook(config)
    images = make(DigitsConfig()).real.float() / 127.5 - 1
    loader = DataLoader(TensorDataset(images), config.batch_size, shuffle=True, drop_last=True)
    marks: list[tuple[int, float]] = []
    done, losses = 0, torch.zeros(2)
    while done < args.updates:
        for (real,) in loader:
            losses += torch.stack(gan.update(real))
            done += 1
            if done % args.every == 0:
                if not bool(losses.isfinite().all()):
                    raise SystemExit(f"a loss is not finite after {done} updates")
                losses.zero_()
                if done >= args.warm:
                    marks.append((done, time.perf_counter()))
            if done == args.updates:
                break
    (first, began), (last, ended) = marks[0], marks[-1]
    print(json.dumps({"images_per_s": config.batch_size * (last - first) / (ended - began)}))


if __name__ == "__main__":
    main()
