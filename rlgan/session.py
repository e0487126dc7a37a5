"""What the commands do: turn a resolved run into an env, an agent and a trainer, and a run directory into results."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gymnasium.spaces import Box

from rlgan import config, rundir
from rlgan.core import evaluate as evaluation
from rlgan.core import seeding
from rlgan.core.capture import resolve as resolve_capture
from rlgan.core.host import HostVecEnv
from rlgan.core.protocols import Spaces
from rlgan.core.trainer import Interrupted, Intervals, Output, Trainer
from rlgan.core.vec import VecEnv, check_rows
from rlgan.core.watchdog import Watchdog
from rlgan.errors import EnvError, NonFiniteError, RlganError, UsageError
from rlgan.registry import Registry
from rlgan.report import curve, record
from rlgan.report.trackers import Trackers
from rlgan.runconfig import Run
from rlgan.store import checkpoint

EVALUATION, VIDEO = 1, 2
"""Roles of random streams beside training's."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""
EVALUATION_COPIES = 10
"""At most; as many as divide the number of games."""


def train(run: Run) -> int:
    """Run to the end and return the exit code."""
    folder = Path(run.config.dir or rundir.new_name(run))
    if (folder / "config.yaml").exists():
        raise UsageError(f"{folder} already holds a run: write another dir=, or `rlgan resume {folder}`")
    with ExitStack() as stack:
        return _go(rundir.placed(run, folder), folder, None, stack)


def resume(folder: Path) -> int:
    """Continue a run from its newest checkpoint, bit for bit."""
    run = rundir.load(folder)
    with rundir.locked(folder):
        root = folder / "checkpoints"
        saved = checkpoint.newest(root)
        rundir.check_same(saved, run, folder)
        checkpoint.discard_unlisted(root, after=saved.step)
        with ExitStack() as stack:
            return _go(run, folder, saved, stack)


def evaluate(folder: Path, episodes: int | None, seed: int) -> dict[str, Any]:
    """Play whole games with the newest checkpoint, on fresh copies and raw rewards."""
    run, agent, device = _trained(folder)
    with seeding.fork(seeding.derive(run.config.seed, EVALUATION, seed), device):
        row = _play(run, agent, episodes or run.config.eval.episodes, seed, device)
    return {**row, "normalised": normalised(run, row["return_mean"]), "protocol": protocol(run)}


def watch(folder: Path, episodes: int, seed: int, out: Path | None) -> Path:
    """Write a video of the trained agent with the score drawn in."""
    from rlgan.report.video import Video

    run, agent, device = _trained(folder)
    out = out or folder / "videos" / f"seed{seed}.mp4"
    out.parent.mkdir(parents=True, exist_ok=True)
    with seeding.fork(seeding.derive(run.config.seed, VIDEO, seed), device):
        env = build_env(run, 1, device, seeding.derive(run.config.seed, VIDEO, seed), barrier=0, render=True)
        if isinstance(env, VecEnv) and env.render_mode is None:
            raise UsageError(f"env={run.config.env} cannot be filmed: it has no render(state, i)")
        env.start(0)
        video = Video(out, fps=env.fps, size=env.frame(0).shape[:2])
        shown = {"score": 0.0, "steps": 0, "game": 1}

        def draw(row: dict[str, torch.Tensor]) -> None:
            shown["score"] += float(row["reward"][0])
            shown["steps"] += int(row["valid"][0])
            text = f"{run.config.agent} on {run.config.env}   game {shown['game']}   score {shown['score']:g}"
            video.add(env.frame(0), f"{text}   step {shown['steps']}")
            if row["over"][0]:
                shown.update(score=0.0, steps=0, game=shown["game"] + 1)

        try:
            evaluation.play(env, agent.act, agent.carry, episodes, draw)
        finally:
            video.close()
            env.close()
    return out


