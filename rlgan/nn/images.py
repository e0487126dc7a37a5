"""What networks that see or make images share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Permute(nn.Module):
    """Dimensions in another order, as a layer.

    From (B, H, W, C) to (B, C, H, W) it gives an image with channels last in memory, and nothing is moved.
    """

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """Give a view."""
        return x.permute(self.order)


class Shift(nn.Module):
    """Move each image (B, C, H, W) by up to ``most`` pixels down or up and right or left; ``fill`` comes in.

    Differentiable, and each image has its own draw: what a discriminator with few real images may be shown of real and
    made ones alike (Zhao et al. 2020, *Differentiable Augmentation*, translation).
    """

    def __init__(self, most: int, fill: float = -1.0) -> None:
        super().__init__()
        self.most, self.fill = most, fill

    def forward(self, images: Tensor) -> Tensor:
        """Cut a window out of each padded image."""
        count, channels, height, width = images.shape
        padded = F.pad(images, (self.most,) * 4, value=self.fill)
        down, right = torch.randint(2 * self.most + 1, (2, count, 1, 1), device=images.device)
        rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
        places = (rows[:, None] + down) * padded.shape[3] + columns + right  # (B, H, W)
        return padded.flatten(2).gather(2, places.view(count, 1, -1).expand(-1, channels, -1)).view(images.shape)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of every ``size`` samples by their own mean and deviation.

    So one pass can hold several batches, as real and made ones, and a sample does not depend on how many come with it.
    (B, C, ...) to the same; B is a multiple of ``size``, or less.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each batch, then scale and move each channel."""
        parts = [F.batch_norm(part, None, None, self.weight, self.bias, training=True) for part in x.split(self.size)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def start_normal(module: nn.Module) -> None:
    """Draw the weights of a layer from N(0, 0.02) as DCGAN does; for `Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
