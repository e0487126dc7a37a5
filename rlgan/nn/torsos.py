"""Networks that turn observations into features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from gymnasium.spaces import Box, Space
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.errors import UsageError
from rlgan.nn.tops import PLAIN, Top

Precision = Literal["auto", "float32", "bfloat16"]
NATURE = (84, 84)
"""Height and width of the images that NatureCNN reads."""
BOARD = 24
"""Most cells a side of a board: beyond, a network without strides is large and slow."""


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent; compiled by way of the logistic function, which takes half the time and is 2e-7 off."""
    return 2 * torch.sigmoid(2 * x) - 1 if torch.compiler.is_compiling() else torch.tanh(x)


class MLP(nn.Module):
    """Fully connected layers with an activation between them: (B, inputs) to (B, outputs).

    Products of hidden layers are taken in ``dtype``; the first and the last layer in float32, so that inputs and
    results keep their digits. ``top`` makes the last hidden layer and the output; with ``norm`` hidden layers are
    normalised (Ba et al. 2016) before the activation.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
        dtype: torch.dtype = torch.float32,
        top: Top = PLAIN,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.activation, self.dtype = activation, dtype
        sizes = (inputs, *hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes[:-1]))
        if hidden:
            self.layers.append(top.hidden(*sizes[-2:]))
        self.layers.append(top.out(sizes[-1], outputs))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in (hidden if norm else ()))

    def start(self, gain: float) -> None:
        """Set all layers orthogonal with gain sqrt(2) but the last, which has ``gain``, and all biases 0."""
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain if layer is self.layers[-1] else math.sqrt(2))  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Flatten all but the first dimension and apply the layers."""
        x = flat(x)
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            if not isinstance(layer, nn.Linear):
                x = layer(x)  # with noise
            elif i and self.dtype is not torch.float32:
                x = F.linear(x.to(self.dtype), layer.weight.to(self.dtype), layer.bias.to(self.dtype))
            else:
                x = F.linear(x, layer.weight, layer.bias)
            x = self.activation(self.norms[i](x) if self.norms else x)
        return last(x.float())


def flat(x: Tensor) -> Tensor:
    """Observations (B, ...) as vectors of floats; those of shape () are vectors of one."""
    return (x.flatten(1) if x.dim() > 1 else x[:, None]).float()


def side_by_side(layers: list[Tensor]) -> nn.Parameter:
    """One parameter (E, ...) for the same layer of E networks, whose batched product is one kernel."""
    return nn.Parameter(torch.stack(layers).detach().contiguous())