def build_env(run: Run, copies: int, device: torch.device, seed: int, barrier: int, render: bool = False) -> Any:
    """Make the env of a run with its rows on the device."""
    spec, c = run.env_spec, run.config
    resume = f"rlgan resume {c.dir or 'last'}"
    if spec.host:
        return HostVecEnv(
            lambda n: _make(c.env, spec.factory, run.env, run.env_argument, n, render),
            copies,
            device,
            groups=c.groups if barrier else 1,
            seed=seed,
            barrier=barrier,
            timeout=c.timeout,
            name=c.env,
            resume=resume,
        )
    watchdog = Watchdog(c.timeout, c.env, resume)
    watchdog.start()
    try:
        with watchdog:
            env = _make(c.env, spec.factory, run.env, device, torch.float32)
            with seeding.fork(seed, device):
                check_rows(env, copies, device, c.env)
            return VecEnv(env, copies, device, name=c.env, watchdog=watchdog)
    except Exception:
        watchdog.close()
        raise


def build_agent(run: Run, env: Any, device: torch.device) -> Any:
    """Make the agent for the env's spaces, or say who could act there."""
    observation, action = env.single_observation_space, env.single_action_space
    reason = run.agent_spec.refuses(observation, action)
    if reason:
        able = config.agents_that_can(Registry(), observation, action)
        others = f"these can act there: {', '.join(able)}" if able else "no installed agent can act there"
        raise UsageError(f"agent={run.config.agent} cannot act in env={run.config.env}: {reason}; {others}")
    return run.agent_spec.factory(Spaces(observation, action, run.config.steps, env.stack), run.agent, device)


def protocol(run: Run) -> str:
    """The fingerprint that a score depends on: env settings, evaluation settings of the agent, versions."""
    parts = [f"{key}={value}" for key, value in asdict(run.env).items() if key != "threads"]
    parts += [f"{key}={value}" for key, value in asdict(run.agent).items() if key.endswith("_eval")]
    found = rundir.versions()
    parts += [f"{name}={found[name]}" for name in ("gymnasium", "ale-py") if name in found]
    return " ".join([run.config.env, *parts])


def normalised(run: Run, value: float) -> float | None:
    """Scale a score: 0 is random play, 1 is human play or else the best known score."""
    scores = {score.who: score.value for score in run.env_spec.scores}
    low = scores.pop("random", None)
    if low is None or not scores:
        return None
    high = scores.get("human", max(scores.values()))
    return (value - low) / (high - low)


