"""The shape of the code: layers, cycles, sizes, and what may be named where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / "rlgan", *sorted(p for top in ("agents", "envs", "plugins") for p in (ROOT / top).glob("rlgan_*"))]
FILES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]


def name_of(path: Path) -> str:
    package = next(package for package in PACKAGES if path.is_relative_to(package))
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, modules: set[str]) -> set[str]:
    """Give the modules of ours that a file imports, also within functions and for type checkers."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else str(node.module))
    return found & modules


def graph() -> dict[str, set[str]]:
    modules = {name_of(path) for path in FILES}
    return {name_of(path): imports(ast.parse(path.read_text(encoding="utf-8")), modules) for path in FILES}


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module, and modules that import themselves (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            component = [stack.pop()]
            while component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1 or node in edges[node]:
                found.append(sorted(component))

    for node in sorted(edges):
        if node not in order:
            visit(node)
    return found


def test_the_cycle_finder_finds_cycles() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "d"}, "e": {"d"}}) == [["a", "b", "c"], ["d"]]
    assert cycles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


def test_no_import_cycles() -> None:
    assert cycles(graph()) == []


def test_import_contracts() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_nobody_imports_from_their_own_init() -> None:
    inits = {name_of(path) for path in FILES if path.name == "__init__.py"}
    guilty = [(name, init) for name, used in graph().items() for init in used & inits if name.startswith(f"{init}.")]
    assert guilty == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_only_capture_names_cuda_graphs() -> None:
    named = [name_of(path) for path in FILES if re.search(r"CUDAGraph|cuda\.graph", path.read_text(encoding="utf-8"))]
    assert named == ["rlgan.core.capture"]


def test_no_pickle_in_any_load_path() -> None:
    modules = r"^\s*(import|from)\s+(pickle|cloudpickle|dill|marshal|shelve)\b"
    banned = re.compile(rf"{modules}|torch\.(load|save)\(|allow_pickle=True", re.MULTILINE)
    assert [name_of(path) for path in FILES if banned.search(path.read_text(encoding="utf-8"))] == []


def test_the_core_stays_small() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert sum(n for path, n in lines.items() if path.parent == ROOT / "rlgan" / "core") < 2_000
    assert sorted(lines.values())[len(lines) // 2] <= 120


@pytest.mark.parametrize("path", sorted((ROOT / "agents").rglob("*.py")), ids=name_of)
def test_an_algorithm_fits_in_250_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250
