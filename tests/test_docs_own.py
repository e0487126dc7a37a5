"""The pages for authors: every block is run, in order, in a virtual environment of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fresh_venv import FreshVenv, printed

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(page: str) -> str:
    """One bash script: shell blocks as they are, Python blocks as the files that their first lines name."""
    parts = []
    for language, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if language == "bash":
            parts.append(text)
            continue
        assert language == "python", f"{page} has a block of '{language}' that no test runs"
        name, _, content = text.partition("\n")
        assert re.fullmatch(r"# [\w./]+\.py", name), f"the block of {page} that begins with {name!r} names no file"
        parts.append(f"cat > {name[2:]} <<'END_OF_FILE'\n{content}END_OF_FILE\n")
    return "\n".join(parts)


@pytest.mark.slow
@pytest.mark.timeout(540)
@pytest.mark.parametrize(
    ("page", "last"),
    [
        ("own-env.md", r"^  house +take an offer"),
        ("own-agent.md", r"^return_mean: 0\.[4-9]"),
        ("own-generator.md", r"^recognised: 0\.[3-9]"),
    ],
)
def test_every_block_runs(tmp_path: Path, page: str, last: str) -> None:
    done = FreshVenv(tmp_path / "venv").run(script(page), tmp_path)
    assert done.returncode == 0, printed(done)
    assert re.search(r"\d+ passed", done.stdout) and re.search(last, done.stdout, re.MULTILINE)


@pytest.mark.parametrize("page", ["own-env.md", "own-agent.md", "own-generator.md"])
def test_every_python_block_compiles(page: str) -> None:
    sources = [text for language, text in BLOCK.findall((DOCS / page).read_text()) if language == "python"]
    assert len(sources) == 2
    for source in sources:
        compile(source, page, "exec")