def _go(run: Run, folder: Path, saved: checkpoint.Checkpoint | None, stack: ExitStack) -> int:
    """Train from the start or from a checkpoint; ``stack`` closes what this opens."""
    c = run.config
    device = pick_device(c.device)
    if saved and (old := saved.info["device"]) != device.type:
        raise UsageError(
            f"the run in {folder} was on {old} and this machine would go on with {device.type}: "
            f"resume it where there is {old}"
        )
    mode = resolve_capture(saved.info["capture"] if saved else c.capture, device)
    seeding.seed_all(seeding.derive(c.seed))
    _settle_processor()
    if device.type == "cuda":
        be_deterministic(c.deterministic)
    env = build_env(run, c.copies, device, c.seed, c.barrier.every)
    stack.callback(env.close)
    threads = _set_threads(saved.info["threads"] if saved else c.threads, env)
    agent = build_agent(run, env, device)
    if not saved:
        rundir.prepare(run, folder)
        stack.enter_context(rundir.locked(folder))
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
    machine = {"device": device.type, "threads": threads, "capture": mode}
    info = {"agent": c.agent, "env": c.env, "versions": rundir.versions(), **machine}

    def evaluate_now() -> dict[str, Any]:
        with seeding.fork(seeding.derive(c.seed, EVALUATION), device):
            return _play(run, agent, c.eval.episodes, 0, device)

    trainer = Trainer(agent, env, _intervals(run), output, mode, evaluate_now, info)
    say(f"{c.agent} on {c.env}: {c.steps:,} steps, {c.copies} copies, seed {c.seed}, {folder}")
    say(f"device {device}, {threads} threads, capture {mode}" + (f", preset {run.preset.name}" if run.preset else ""))
    if run.preset and run.preset.note and c.steps == run.preset.values.get("steps", c.steps):
        say(run.preset.note)
    if saved:
        with rundir.fitting(saved, folder):
            trainer.load(saved)
        exact = device.type == "cpu" or c.deterministic
        say("this run has reached its end" if trainer.finished else rundir.resumed(saved, exact))
    trackers.run_start({"config": run.to_dict(), "dir": str(folder), "step": saved.step if saved else 0})
    stack.callback(trackers.run_end, {"dir": str(folder)})
    try:
        trainer.run()
    except Interrupted as stop:
        live.close()
        say(f"saved; continue with: rlgan resume {folder}")
        return 128 + stop.number
    except NonFiniteError:
        kept = max((folder / "checkpoints").glob("step_*"), key=lambda path: path.stat().st_mtime, default=None)
        say(f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet")
        raise
    live.close()
    final = record.last_evaluation(folder / "metrics.jsonl")
    scale = normalised(run, final["return_mean"])
    picture = curve.draw(folder, f"{c.agent} on {c.env}, seed {c.seed}", run.env_spec.scores, {})
    say(
        f"{final['return_mean']:.1f} mean return over {final['episodes']} games"
        + (f" (normalised {scale:.2f}: 0 is random play, 1 the reference)" if scale is not None else "")
    )
    say(f"curve: {picture}")
    say(f"watch it: rlgan watch {folder}")
    return 0


def _intervals(run: Run) -> Intervals:
    c = run.config
    return Intervals(
        steps=c.steps,
        record=c.record.every or max(c.steps // 100, 1_000),
        evaluate=c.eval.every,
        checkpoint=c.checkpoint.every or max(c.steps // 10, 10_000),
        keep=c.checkpoint.keep,
    )


def _play(run: Run, agent: Any, episodes: int, seed: int, device: torch.device) -> dict[str, Any]:
    copies = max(n for n in range(1, EVALUATION_COPIES + 1) if episodes % n == 0)
    env = build_env(run, copies, device, seeding.derive(run.config.seed, EVALUATION, seed), barrier=0)
    try:
        games = evaluation.play(env, agent.act, agent.carry, episodes)
    finally:
        env.close()
    return evaluation.summary(**games)


def _trained(folder: Path) -> tuple[Run, Any, torch.device]:
    run = rundir.load(folder)
    saved = checkpoint.newest(folder / "checkpoints", segments=False)
    rundir.check_same(saved, run, folder)
    device = pick_device(run.config.device)
    env = build_env(run, 1, device, 0, barrier=0)
    _set_threads(run.config.threads, env)
    agent = build_agent(run, env, device)
    env.close()
    with rundir.fitting(saved, folder):
        agent.load_state_dict(saved.tree["agent"])
    return run, agent, device


def _make(name: str, factory: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return factory(*arguments)
    except RlganError:
        raise
    except Exception as error:
        raise EnvError(f"env {name} raised {type(error).__name__} when it was made: {error}") from error


def pick_device(name: str) -> torch.device:
    """Resolve ``auto`` and refuse a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"device={name}: this machine has {count} CUDA devices; write device=cpu or device=auto")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def be_deterministic(wanted: bool) -> None:
    """Ask torch for deterministic algorithms on CUDA. Call it before the first matrix product, or it comes too late."""
    # without a workspace of fixed size cuBLAS may take another order of sums, and torch refuses to call it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


def _set_threads(asked: int, env: Any) -> int:
    """Images are worth half of the cores, for vectors one thread is faster than the barriers of two.

    Threads that wait for each other slow down by ten and more when anything else wants their cores; so emulators, and
    whatever the user does meanwhile, get the other half.
    """
    space = env.single_observation_space
    image = isinstance(space, Box) and len(space.shape) == 3
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = asked or (max(cores // 2, 1) if image else 1)
    torch.set_num_threads(threads)
    return threads


def _settle_processor() -> None:
    """Set what every run on a processor gains from and no result depends on."""
    # moments of dead units decay into denormal numbers, which processors multiply a hundred times slower
    torch.set_flush_denormal(True)
    # glibc gives freed blocks above 128 KiB back to the system and takes a page fault for each 4 KiB of the next one:
    # a third of a NatureCNN update. Blocks of up to 32 MiB, the most it allows, are kept from here on.
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _tracker(name: str, folder: Path) -> Any:
    spec = Registry().get("hooks", name)
    return spec.factory(spec.config(), folder)
