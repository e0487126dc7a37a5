"""Write what plugins say of themselves into the pages, between `<!-- keys agents NAME -->` and `<!-- end -->`.

`presets` in place of `keys` lists the tuned values; a cell is empty where a preset keeps the default.

    python docs/tables.py        writes into every page that has such a mark
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rlgan import schema
from rlgan.registry import Registry
from rlgan.runconfig import RunConfig
from rlgan.schema import Key
from rlgan.specs import AgentSpec, GeneratorSpec, Preset, Spec

DOCS = Path(__file__).parent
MARK = re.compile(r"(<!-- (keys|presets) (\w+) ([\w.-]+) -->\n).*?(<!-- end -->)", re.S)


def keys_of(spec: Spec) -> dict[str, Key]:
    """The settings of a plugin, by their names on the command line."""
    return schema.keys(spec.config, spec.kind.removesuffix("s") + ".")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells as a table of Markdown."""
    lines = (f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))
    return "".join(lines).replace("|  |", "| |").replace("|  |", "| |")


def keys(spec: Spec) -> str:
    """A row for each setting."""
    rows = [(f"`{key.name}`", f"`{schema.show(key.default)}`", key.type, key.doc) for key in keys_of(spec).values()]
    return table(("key", "default", "takes", "meaning"), rows)


def presets(spec: Spec) -> str:
    """A column for each preset, a row for each key that one of them sets."""
    assert isinstance(spec, AgentSpec | GeneratorSpec)
    known = schema.keys(RunConfig) | keys_of(spec)
    used = {name for preset in spec.presets for name in preset.values}
    names = [name for name in known if name in used] + sorted(used - known.keys())
    rows = [[f"`{name}`", *cells(spec.presets, name, known.get(name))] for name in names]
    marks = [f"`{preset.env}`{', auto' if preset.default else ''}" for preset in spec.presets]
    return table(
        ["key", "default", *(f"`{preset.name}`" for preset in spec.presets)],
        [["for", "", *marks], *rows],
    )


def cells(found: Sequence[Preset], name: str, key: Key | None) -> list[str]:
    """The default of a key and its value in each preset; that of an env is not known here."""
    default = schema.show(key.default) if key else ""
    values = [schema.show(preset.values[name]) if name in preset.values else "" for preset in found]
    return [default, *("" if value == default else value for value in values)]


def written(text: str, registry: Registry) -> str:
    """A page with its tables as they should be."""

    def fill(mark: re.Match[str]) -> str:
        spec = registry.get(mark[3], mark[4])
        return f"{mark[1]}\n{keys(spec) if mark[2] == 'keys' else presets(spec)}\n{mark[5]}"

    return MARK.sub(fill, text)


def main() -> None:
    """Write every page anew."""
    registry = Registry()
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        if (new := written(old, registry)) != old:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(DOCS))


if __name__ == "__main__":
    main()
