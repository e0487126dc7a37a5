"""What is said of an evaluation: of games by their returns, of a generator's samples by a small classifier.

The classifier's accuracy on held-out samples belongs to every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core.protocols import DataSet
from rlgan.errors import UsageError
from rlgan.nn.optimise import Adam, optimise

HELD_OUT = 5
"""One of this many real samples is kept from training."""
EPOCHS, BATCH_SIZE, LEARNING_RATE = 12, 64, 1e-3
CONFIDENT = 0.9
"""A sample is recognised where one class has more than this probability."""
PRESENT = 0.01
"""A class is present where this share of all samples is recognised as it."""


@dataclass(frozen=True)
class Judge:
    """A trained classifier and how good it is."""

    net: nn.Module
    classes: int
    accuracy: float
    """On held-out real samples."""
    recognised_real: float
    """Share of the held-out real samples that it recognises: what a perfect generator would reach."""

    def judge(self, samples: Tensor) -> dict[str, Any]:
        """Say which share of samples (n, C, H, W) uint8 is recognised, and how many classes are present."""
        confidence, label = _probabilities(self.net, samples).max(1)
        sure = confidence > CONFIDENT
        shares = label[sure].bincount(minlength=self.classes) / len(samples)
        return {
            "recognised": float(sure.double().mean()),
            "classes": int((shares >= PRESENT).sum()),
            "classes_of": self.classes,
            "class_shares": [round(share, 4) for share in shares.tolist()],
            "recognised_real": self.recognised_real,
            "judge_accuracy": self.accuracy,
            "samples": len(samples),
        }


def summary(returns: list[float], lengths: list[int]) -> dict[str, Any]:
    """Mean, standard deviation, interquartile mean and lengths of evaluation games."""
    values = torch.tensor(returns, dtype=torch.float64)
    ordered, cut = values.sort().values, len(values) // 4
    return {
        "return_mean": float(values.mean()),
        "return_std": float(values.std(correction=0)),
        "return_iqm": float(ordered[cut : len(ordered) - cut].mean()),
        "length_mean": sum(lengths) / len(lengths),
        "episodes": len(returns),
        "returns": returns,
    }


def sentence(row: dict[str, Any]) -> str:
    """Say what a judge found."""
    return (
        f"{row['recognised']:.1%} of {row['samples']} samples recognised (real ones {row['recognised_real']:.1%}), "
        f"{row['classes']} of {row['classes_of']} classes; the judge's accuracy is {row['judge_accuracy']:.1%}"
    )


@lru_cache(maxsize=1)
def trained(data: DataSet, device: torch.device) -> Judge:
    """Train the judge of a labelled set of images, from the device's default random numbers.

    Raises:
        UsageError: the data set has no labels.
    """
    if data.labels is None:
        raise UsageError("this data set has no labels, so no classifier can judge what is made from it")
    order = torch.rand(len(data.real)).argsort()
    held, rest = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    real, labels = data.real.to(device), data.labels.to(device)
    classes = int(labels.max()) + 1
    net = _network(real.shape[1:], classes).to(device)
    optimiser = Adam(net.parameters(), LEARNING_RATE)
    for _ in range(EPOCHS):
        shuffled = rest[torch.rand(len(rest)).argsort()].to(device)
        for index in shuffled.split(BATCH_SIZE):
            optimise(optimiser, F.cross_entropy(net(_scaled(real[index])), labels[index]), 10.0)
    net.eval()
    probability, label = _probabilities(net, real[held]).max(1)
    accuracy = float((label == labels[held]).double().mean())
    return Judge(net, classes, accuracy, float((probability > CONFIDENT).double().mean()))


def _network(shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


@torch.no_grad()
def _probabilities(net: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([net(_scaled(part)).softmax(1) for part in images.split(500)])
