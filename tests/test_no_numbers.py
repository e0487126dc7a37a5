"""Updates on torch's device ``meta``, whose tensors hold no numbers: what a GPU would refuse to capture fails here.

There code that reads a number back has none to read, and a tensor that was left on the CPU is on another device.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_gpu import LEARNERS
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlgan import assembly, config
from rlgan.core import capture, seeding
from rlgan.core.source import make_source
from rlgan.core.stream import DataStream, Stream
from rlgan.nn import text
from rlgan.registry import Registry

META = torch.device("meta")
READ = {"q-learning", "sarsa", "mc-control", "pgbleu"}
"""Their tables are judged or counted when they are made, which may be read back."""


def adam(*tensors: Any, **more: Any) -> None:
    """In place of the fused kernel, which ``meta`` lacks."""
    assert all(leaf.device == META for leaf in tree_leaves((tensors, more)) if isinstance(leaf, Tensor))


@pytest.fixture
def numberless(monkeypatch: pytest.MonkeyPatch) -> None:
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device, *a, **k: autocast("cpu", *a, **k))
    monkeypatch.setattr(torch, "_fused_adam_", adam)
    monkeypatch.setattr(capture, "reading_is_free", lambda device: False)
    monkeypatch.setattr(seeding, "state_dict", lambda device: {})
    monkeypatch.setattr(seeding, "load_state_dict", lambda tree, device: None)
    monkeypatch.setattr(assembly, "check_agent", lambda *_: None)  # it looks at the actions, before the run
    monkeypatch.setattr(assembly, "check_generator", lambda *_: None)
    monkeypatch.setitem(text.PIECE, "meta", text.PIECE["cuda"])


@pytest.mark.parametrize("name", sorted(LEARNERS.keys() - READ))
def test_updates_read_no_number_and_stay_on_their_device(numberless: None, name: str) -> None:
    run = config.resolve_one(LEARNERS[name], Registry())
    stream: Any
    if "env" in run.parts:
        env = assembly.build_env(run, run.config.copies, META, 0, 0)
        learner = assembly.build_agent(run, env, META)
        normaliser = assembly.build_normaliser(run, env, META)
        stream = Stream(env, assembly.acting(run, learner, env, normaliser), learner.carry, normaliser)
    else:
        data = assembly.build_data(run)
        learner, stream = assembly.build_generator(run, data, META), DataStream(data, META)
    stream.begin()
    for phase in learner.phases():
        source = make_source(phase, stream)
        made = 0
        while made < 2:
            metrics = source.learn()
            made += metrics is not None
            assert all(value.device == META for value in (metrics or {}).values())
        for _, rare in phase.delayed:
            rare(source.batch)
