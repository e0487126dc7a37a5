"""Networks that turn observations into features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from gymnasium.spaces import Box, Space
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16"]


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: (B, inputs) to (B, outputs)."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        sizes = (inputs, *hidden, outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Flatten all but the first dimension and apply the layers."""
        x = x.flatten(1).float()
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class NatureCNN(nn.Module):
    """The network of Mnih et al. (2015): three convolutions and 512 units, (B, S, 84, 84) uint8 to (B, outputs).

    The division of pixels by 255 is folded into the first layer's weights, which saves a pass over the images.
    """

    def __init__(self, stack: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.conv1 = nn.Conv2d(stack, 32, 8, 4)
        self.conv2 = nn.Conv2d(32, 64, 4, 2)
        self.conv3 = nn.Conv2d(64, 64, 3, 1)
        self.hidden = nn.Linear(64 * 7 * 7, 512)
        self.out = nn.Linear(512, outputs)
        # float32 convolutions are several times faster with channels last on a CPU; bfloat16 ones gain nothing from it
        self.layout = torch.channels_last if dtype is torch.float32 else torch.contiguous_format
        self.to(memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Run in ``dtype``, return float32."""
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            # whole numbers up to 255 are exact in bfloat16
            x = x.to(self.dtype, memory_format=self.layout)
            x = F.relu(F.conv2d(x, self.conv1.weight * (1 / 255), self.conv1.bias, self.conv1.stride))
            x = F.relu(self.conv2(x))
            x = F.relu(self.conv3(x))
            x = F.relu(self.hidden(x.flatten(1)))
            return self.out(x).float()


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Resolve ``auto``: bfloat16 where the processor multiplies it natively, float32 elsewhere."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def value_network(
    space: Space, outputs: int, hidden: Sequence[int], precision: Precision, device: torch.device
) -> nn.Module:
    """Choose the network by the observation: NatureCNN for stacked 84x84 frames, an MLP for vectors."""
    if isinstance(space, Box) and len(space.shape) == 3:
        if space.shape[1:] != (84, 84):
            raise UsageError(f"images must be (frames, 84, 84) for NatureCNN, this env gives {space.shape}")
        return NatureCNN(space.shape[0], outputs, compute_dtype(precision, device)).to(device)
    if isinstance(space, Box):
        return MLP(int(torch.tensor(space.shape).prod()), hidden, outputs).to(device)
    raise UsageError(f"no network for observations of {space}; write an env whose observations are a Box")
