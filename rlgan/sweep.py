"""A generator of sequences judged at several temperatures: quality against diversity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlgan import assembly, judge, trained
from rlgan.core import seeding
from rlgan.errors import UsageError
from rlgan.report import plane
from rlgan.store.checkpoint import NEWEST

EVALUATION = 1
"""Role of the random stream, that of every evaluation."""


def sweep(
    folder: Path, temperatures: tuple[float, ...], count: int | None, seed: int, against: Path | None, which: str
) -> dict[str, Any]:
    """Judge ``count`` samples of a checkpoint at each temperature, and draw the plane.

    All temperatures are given the same random numbers. ``against`` is another run, drawn beside.
    """
    found = trained.load(folder, temperature=temperatures[0], which=which)
    run, generator, device = found.run, found.learner, found.device
    assembly.set_threads(run.config.threads, None)
    data = found.data
    by: Any = judge.judge_of(data, device)
    if (axes := getattr(by, "plane", None)) is None:
        raise UsageError(f"data={run.world.name} names no two figures to draw against each other: leave it out")
    count = count or run.config.eval.samples
    if count < 2:
        raise UsageError(f"samples={count} shows no diversity: write at least 2")
    protocol = f"{run.world.name} {data.protocol} samples={count}"
    other = plane.read(against, protocol, axes) if against else None
    rows = []
    for temperature in temperatures:
        generator.temperature = temperature
        with seeding.fork(seeding.derive(run.config.seed, EVALUATION, seed), device):
            row = by.row(generator, count)
        rows.append({"temperature": temperature, **{k: v for k, v in row.items() if k != "baselines"}})
    which = "" if which == NEWEST else f" checkpoint={which}"
    result = {"run": f"{folder}{which}", "plane": list(axes), "protocol": protocol, "rows": rows}
    return {**result, "file": str(plane.write(folder, result, other, by.points))}
