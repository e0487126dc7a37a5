"""The snippets of the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S)


def test_python_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    shop = (Path(__file__).with_name("shop.py")).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    found = snippets("python.md")
    assert len(found) == 7 and shop in found
    for snippet in found:
        if snippet == shop:
            Path("shop.py").write_text(snippet)
        else:
            exec(compile(snippet, "docs/python.md", "exec"), names)
    assert names["obs"].shape == (64, 4) and names["reward"].shape == (64,)
    assert isinstance(names["action"], int) and names["actions"].shape == (8,)
    assert 0 <= names["order"] < 6 and Path("runs/shop/env.py").read_text() == shop
    assert names["envs"].num_envs == 8
    assert names["model"].num_timesteps == 200


def test_the_corridor_of_the_plugin_page_is_a_file_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rlgan

    monkeypatch.chdir(tmp_path)
    (corridor,) = (snippet for snippet in snippets("plugins.md") if "class Corridor:" in snippet)
    Path("corridor.py").write_text(corridor)
    env = rlgan.make("./corridor.py", n=2, device="cpu", length=3)
    assert env.reset(seed=0)[0].tolist() == [[0.0, 1.0]] * 2
