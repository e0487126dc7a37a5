"""On a CUDA device: updates replayed as graphs equal eager ones, and a resumed run equals one that was left alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from test_resume import AGENTS, GENERATORS, assert_equal, finish, kill_and_resume, lines, start

import rlgan

LEARNERS = GENERATORS | {
    name: [f"agent={name.split()[0]}", *shlex.split(f"copies=4 eval.episodes=4 {words}")]
    + ["preset=none"] * ("preset=" not in words)
    for name, words in AGENTS.items()
}
SAVED = ("dqn prioritised", "ppo with memory", "sac normalised", "dcgan", "seqgan")
"""Those that are killed and resumed."""
ROWS = 800 // 4


@pytest.mark.gpu
@pytest.mark.parametrize("name", LEARNERS)
def test_replayed_graphs_learn_what_eager_calls_do(tmp_path: Path, name: str) -> None:
    for mode in ("eager", "graph"):
        rlgan.run(*LEARNERS[name], "device=cuda", f"capture={mode}", f"dir={tmp_path / mode}")
    assert_equal(tmp_path / "graph", tmp_path / "eager", ROWS)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SAVED)
def test_a_killed_run_equals_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    words = [*LEARNERS[name], "device=cuda"]
    finish(start("run", *words, f"dir={tmp_path / 'base'}"))
    kill_and_resume(tmp_path / "run", words, lines(tmp_path / "base"), seed=0, kills=1)
    assert_equal(tmp_path / "run", tmp_path / "base", ROWS)
