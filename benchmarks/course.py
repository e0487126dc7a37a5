"""Make the figures of docs/course: python benchmarks/course.py [LESSON...] [--seeds N] [--jobs N] [--out DIR]

Each lesson is a few `rlgan run` commands, which its page shows. They are run over the seeds, what the figure needs of
their records goes to docs/results/course/LESSON.json, and the figure to docs/course/LESSON.png. A seed that is in the
file under the same command is not run once more (--again does), so that a lesson that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import course_figures
from course_measures import gradient_noise, table_errors, walk
from machine import describe
from matplotlib.figure import Figure

import rlgan
from rlgan.errors import NonFiniteError
from rlgan.report.record import read

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]


@dataclass(frozen=True)
class Lesson:
    """Commands by the names that the figure gives them, and what becomes of their runs."""

    commands: dict[str, str]
    """Words after `rlgan run`, without `seed=`."""
    keys: tuple[str, ...]
    """Entries of the record's rows of training that are kept."""
    draw: Callable[[dict[str, Any]], Figure]
    seeds: int = 10
    measure: Callable[[Path], Row] | None = None
    """More that is kept of a run, from its directory."""


DQN = "agent=dqn env=cartpole steps=20000 agent.double=false agent.lr_end=1 agent.updates=2 agent.hidden=[64,64]"
DQN += " agent.batch_size=16 agent.n_step=1"
WALK = (
    "env=frozenlake preset=none steps=64000 agent.lr=0.2 agent.epsilon_end=1 checkpoint.every=2000 checkpoint.keep=100"
)
REINFORCE = "agent=reinforce env=cartpole env.max_steps=200 steps=200000 agent.horizon=400 agent.lr_end=1"
REINFORCE += " agent.max_grad_norm=1e9 agent.normalise=false checkpoint.every=25000 checkpoint.keep=100"

LESSONS = {
    "dqn": Lesson(
        {
            "replay and target network": DQN,
            "no target network": f"{DQN} agent.tau=1",
            "no replay": f"{DQN} agent.capacity=24",
            "neither": f"{DQN} agent.tau=1 agent.capacity=24",
        },
        ("return_mean", "q"),
        course_figures.dqn,
    ),
    "monte-carlo": Lesson(
        {
            "Monte-Carlo": f"agent=mc-control {WALK} agent.horizon=64",
            "one step, the same batches": f"agent=sarsa {WALK} agent.horizon=64",
            "one step, after every step": f"agent=sarsa {WALK}",
        },
        (),
        course_figures.monte_carlo,
        measure=table_errors,
    ),
    "cliff": Lesson(
        {
            "Sarsa": "agent=sarsa env=cliffwalking",
            "Q-learning": "agent=q-learning env=cliffwalking",
        },
        ("return_mean",),
        course_figures.cliff,
        measure=walk,
    ),
    "baseline": Lesson(
        {
            "no baseline": f"{REINFORCE} agent.baseline=false",
            "value baseline": REINFORCE,
        },
        ("return_mean",),
        course_figures.baseline,
        measure=gradient_noise,
    ),
    "families": Lesson(
        {
            "DQN": "agent=dqn env=cartpole eval.episodes=100",
            "REINFORCE": "agent=reinforce env=cartpole eval.episodes=100",
            "A2C": "agent=a2c env=cartpole eval.episodes=100",
            "PPO": "agent=ppo env=cartpole eval.episodes=100",
        },
        ("return_mean",),
        course_figures.families,
        seeds=10,
    ),
}


def run(name: str, words: str, seed: int, steps: int | None) -> Row:
    """One run, and what is kept of it: columns over steps, the last evaluation, seconds of processor time.

    ``core`` is the record's clock at the pace of a core of the run's own: other work beside it does not count.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _run(LESSONS[name], words, seed, steps, Path(folder) / "run")


def _run(lesson: Lesson, words: str, seed: int, steps: int | None, folder: Path) -> Row:
    began = time.process_time()
    asked = [*words.split(), f"seed={seed}", f"dir={folder}"]
    if steps:
        asked = [word for word in asked if not word.startswith("steps=")] + [f"steps={steps}"]
    diverged = False
    try:
        rlgan.run(*asked)
    except NonFiniteError as error:  # the last word of a run that diverged, and a result
        print(error)
        diverged = True
    seconds = time.process_time() - began
    rows = read(folder / "metrics.jsonl")
    trained = [row for row in rows if row["kind"] == "train"][:-1]  # the last one covers what is left, a game or two
    pace = seconds / rows[-1]["time"]["wall"]
    kept: Row = {"step": [row["step"] for row in trained]}
    kept |= {key: [_short(row.get(key)) for row in trained] for key in lesson.keys}
    kept["core"] = [_short(row["time"]["wall"] * pace) for row in trained]
    kept["core_seconds"], kept["diverged"] = _short(seconds), diverged
    if evaluations := [row for row in rows if row["kind"] == "eval"]:
        kept["evaluation"] = _short(evaluations[-1]["return_mean"])
    if lesson.measure and not diverged:
        kept |= lesson.measure(folder)
    return kept


def _short(value: Any) -> Any:
    """Four digits are enough for a figure."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def make(name: str, seeds: int | None, steps: int | None, out: Path | None, again: bool, jobs: int) -> None:
    """Run what is missing of a lesson and draw it."""
    lesson = LESSONS[name]
    data = (out or ROOT / "docs" / "results" / "course") / f"{name}.json"
    data.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {"commands": {}}
    commands: dict[str, Any] = {}
    for label, words in lesson.commands.items():
        old = found["commands"].get(label, {})
        fits = old.get("words") == words and old.get("steps") == steps and not again
        commands[label] = {"words": words, "steps": steps, "seeds": dict(old["seeds"]) if fits else {}}
    result = {"lesson": name, "machine": describe(), "commands": commands}
    wanted = [(label, str(seed)) for seed in range(seeds or lesson.seeds) for label in commands]
    missing = [(label, seed) for label, seed in wanted if seed not in commands[label]["seeds"]]
    if len(missing) < len(wanted):
        print(f"{name}: {len(wanted) - len(missing)} of {len(wanted)} runs are in {data}; --again makes them anew")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        running = {
            pool.submit(run, name, commands[label]["words"], int(seed), steps): (label, seed) for label, seed in missing
        }
        for done in as_completed(running):
            label, seed = running[done]
            command = commands[label]
            command["seeds"][seed] = done.result()
            command["seeds"] = dict(sorted(command["seeds"].items(), key=lambda item: int(item[0])))
            data.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    picture = (out or ROOT / "docs" / "course") / f"{name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = {
        label: {**command, "seeds": {seed: command["seeds"][seed] for of, seed in wanted if of == label}}
        for label, command in commands.items()
    }
    lesson.draw(drawn).savefig(picture, dpi=130, facecolor="white")
    print(f"{data}\n{picture}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", choices=[*LESSONS, []], metavar="LESSON", help=", ".join(LESSONS))
    parser.add_argument("--seeds", type=int, help="seeds 0 to N - 1")
    parser.add_argument("--steps", type=int, help="other steps than the commands have")
    parser.add_argument("--out", type=Path, help="one folder for data and figure")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each with one thread")
    parser.add_argument("--again", action="store_true", help="run all of it once more")
    args = parser.parse_args()
    for name in args.lessons or LESSONS:
        make(name, args.seeds, args.steps, args.out, args.again, args.jobs)


if __name__ == "__main__":
    main()
