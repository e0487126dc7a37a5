"""The snippets of the documentation run as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from rlgan.registry import Registry

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


def test_tables_of_settings_are_those_of_the_plugins() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    registry = Registry()
    marked = {}
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        if found := tables["MARK"].findall(text):
            assert text == tables["written"](text, registry), f"{page.name} is stale: run python docs/tables.py"
            marked |= {(kind, name): page for _, what, kind, name, _ in found if what == "keys"}
    assert {("agents", name) for name in ("a2c", "ddpg", "dqn", "ppo", "pqn", "reinforce", "sac", "td3")} <= set(marked)


def test_a_stale_table_is_written_anew() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    page = "before\n<!-- presets agents a2c -->\nold\n<!-- end -->\nafter\n"
    text = tables["written"](page, Registry())
    assert text.startswith("before\n<!-- presets agents a2c -->\n\n| key | default | `cartpole` | `breakout` |\n")
    assert "| `steps` | 100000 | 500000 | 10000000 |\n| `copies` | 8 | | 16 |\n" in text
    assert text.endswith("\n\n<!-- end -->\nafter\n") and "old" not in text


def test_rows_of_tables_have_as_many_cells_as_their_heads() -> None:
    wrong = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
            rows = table.splitlines()
            counts = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
            wrong += [f"{page.name}: {row}" for row, count in zip(rows, counts, strict=True) if count != counts[0]]
    assert not wrong


def test_both_languages_show_the_same_blocks() -> None:
    """The same commands and listings, and as many equations, which may hold words."""
    pages = list((ROOT / "docs").rglob("*.zh-CN.md"))
    assert len(pages) > 10
    for page in [ROOT / "README.zh-CN.md", *pages]:
        english = page.with_name(page.name.replace(".zh-CN", ""))
        blocks = [re.findall(r"^```.*?^```", each.read_text(encoding="utf-8"), re.M | re.S) for each in (page, english)]
        shown = [[block for block in each if not block.startswith("```math")] for each in blocks]
        assert shown[0] == shown[1] and len(blocks[0]) == len(blocks[1]), page.name
