"""README.md and its Chinese version say the same: equal commands, code and links, section by section."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def sections(text: str) -> list[str]:
    return BLOCK.sub("", text).split("\n## ")


def test_code_blocks_are_equal() -> None:
    assert BLOCK.findall(ENGLISH) == BLOCK.findall(CHINESE)
    assert len(BLOCK.findall(ENGLISH)) >= 4


@pytest.mark.parametrize("pattern", [r"`[^`\n]+`", r"\]\(([^)]+)\)", r"^\|", r"^(?:- |\d\. )"])
def test_each_section_has_the_same_code_links_rows_and_items(pattern: str) -> None:
    pairs = list(zip(sections(ENGLISH), sections(CHINESE), strict=True))
    for english, chinese in pairs:
        # a page that is there in both languages is linked in the reader's own
        both = (text.replace(".zh-CN.md", ".md") for text in (english, chinese))
        found = [Counter(re.findall(pattern, text, re.MULTILINE)) for text in both]
        assert found[0] == found[1], english.partition("\n")[0]


def test_each_links_to_the_other() -> None:
    assert "](README.zh-CN.md)" in ENGLISH.partition("\n## ")[0]
    assert "](README.md)" in CHINESE.partition("\n## ")[0]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", ENGLISH + CHINESE):
        assert target.startswith("https://") or (ROOT / target).exists(), target