class NatureCNN(nn.Module):
    """The network of Mnih et al. (2015): three convolutions and 512 units, (B, S, 84, 84) to (B, outputs).

    ``scale`` brings what comes in to about -1 to 1, pixels by 1/255. It is folded into the first layer's weights, which
    saves a pass over the images. ``top`` and ``norm`` as in `MLP`; a convolution's channels are normalised together
    over the whole image.
    """

    features = 512
    """Width of the hidden layer."""

    def __init__(
        self,
        stack: int,
        outputs: int,
        dtype: torch.dtype,
        top: Top = PLAIN,
        norm: bool = False,
        scale: float = 1 / 255,
    ) -> None:
        super().__init__()
        self.dtype, self.scale = dtype, scale
        self.conv1 = nn.Conv2d(stack, 32, 8, 4)
        self.conv2 = nn.Conv2d(32, 64, 4, 2)
        self.conv3 = nn.Conv2d(64, 64, 3, 1)
        self.hidden = top.hidden(64 * 7 * 7, self.features)
        self.out = top.out(self.features, outputs)
        self.norms = _norms((32, 64, 64), self.features) if norm else None
        # float32 convolutions are several times faster with channels last on a CPU; bfloat16 ones gain nothing from it
        self.layout = torch.channels_last if dtype is torch.float32 else torch.contiguous_format
        self.to(memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Run in ``dtype``, return float32."""
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            # whole numbers up to 255 are exact in bfloat16
            x = x.to(self.dtype, memory_format=self.layout)
            x = self._relu(0, F.conv2d(x, self.conv1.weight * self.scale, self.conv1.bias, self.conv1.stride))
            x = self._relu(1, self.conv2(x))
            x = self._relu(2, self.conv3(x))
            x = self._relu(3, self.hidden(x.flatten(1)))
            return self.out(x).float()

    def _relu(self, i: int, x: Tensor) -> Tensor:
        return F.relu(self.norms[i](x) if self.norms else x)


class PlanesCNN(nn.Module):
    """A network for boards of few cells: one 3 x 3 convolution of 16 channels and 128 units.

    The size that Young & Tian (2019), *MinAtar*, use on 10 x 10 cells. (B, C, H, W) to (B, outputs), in float32.

    Args:
        shape: (C, H, W) of an observation, H and W at least 3.
        outputs: How many numbers come out.
        scale: Factor that brings observations to about 1; folded into the first layer's weights.
        top: As in `MLP`.
        norm: As in `NatureCNN`.
    """

    features = 128
    """Width of the hidden layer."""

    def __init__(
        self, shape: Sequence[int], outputs: int, scale: float = 1.0, top: Top = PLAIN, norm: bool = False
    ) -> None:
        super().__init__()
        planes, height, width = shape
        self.scale = scale
        self.conv = nn.Conv2d(planes, 16, 3)
        self.hidden = top.hidden(16 * (height - 2) * (width - 2), self.features)
        self.out = top.out(self.features, outputs)
        self.norms = _norms((16,), self.features) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve every 3 x 3 cells, then mix the whole board."""
        x = F.conv2d(x.float(), self.conv.weight * self.scale, self.conv.bias)
        x = self.hidden(F.relu(self.norms[0](x) if self.norms else x).flatten(1))
        return self.out(F.relu(self.norms[1](x) if self.norms else x))


def _norms(channels: Sequence[int], width: int) -> nn.ModuleList:
    """Layer normalisation after each convolution, scaled and shifted by channel, and after the hidden layer."""
    return nn.ModuleList([*(nn.GroupNorm(1, count) for count in channels), nn.LayerNorm(width)])


def start_he(net: nn.Module) -> None:
    """Draw all weights anew, normal with a variance of 2 over a unit's inputs (He et al. 2015), and set biases 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Resolve ``auto``: bfloat16 where the processor multiplies it faster, float32 elsewhere.

    Those are GPUs, processors with AMX tiles and AMD's with AVX512-BF16. Intel's AVX512-BF16 alone has half the rate of
    float32 (85 and 160 GFLOP/s a core), and a NatureCNN update takes 1.5 times as long in it.
    """
    if precision == "auto":
        if device.type == "cuda":
            faster = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            faster = torch.ops.mkldnn._is_mkldnn_bf16_supported() and (
                torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and _made_by_amd())
            )
        return torch.bfloat16 if faster else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _made_by_amd() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "AuthenticAMD" in info.read_text(encoding="utf-8")


def value_network(
    space: Space,
    outputs: int,
    hidden: Sequence[int],
    precision: Precision,
    device: torch.device,
    top: Top = PLAIN,
    norm: bool = False,
) -> nn.Module:
    """Choose by the observation: NatureCNN for stacked 84x84 frames, PlanesCNN for boards, an MLP for vectors.

    ``top`` and ``norm`` as there.

    Raises:
        UsageError: Images of other sizes, and spaces that are no Box.
    """
    if isinstance(space, Box) and len(space.shape) == 3:
        return image_network(space, outputs, precision, device, top, norm)
    if isinstance(space, Box):
        return MLP(math.prod(space.shape), hidden, outputs, top=top, norm=norm).to(device)
    raise UsageError(f"no network for observations of {space}; write an env whose observations are a Box")


def image_network(
    space: Box, outputs: int, precision: Precision, device: torch.device, top: Top = PLAIN, norm: bool = False
) -> NatureCNN | PlanesCNN:
    """NatureCNN for stacked 84x84 frames, PlanesCNN for boards.

    Raises:
        UsageError: images of other sizes.
    """
    if reason := unfit_image(space):
        raise UsageError(reason)
    bound = max(abs(float(space.low.min())), abs(float(space.high.max())))
    scale = 1 / bound if 0 < bound < math.inf else 1.0
    if space.shape[1:] == NATURE:
        return NatureCNN(space.shape[0], outputs, compute_dtype(precision, device), top, norm, scale).to(device)
    return PlanesCNN(space.shape, outputs, scale, top, norm).to(device)


def unfit_image(space: Space) -> str | None:
    """Why no network reads a Box with three axes, or None."""
    sides = space.shape[1:] if isinstance(space, Box) and len(space.shape) == 3 else NATURE
    if sides == NATURE or all(3 <= side <= BOARD for side in sides):
        return None
    return (
        f"images must be (frames, 84, 84) for NatureCNN or (planes, H, W) with 3 to {BOARD} cells a side for "
        f"PlanesCNN, this env gives {space.shape}: resize them in the env"
    )
