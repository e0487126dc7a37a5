"""The conformance kit names each fault that a generator or a data set can have, and finds none where there is none."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlgan import DataSpec, GeneratorSpec, NoConfig
from rlgan.core.protocols import DataSet, Phase, Replay, Samples
from rlgan.errors import ConformanceError, UsageError
from rlgan.nn.optimise import Adam, optimise
from rlgan.registry import Registry
from rlgan.testing import DataConformance, GeneratorConformance, check_data, check_generator


@dataclass(frozen=True)
class PlaneConfig:
    """Settings."""

    batch_size: int = 16
    """Real samples per update."""


class Plane:
    """Learns the mean and the spread of images or points. Correct; the faults are in its subclasses."""

    def __init__(self, data: DataSet, config: PlaneConfig, device: torch.device) -> None:
        self.config, self.device, self.shape, self.dtype = config, device, data.real.shape[1:], data.real.dtype
        self.scale = 255.0 if data.real.dtype is torch.uint8 else 1.0
        self.middle = nn.Parameter(torch.full(self.shape, 0.5, device=device))
        self.spread = nn.Parameter(torch.full(self.shape, 0.1, device=device))
        self.optimiser = Adam([self.middle, self.spread], 1e-2)
        self.updated = torch.zeros((), dtype=torch.int64, device=device)

    def phases(self):
        return [Phase("train", Samples(self.config.batch_size), self.update)]

    def update(self, batch):
        real = batch["real"] / self.scale
        made = self.middle + self.spread * torch.randn(real.shape, device=self.device)
        loss = (made.mean(0) - real.mean(0)).square().mean() + (made.var(0) - real.var(0)).square().mean()
        self.updated.add_(1)
        return {"loss": loss.detach(), "norm": optimise(self.optimiser, loss, 10.0)}

    def noise(self, n):
        return torch.randn(n, *self.shape, device=self.device)

    def make(self, noise):
        return self.middle + self.spread * noise

    @torch.no_grad()
    def sample(self, n):
        made = self.make(self.noise(n)).clamp(0, 1) * self.scale
        return made.round().to(self.dtype) if self.dtype is torch.uint8 else made

    def state_dict(self):
        parameters = {"middle": self.middle, "spread": self.spread}
        return {**parameters, "updated": self.updated, "optimiser": self.optimiser.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, tree):
        for name in ("middle", "spread", "updated"):
            getattr(self, name).copy_(tree[name])
        self.optimiser.load_state_dict(tree["optimiser"])


class FloatSamples(Plane):
    def sample(self, n):
        return super().sample(n).float()


class NoChannel(Plane):
    def sample(self, n):
        return super().sample(n)[:, 0]


class OneTooMany(Plane):
    def sample(self, n):
        return super().sample(n + (n > 1))


class ForgetsTheScale(Plane):
    def sample(self, n):
        return (super().sample(n) / self.scale).to(self.dtype)


class NanSamples(Plane):
    def sample(self, n):
        return super().sample(n) * torch.nan


class Graphed(Plane):
    def sample(self, n):
        return self.make(self.noise(n))


class BatchStatistics(Plane):
    def make(self, noise):
        return super().make((noise - noise.mean(0)) / noise.std(0, correction=0).clamp_min(0.1))


class FixedNoise(Plane):
    def noise(self, n):
        return torch.randn(n, *self.shape, generator=torch.Generator().manual_seed(0))


class OwnGenerator(Plane):
    def __init__(self, data, config: PlaneConfig, device):
        super().__init__(data, config, device)
        self.rng = torch.Generator().manual_seed(0)

    def noise(self, n):
        return torch.randn(n, *self.shape, generator=self.rng)


class PythonDraws(Plane):
    def noise(self, n):
        return super().noise(n) * random.random()


class NumpyUpdate(Plane):
    def update(self, batch):
        return super().update({"real": batch["real"] * np.random.rand()})


class CountsSamples(Plane):
    asked = 0

    def sample(self, n):
        self.asked += n
        return super().sample(n)


class RealInPlace(Plane):
    def update(self, batch):
        batch["real"].sub_(1)
        return super().update(batch)


class ItemInUpdate(Plane):
    def update(self, batch):
        out = super().update(batch)
        if out["loss"] > 1:
            out["norm"] = out["norm"] * 0
        return out


class NoStep(Plane):
    def update(self, batch):
        self.updated.add_(1)
        return {"loss": self.middle.mean().detach()}


class NanMetric(Plane):
    def update(self, batch):
        return {**super().update(batch), "score": torch.tensor(torch.nan)}


class GraphedMetric(Plane):
    def update(self, batch):
        return {**super().update(batch), "middle": self.middle.mean()}


class WrongSource(Plane):
    def phases(self):
        return [Phase("play", Replay(capacity=100, batch_size=16), self.update)]


class TooLarge(Plane):
    def phases(self):
        return [Phase("train", Samples(5_000), self.update)]


class ForgetsSpread(Plane):
    def state_dict(self):
        return {name: value for name, value in super().state_dict().items() if name != "spread"}

    def load_state_dict(self, tree):
        super().load_state_dict({**tree, "spread": self.spread})


class ForgetsMoments(Plane):
    def load_state_dict(self, tree):
        super().load_state_dict({**tree, "optimiser": {**tree["optimiser"], "second": self.optimiser.second}})


class Replaces(Plane):
    def load_state_dict(self, tree):
        super().load_state_dict(tree)
        self.middle = nn.Parameter(tree["middle"].clone())


class DrawsInUpdateItself(Plane):
    """Its updates are not those of another instance on the same random numbers."""

    def __init__(self, data, config: PlaneConfig, device):
        super().__init__(data, config, device)
        self.rng = torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))

    def update(self, batch):
        out = super().update(batch)
        return {**out, "noise": torch.rand((), generator=self.rng)}


FAULTS = {
    FloatSamples: r"returned float32 of \(1, 1, 28, 28\) on cpu from sample\(1\); it must be uint8 of \(1, 1, 28, 28\)",
    NoChannel: r"returned uint8 of \(1, 28, 28\) on cpu from sample\(1\); it must be uint8 of \(1, 1, 28, 28\)",
    OneTooMany: r"returned uint8 of \(9, 1, 28, 28\) on cpu from sample\(8\); it must be uint8 of \(8, 1, 28, 28\)",
    ForgetsTheScale: r"gives samples from 0 to [01], where real ones lie between 0 and 255: bring them to the scale of",
    BatchStatistics: r"makes other samples when more are asked for: number 0 of 64 is not that of 128 on the same ran",
    FixedNoise: r"gives the same samples whatever torch's default generator is seeded with: draw the noise from it",
    OwnGenerator: r"gives another value of the samples for the same random numbers: it draws from a generator of its",
    PythonDraws: r"draws from Python's random module in sample: use torch's default generator alone",
    NumpyUpdate: r"draws from NumPy's global generator in the update of phase 'train': use torch's default",
    CountsSamples: r"changes its asked in sample: it draws from a generator of its own, or keeps something from one c",
    RealInPlace: r"changes the batch's 'real' in place in the update of phase 'train': return new tensors instead",
    ItemInUpdate: r"reads tensors back in the update of phase 'train', .*: `if tensor` at test_testing_generator.py:",
    NoStep: r"learns nothing: the update of phase 'train' changes no parameter",
    NanMetric: r"has a metric 'score' that is not finite after the update of phase 'train'",
    GraphedMetric: r"returned the metric 'middle' with its graph: detach it",
    WrongSource: r"cannot be trained: phase 'play' wants Replay, which a run with data= does not have",
    TooLarge: r"cannot be trained: a batch of 5000 is more than the 4096 samples of the data set",
    ForgetsSpread: r"forgets spread in state_dict or load_state_dict: after 2 updates it is not the same in a fresh g",
    ForgetsMoments: r"forgets optimiser\.second\.0 in state_dict or load_state_dict",
    Replaces: r"replaces middle in load_state_dict: copy into the live tensor, which the optimiser holds",
    DrawsInUpdateItself: r"goes on differently after its saved state was loaded into a fresh generator: the update's",
}


@pytest.mark.parametrize("generator", FAULTS, ids=lambda generator: generator.__name__)
def test_each_planted_fault_is_named(generator: type[Plane]) -> None:
    with pytest.raises(ConformanceError, match=rf"^generator {generator.__name__} {FAULTS[generator]}") as caught:
        check_generator(generator)
    assert "\n" not in str(caught.value)


POINTS = DataSet(torch.rand(512, 2, generator=torch.Generator().manual_seed(0)))
FAULTS_WITH_FLOATS = {
    NanSamples: r"gives samples that are not finite$",
    Graphed: r"returned samples with their graph: sample under torch\.no_grad\(\)$",
}


@pytest.mark.parametrize("generator", FAULTS_WITH_FLOATS, ids=lambda generator: generator.__name__)
def test_each_planted_fault_with_points_is_named(generator: type[Plane]) -> None:
    with pytest.raises(ConformanceError, match=rf"^generator {generator.__name__} {FAULTS_WITH_FLOATS[generator]}"):
        check_generator(generator, data=POINTS)


def test_points_of_another_scale_are_named() -> None:
    class Wide(Plane):
        def sample(self, n):
            return super().sample(n) * 255

    with pytest.raises(ConformanceError, match=r"^generator Wide gives samples from .* to \d\d.*between .* and "):
        check_generator(Wide, data=POINTS)


class TestPlane(GeneratorConformance):
    generator = Plane


class TestPlaneOfPoints(GeneratorConformance):
    generator = Plane
    config = PlaneConfig(8)
    data = POINTS


def test_what_a_generator_refuses_is_not_tried() -> None:
    class Coloured(Plane):
        def __init__(self, data, config: PlaneConfig, device):
            if data.real.shape[1:] != (3, 32, 32):
                raise UsageError(f"coloured needs (3, 32, 32), this data set has {tuple(data.real.shape[1:])}")
            super().__init__(data, config, device)

    check_generator(Coloured)
    spec = GeneratorSpec("coloured", Coloured, PlaneConfig, "coloured images alone")
    with pytest.raises(UsageError) as error:
        check_generator(spec, data=POINTS)
    assert str(error.value) == (
        "generator coloured refuses all that it is tried with (coloured needs (3, 32, 32), this data set has (2,)): "
        "give data=DATASET."
    )


def test_what_its_factory_raises_is_named() -> None:
    def make(data, config: PlaneConfig, device):
        raise KeyError("width")

    with pytest.raises(ConformanceError, match=r"^generator make raised KeyError in the check 'samples': 'width'$"):
        check_generator(make)


def good(config: NoConfig) -> DataSet:
    return DataSet(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.arange(5))


IMAGES = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
HOLED = torch.zeros(5, 2)
HOLED[3, 1] = torch.nan
DATA_FAULTS: list[tuple[Any, str]] = [
    (lambda: IMAGES, r"gives uint8 of \(5, 1, 4, 4\) on cpu; it must be a DataSet"),
    (lambda: DataSet(IMAGES.numpy()), r"has real=ndarray; it must be a tensor \(M, \.\.\.\) on the CPU with M of at"),
    (lambda: DataSet(IMAGES[:0]), r"has real=uint8 of \(0, 1, 4, 4\) on cpu; it must be a tensor"),
    (lambda: DataSet(IMAGES.float()), r"has images as float32 of \(5, 1, 4, 4\) on cpu; they must be uint8 of \(M, C"),
    (lambda: DataSet(HOLED), r"has a sample that is not finite: number 3 of 5"),
    (lambda: DataSet(IMAGES, torch.arange(4)), r"has labels as int64 of \(4,\) on cpu; they must be int64 of \(5,\)"),
    (lambda: DataSet(IMAGES, torch.zeros(5)), r"has labels as float32 of \(5,\) on cpu; they must be int64 of \(5,\)"),
    (lambda: DataSet(IMAGES, torch.arange(5) - 1), r"has the label -1; labels are numbered from 0"),
    (lambda: DataSet(torch.rand(5, 2)), r"draws from torch's default generator in its factory: seed a generator of"),
    (lambda: DataSet(torch.full((5, 2), next(COUNTER))), r"gives another value of real in another load: a resumed"),
    (lambda: np.load("gone.npz"), r"raised FileNotFoundError in the check 'real samples': .*gone.npz"),
]
COUNTER = iter(float(i) for i in range(100))


@pytest.mark.parametrize(("make", "sentence"), DATA_FAULTS)
def test_each_planted_fault_of_data_is_named(make: Any, sentence: str) -> None:
    with pytest.raises(ConformanceError, match=rf"^data set holed {sentence}"):
        check_data(DataSpec("holed", lambda config: make(), NoConfig, "a faulty set"))


class TestGood(DataConformance):
    data = good


@pytest.mark.parametrize("name", [e.name for e in Registry().names("generators") if e.distribution == "rlgan"])
def test_every_built_in_generator_passes(name: str) -> None:
    check_generator(name)


@pytest.mark.parametrize("name", [e.name for e in Registry().names("data") if e.distribution == "rlgan"])
def test_every_built_in_data_set_passes(name: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one two\nthree\n")
    check_data(f"lines:{tmp_path / 'lines.txt'}" if name == "lines" else name)
