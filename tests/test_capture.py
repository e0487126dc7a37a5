"""How functions are captured, as far as no GPU is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from rlgan.assembly import pick_capture
from rlgan.core import capture, trainer
from rlgan.core.protocols import Own, Phase
from rlgan.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_mode_follows_the_device() -> None:
    assert [pick_capture("auto", device) for device in (CPU, CUDA)] == ["eager", "graph"]
    assert [pick_capture("compile", device) for device in (CPU, CUDA)] == ["compile", "compile-graph"]
    assert pick_capture("compile-graph", CUDA) == "compile-graph"  # as a checkpoint has it
    for mode in ("graph", "compile-graph"):
        with pytest.raises(UsageError, match="capture=graph needs a CUDA device"):
            pick_capture(mode, CPU)
    assert [capture.uncompiled(mode) for mode in ("eager", "compile", "graph", "compile-graph")] == [
        "eager",
        "eager",
        "graph",
        "graph",
    ]


@pytest.mark.parametrize(("mode", "rare"), [("compile", "eager"), ("compile-graph", "graph"), ("graph", "graph")])
def test_rare_work_is_not_compiled(monkeypatch: pytest.MonkeyPatch, mode: capture.Captured, rare: str) -> None:
    """As often as TD3's delayed updates, and as rarely as SeqGAN's rollouts."""
    modes: list[str] = []
    monkeypatch.setattr(trainer, "capture", lambda call, asked: modes.append(asked))
    phase = Phase("train", Own(), lambda batch: {}, delayed=((2, len), (4_680, len)))
    trainer.Trainer._run_phase(SimpleNamespace(mode=mode, _done=lambda phase: True), phase)  # type: ignore[arg-type]
    assert modes == [mode, rare]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's streams and graphs, of which the end of a capture complains too once something went wrong in it."""

    @contextmanager
    def graph(_: object) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture\nmore")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)


def test_what_cannot_be_captured_is_one_sentence_with_its_own_reason(no_gpu: None) -> None:
    calls = []

    def update(batch: dict[str, torch.Tensor]) -> None:
        calls.append(1)
        if len(calls) > capture.WARM_UP:
            raise RuntimeError("operation not permitted when stream is capturing")

    graphed = capture.capture(update, "graph")
    for _ in range(capture.WARM_UP):
        graphed({})
    with pytest.raises(
        UsageError, match=r"graph: operation not permitted when stream is capturing; write capture=eager"
    ):
        graphed({})
