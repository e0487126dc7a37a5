"""What the commands do: train, resume, evaluate and sample a run, in its directory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rlgan import assembly, envfile, film, judge, rundir, specs, trained
from rlgan import evaluate as evaluation
from rlgan.core import seeding
from rlgan.core.protocols import RewardModel
from rlgan.core.stream import DataStream, Stream
from rlgan.core.trainer import Interrupted, Intervals, Output, Trainer
from rlgan.datasets import Judge
from rlgan.errors import EnvError, PluginError, RlganError, UsageError, guarded
from rlgan.nn.normalise import Normaliser
from rlgan.registry import Registry
from rlgan.report import curve, record, samples
from rlgan.report.trackers import Trackers
from rlgan.runconfig import Run
from rlgan.store import checkpoint, demos

OnRow = Callable[[dict[str, torch.Tensor]], None]
EVALUATION = 1
"""Role of the random stream of evaluations, beside training's."""
EVALUATION_COPIES = 10
"""At most; as many as divide the number of games."""


@dataclass(frozen=True)
class Task:
    """What differs between a run of an agent and one of a generator."""

    learner: Any
    stream: Stream | DataStream
    reward: RewardModel | None
    evaluate: Callable[[], dict[str, Any]]
    threads: int
    judge: Judge | judge.Games
    """What is said of an evaluation."""
    see: str
    """The command that shows what was learned, and what it is for."""


def train(run: Run) -> int:
    """Run to the end and return the exit code."""
    folder = Path(run.config.dir or rundir.new_name(run)).expanduser()
    rundir.check_free(folder)
    with ExitStack() as stack:
        return _go(rundir.placed(run, folder), folder, None, stack)


def resume(folder: Path, steps: int | None = None) -> int:
    """Continue a run from its newest checkpoint, bit for bit; or to the end of other ``steps``."""
    run = rundir.load(folder)
    with rundir.locked(folder):
        root = folder / "checkpoints"
        saved = checkpoint.newest(root)
        rundir.check_same(saved, run, folder)
        if steps is not None:
            run = rundir.lengthened(run, saved, folder, steps)
        checkpoint.discard_unlisted(root, after=saved.step)
        with ExitStack() as stack:
            return _go(run, folder, saved, stack)


def evaluate(
    folder: Path,
    episodes: int | None,
    count: int | None,
    seed: int,
    demos_path: Path | None = None,
    temperature: float | None = None,
    which: str = checkpoint.NEWEST,
) -> dict[str, Any]:
    """Judge a checkpoint: whole games on fresh copies with raw rewards, or ``count`` fresh samples.

    ``demos_path`` is where demonstrations of these games are written. ``temperature`` is for sequences.
    """
    found = trained.load(folder, temperature=temperature, which=which)
    run, learner, env, device = found.run, found.learner, found.env, found.device
    generates = "generator" in run.parts
    held, right = ("a generator", "samples=1000") if generates else ("an agent", "episodes=100")
    for name, value in ({"episodes": episodes, "demos": demos_path} if generates else {"samples": count}).items():
        if value is not None:
            right = f"rlgan eval {rundir.quoted(folder)} {right}"
            raise UsageError(f"{folder} holds {held}, which has no {name}: write `{right}`")
    assembly.set_threads(run.config.threads, env and env.single_observation_space)
    with seeding.fork(seeding.derive(run.config.seed, EVALUATION, seed), device):
        if generates:
            row = judge.judge_of(found.data, device).row(learner, count or run.config.eval.samples)
            temperature = getattr(learner, "temperature", 1.0)
            sharper = "" if temperature == 1.0 else f" temperature={temperature:g}"
            data = f"{run.world.name} {found.data.protocol}{sharper}"
            return {"step": found.step, **row, "protocol": data}
        seen: dict[str, list[torch.Tensor]] = {"obs": [], "action": []}

        def keep(row: dict[str, torch.Tensor]) -> None:
            for name, rows in seen.items():
                rows.append(row[name][row["counts"]].cpu())

        episodes = episodes or run.config.eval.episodes
        row = _play(run, learner, found.normaliser, episodes, seed, device, keep if demos_path else None)
    fingerprint = protocol(run, getattr(env, "protocol", ""))
    if demos_path:
        about = {"env": run.world.name, "protocol": fingerprint, "by": run.learner.name, **row}
        demos.save(demos_path, torch.cat(seen["obs"]), torch.cat(seen["action"]), about)
    scale = normalised(run, row["return_mean"])
    return {"step": found.step, **row, "normalised": scale, "protocol": fingerprint}


