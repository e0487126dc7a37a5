"""What is said of an evaluation: of games by their returns, of images by a small classifier.

The classifier's accuracy on held-out samples belongs to every figure. Other data sets bring judges of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlgan.core import seeding
from rlgan.core.protocols import DataSet, Generator
from rlgan.datasets import Judge
from rlgan.errors import UsageError
from rlgan.nn.optimise import Adam, optimise
from rlgan.specs import Score, normalised

HELD_OUT = 5
"""One of this many real samples is kept from training."""
EPOCHS, BATCH_SIZE, LEARNING_RATE = 12, 64, 1e-3
CONFIDENT = 0.9
"""A sample is recognised where one class has more than this probability."""
PRESENT = 0.01
"""A class is present where this share of all samples is recognised as it."""


SEED = 3
"""Of the classifier, which is the same in every run."""


@dataclass(frozen=True)
class Classifier:
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


@dataclass(frozen=True)
class Games:
    """What is said of evaluation games."""

    scores: tuple[Score, ...]
    """Known returns in the env."""
    drawn = "return_mean"

    def rank(self, row: dict[str, Any]) -> float:
        """The mean return."""
        return float(row["return_mean"])

    def sentence(self, row: dict[str, Any]) -> str:
        """Say what was found."""
        scale = normalised(self.scores, row["return_mean"])
        games = f"{row['episodes']} game{'s' * (row['episodes'] != 1)}"
        mean = row["return_mean"]
        shown = f"{mean:,.1f}" if abs(mean) >= 100 else f"{mean:.4g}"
        return f"{shown} mean return over {games}" + (
            f" (normalised {round(scale, 2) + 0.0:.2f}: 0 is random play, 1 the reference)" if scale is not None else ""
        )


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


def judge_of(data: DataSet, device: torch.device) -> Judge:
    """The judge that a data set brings, or else one of images by their labels.

    Raises:
        UsageError: it has neither.
    """
    if data.judge is not None:
        return data.judge(device)
    if data.labels is None:
        raise UsageError("this data set has neither a judge nor labels, so nothing can be said of what is made from it")
    return ImageJudge(data, device)


@dataclass(frozen=True)
class ImageJudge:
    """Satisfies Judge by a classifier, which is trained when it is first needed."""

    data: DataSet
    device: torch.device
    drawn = "recognised"
    scores: tuple[Score, ...] = ()

    def row(self, generator: Generator, n: int) -> dict[str, Any]:
        """Say how many of n samples are recognised."""
        return _trained(self.data, self.device).judge(generator.sample(n))

    def rank(self, row: dict[str, Any]) -> float:
        """The share that is recognised."""
        return float(row["recognised"])

    def sentence(self, row: dict[str, Any]) -> str:
        """Say what was found."""
        return (
            f"{row['recognised']:.1%} of {row['samples']} samples recognised (real ones "
            f"{row['recognised_real']:.1%}), {row['classes']} of {row['classes_of']} classes; "
            f"the judge's accuracy is {row['judge_accuracy']:.1%}"
        )


@lru_cache(maxsize=1)
def _trained(data: DataSet, device: torch.device) -> Classifier:
    with seeding.fork(seeding.derive(0, SEED), device):
        return _train(data, device)


def _train(data: DataSet, device: torch.device) -> Classifier:
    assert data.labels is not None
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
    return Classifier(net, classes, accuracy, float((probability > CONFIDENT).double().mean()))


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
