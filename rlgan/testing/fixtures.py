"""pytest fixtures for plugins: ``pytest_plugins = ["rlgan.testing.fixtures"]`` in conftest.py."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlgan.discovery import Entry
from rlgan.registry import Registry


@pytest.fixture
def rlgan_registry() -> Callable[..., Registry]:
    """``rlgan_registry("my_package.env", ...)``: a Registry of what these modules yield, and of nothing installed."""

    def make(*modules: str) -> Registry:
        entries = []
        for module in modules:
            specs = importlib.import_module(module).rlgan_specs()
            entries += [Entry(spec.name, spec.kind, "under-test", "0", module) for spec in specs]
        return Registry(entries)

    return make


@pytest.fixture
def rlgan_run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``rlgan_run("agent=dqn", "env=shop", "steps=5k")``: train in a temporary folder; the last evaluation's row.

    Its ``return_mean`` is the mean of the last evaluation, its ``dir`` the run directory.
    """

    def run(*words: str) -> dict[str, Any]:
        from rlgan import config, session
        from rlgan.report import record

        folder = tmp_path / "run"
        code = session.train(config.resolve_one([*words, f"dir={folder}"], Registry()))
        assert code == 0, f"rlgan run {' '.join(words)} ended with {code}"
        rows = record.read(folder / "metrics.jsonl")
        return {**next(row for row in reversed(rows) if row["kind"] == "eval"), "dir": folder}

    return run