def sample(
    folder: Path,
    n: int,
    seed: int,
    prefix: str,
    out: Path | None,
    temperature: float | None = None,
    which: str = checkpoint.NEWEST,
) -> Path | list[str]:
    """Make n samples by the trained generator: lines of text, or a file: of text where ``out`` says so, or a picture.

    ``prefix`` is how each text begins, ``temperature`` divides the logits of its tokens.
    """
    found = trained.load(folder, temperature=temperature, which=which)
    run, generator, device = found.run, found.learner, found.device
    if "generator" not in run.parts:
        right = f"rlgan watch {rundir.quoted(folder)}"
        raise UsageError(f"{folder} holds an agent, which makes no samples: write `{right}`")
    tokens = found.data.tokens
    if prefix and tokens is None:
        raise UsageError(f"{folder} holds a generator of images, which have no prefix: leave it out")
    given = {"prefix": tokens.read(prefix).to(device)} if prefix and tokens else {}
    with seeding.fork(seeding.derive(run.config.seed, film.SHOWN, seed), device):
        made = generator.sample(n, **given)
    if tokens and out is None:
        return tokens.text(made)
    return samples.save(made, tokens, out or folder / "samples" / film.named(seed, which))


def protocol(run: Run, data: str = "") -> str:
    """The fingerprint that a score depends on: settings and ``data`` of the env, settings of evaluation, versions."""
    source = getattr(run.world.spec, "source", None)
    parts = [f"sha256={envfile.digest(source)[:12]}"] if source else []
    parts += [f"{key}={value}" for key, value in asdict(run.world.config).items() if key != "threads"]
    parts += [f"{key}={value}" for key, value in asdict(run.learner.config).items() if key.endswith("_eval")]
    parts += [f"data:{data}"] if data else []
    found = rundir.versions(run)
    parts += [f"{name}={found[name]}" for name in ("gymnasium", "ale-py") if name in found]
    return " ".join([run.world.name, *parts])


def normalised(run: Run, value: float) -> float | None:
    """The score on the scale of the run's env."""
    return specs.normalised(run.world.spec.known(run.world.config), value)


def _go(run: Run, folder: Path, saved: checkpoint.Checkpoint | None, stack: ExitStack) -> int:
    """Train from the start or from a checkpoint; ``stack`` closes what this opens."""
    c = run.config
    device = assembly.pick_device(c.device)
    if saved and (old := saved.info["device"]) != device.type:
        raise UsageError(
            f"the run in {folder} was on {old} and this machine would go on with {device.type}: "
            f"resume it where there is {old}"
        )
    mode = assembly.pick_capture(saved.info["capture"] if saved else c.capture, device)
    seeding.seed_all(seeding.derive(c.seed))
    assembly.settle_processor()
    if device.type == "cuda":
        assembly.be_deterministic(c.deterministic)
    make = _generator_task if "generator" in run.parts else _agent_task
    task = make(run, folder, device, saved.info["threads"] if saved else c.threads, stack)
    names = {role: part.name for role, part in run.parts.items()}
    versions = rundir.versions(run)
    how = {"device": device.type, "threads": task.threads, "capture": mode}
    info = {**names, "versions": versions, "steps": c.steps, **how}
    trainer = Trainer(
        task.learner, task.stream, task.reward, _intervals(run), mode, task.evaluate, task.judge.rank, info
    )
    if not saved:  # now that nothing is refused any more
        stack.enter_context(rundir.begun(run, folder))
    log = stack.enter_context((folder / "log.txt").open("ab", buffering=0))

    def say(text: str) -> None:
        print(text, file=sys.stderr)
        try:
            log.write(f"{text}\n".encode(errors="backslashreplace"))
        except OSError as error:
            print(f"warning: {log.name} could not be written: {error.strerror}", file=sys.stderr)

    live = record.LiveLine(c.steps)
    stack.callback(live.close)
    trackers = Trackers({name: _tracker(name, folder) for name in c.trackers}, deadline=10.0, warn=live.note)
    metrics = record.Record(folder / "metrics.jsonl", saved.info["record_length"] if saved else None)
    stack.callback(metrics.close)
    output = Output(folder / "checkpoints", metrics, live, trackers)
    width = f"{c.copies} {'copy' if c.copies == 1 else 'copies'}, " if "env" in run.parts else ""
    title = f"{run.learner.name} on {run.world.name}" + (f" with reward {c.reward}" if c.reward else "")
    work = f"{c.steps:,} steps, {width}" if trainer.phases else f"nothing to learn, {c.eval.episodes} games, "
    say(f"{title}: {work}seed {c.seed}, {folder}")
    say(
        f"device {device}, {task.threads} thread{'s' * (task.threads > 1)}, capture {mode}"
        + (f", preset {run.preset.name}" if run.preset else "")
    )
    if run.preset and run.preset.note and run.as_preset:
        say(run.preset.note)
    if saved:
        with rundir.fitting(saved, run, folder):
            trainer.load(saved, output.checkpoints)
        saved.tree.clear()  # it maps the checkpoint's file, which is removed one day
        if saved.info["steps"] != c.steps:
            rundir.write_config(run, folder)
            trainer.finished = False
        exact = device.type == "cpu" or c.deterministic
        say("this run has reached its end" if trainer.finished else rundir.resumed(saved, versions, exact, c.steps))
    trackers.run_start({"config": run.to_dict(), "dir": str(folder), "step": saved.step if saved else 0})
    stack.callback(trackers.run_end, {"dir": str(folder)})
    try:
        trainer.run(output)
    except Interrupted as stop:
        live.close()
        say(f"saved; continue with: rlgan resume {rundir.quoted(folder)}")
        return 128 + stop.number
    except RlganError as error:
        live.close()
        # an env or a disk may be well again; the same numbers and settings come to the same end
        say(rundir.last_saved(folder, again=type(error) in (EnvError, RlganError)))
        raise
    live.close()
    final = record.last_evaluation(folder / "metrics.jsonl", task.judge.drawn)
    picture = curve.draw(folder, f"{title}, seed {c.seed}", task.judge.drawn, task.judge.scores)
    say(task.judge.sentence(final))
    say(f"curve: {picture}")
    say(f"{task.see} {rundir.quoted(folder)}")
    return 0


