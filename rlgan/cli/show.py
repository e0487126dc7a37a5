"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlgan.discovery import KINDS, Entry

if TYPE_CHECKING:
    from rlgan.config import Draft, Run
    from rlgan.registry import Diagnosis
    from rlgan.testing.kit import Result

Identity = tuple[str, str, str]
Diagnoses = Mapping[Identity, "Diagnosis"]


def identity(entry: Entry) -> Identity:
    """What tells entries apart: two distributions may offer one name."""
    return entry.kind, entry.name, entry.distribution


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the last one is free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def lines(values: Mapping[str, Any]) -> str:
    """One ``key: value`` line for each number or text; lists are for JSON."""
    plain = {key: value for key, value in values.items() if not isinstance(value, (list, dict))}
    return "\n".join(
        f"{key}: {value:.6g}" if isinstance(value, float) else f"{key}: {value}" for key, value in plain.items()
    )


def evaluation(values: Mapping[str, Any]) -> str:
    """The figures of one evaluation, and below them those of what is no learner, where the judge names some."""
    beside = values.get("baselines")
    return f"{lines(values)}\n\n{rows(beside)}" if beside else lines(values)


def rows(found: Sequence[Mapping[str, Any]]) -> str:
    """A table with the numbers and texts of each row."""
    heads = [key for key, value in found[0].items() if not isinstance(value, (list, dict))]
    return table([heads, *([_cell(row[key]) for key in heads] for row in found)])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def names(entries: Sequence[Entry], specs: Diagnoses) -> str:
    """Names by kind; with specs also their summaries."""
    parts = []
    for kind in KINDS:
        rows = [[f"  {entry.name}", *_about(entry, specs)] for entry in entries if entry.kind == kind]
        if rows:
            parts.append(f"{kind}\n{table(rows)}")
    return "\n".join(parts) or "nothing is installed"


def _about(entry: Entry, specs: Diagnoses) -> list[str]:
    found = specs.get(identity(entry))
    entry = found.entry if found else entry
    summary = found.spec.summary if found and found.spec else ""
    bad = "" if entry.status in ("installed", "ok") else f"({entry.status}: {entry.reason})"
    return [" ".join(part for part in (summary, bad) if part)]


def names_json(entries: Sequence[Entry], specs: Diagnoses) -> str:
    """The same as one JSON object: kind to a list of entries."""
    tree: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        found = specs.get(identity(entry))
        row = dataclasses.asdict(found.entry if found else entry)
        if found and found.spec:
            row |= {"summary": found.spec.summary, "tags": list(found.spec.tags), "extra": found.spec.extra}
        tree.setdefault(entry.kind, []).append(row)
    return json.dumps(tree)


def plugins(entries: Sequence[Entry]) -> str:
    """One line for each entry point."""
    rows = [[e.kind, e.name, e.distribution, e.version, e.status, e.reason] for e in entries]
    return table([["kind", "name", "distribution", "version", "status", ""], *rows])


def plugins_json(entries: Sequence[Entry]) -> str:
    """The same as one JSON object."""
    return json.dumps({"plugins": [dataclasses.asdict(entry) for entry in entries]})


def doctor(results: Sequence[Diagnosis]) -> str:
    """One line for each entry point, after its import, and a verdict."""
    rows = []
    for r in results:
        e, api = r.entry, str(r.spec.api) if r.spec else "-"
        rows.append([e.kind, e.name, e.distribution, e.version, api, f"{r.seconds:.2f}s", e.status, e.reason])
    bad = sum(r.entry.status in ("broken", "duplicate") for r in results)
    header = ["kind", "name", "distribution", "version", "api", "import", "status", ""]
    return f"{table([header, *rows])}\n{len(results)} plugins, {bad} broken"


def doctor_json(results: Sequence[Diagnosis]) -> str:
    """The same as one JSON object."""
    rows = [
        {**dataclasses.asdict(r.entry), "api": r.spec.api if r.spec else None, "import_seconds": round(r.seconds, 4)}
        for r in results
    ]
    return json.dumps({"plugins": rows})


def checks(results: Sequence[Result]) -> str:
    """One line for each check, and a verdict."""
    failed = sum(r.status == "failed" for r in results)
    return f"{table([[r.check, r.status, r.reason] for r in results])}\n{len(results)} checks, {failed} failed"


def checks_json(plugin: str, results: Sequence[Result]) -> str:
    """The same as one JSON object."""
    return json.dumps({"plugin": plugin, "checks": [dataclasses.asdict(r) for r in results]})


def resolved(runs: Sequence[Run]) -> str:
    """The config of each run, as its config.yaml will be."""
    import yaml

    parts = []
    for i, run in enumerate(runs, 1):
        head = f"# run {i} of {len(runs)}: {' '.join(run.overrides)}\n" if len(runs) > 1 else ""
        parts.append(head + yaml.safe_dump(run.to_dict(), sort_keys=False))
    return "---\n".join(parts)


def explain(usage: str, draft: Draft) -> str:
    """Every key that applies: name, value, origin, type and help."""
    from rlgan.schema import MISSING, show

    groups: dict[str, list[str]] = {}
    width = max(60, shutil.get_terminal_size((110, 24)).columns - 1)
    for name, key in draft.keys.items():
        role = name.partition(".")[0]
        title = f"of {role} {draft.values[role]}" if "." in name and role in draft.specs else "of every run"
        value = draft.values[name]
        said = "must be given" if value is MISSING else f"{show(value)}  [{draft.origins[name]}]"
        text = textwrap.fill(
            f"{key.doc} ({key.type})".strip(), width, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
        groups.setdefault(title, []).append(f"  {name} = {said}\n{text}")
    parts = [usage] + ["\n".join([f"Keys {title}:", *rows]) for title, rows in groups.items()]
    learner: Any = draft.specs.get("agent") or draft.specs.get("generator")
    if learner and learner.presets:
        rows = [[f"  {p.name}", f"for {p.env}", f"{p.note}{' (auto)' if p.default else ''}"] for p in learner.presets]
        parts.append(f"Presets of {learner.name}:\n{table(rows)}")
    if len(draft.specs) < 2:
        parts.append(
            "Name agent=NAME and env=NAME, or generator=NAME and data=NAME, beside --help to see their keys too."
        )
    return "\n\n".join(parts)