def _agent_task(run: Run, folder: Path, device: torch.device, threads: int, stack: ExitStack) -> Task:
    c = run.config
    env = assembly.build_env(run, c.copies, device, c.seed, c.barrier.every)
    stack.callback(env.close)
    threads = assembly.set_threads(threads, env.single_observation_space)
    agent = assembly.build_agent(run, env, device)
    normaliser = assembly.build_normaliser(run, env, device)

    def evaluate_now() -> dict[str, Any]:
        with seeding.fork(seeding.derive(c.seed, EVALUATION), device):
            return _play(run, agent, normaliser, c.eval.episodes, 0, device)

    stream = Stream(env, assembly.acting(run, agent, env, normaliser), agent.carry, normaliser)
    reward = assembly.build_reward(run, env, agent, device)
    games = judge.Games(run.world.spec.known(run.world.config))
    see = "see it: rlgan watch" if film.has_pictures(env) else "judge it: rlgan eval"
    return Task(agent, stream, reward, evaluate_now, threads, games, see)


def _generator_task(run: Run, folder: Path, device: torch.device, threads: int, stack: ExitStack) -> Task:
    c = run.config
    data = assembly.build_data(run)
    threads = assembly.set_threads(threads, None)
    generator = assembly.build_generator(run, data, device)
    stream, by = DataStream(data, device), judge.judge_of(data, device)

    def evaluate_now() -> dict[str, Any]:
        with seeding.fork(seeding.derive(c.seed, EVALUATION), device):
            row = by.row(generator, c.eval.samples)
            samples.save(generator.sample(64), data.tokens, folder / "samples" / f"step_{int(stream.step)}")
            return row

    return Task(generator, stream, None, evaluate_now, threads, by, "see it: rlgan sample")


def _intervals(run: Run) -> Intervals:
    c = run.config
    return Intervals(
        steps=c.steps,
        record=c.record.every or max(c.steps // 100, 1_000),
        evaluate=c.eval.every,
        checkpoint=c.checkpoint.every or max(c.steps // 10, 10_000),
        keep=c.checkpoint.keep,
    )


def _play(
    run: Run,
    agent: Any,
    normaliser: Normaliser | None,
    episodes: int,
    seed: int,
    device: torch.device,
    on_row: OnRow | None = None,
) -> dict[str, Any]:
    copies = max(n for n in range(1, EVALUATION_COPIES + 1) if episodes % n == 0)
    seed = seeding.derive(run.config.seed, EVALUATION, seed)
    env = assembly.build_env(run, copies, device, seed, barrier=0, evaluation=True)
    with closing(env):
        act = assembly.acting(run, agent, env, normaliser)
        return judge.summary(**evaluation.play(env, act, agent.carry, episodes, on_row))


def _tracker(name: str, folder: Path) -> Any:
    spec = Registry().get("hooks", name)
    return guarded(PluginError, f"tracker {name}", "when it was made", spec.factory, spec.config(), folder)
