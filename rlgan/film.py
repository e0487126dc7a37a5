"""The film of a trained agent."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from rlgan import assembly, rundir, trained
from rlgan import evaluate as evaluation
from rlgan.core import seeding
from rlgan.core.vec import VecEnv
from rlgan.errors import UsageError
from rlgan.store import checkpoint

SHOWN = 2
"""Role of the random stream of what is shown, beside training's and evaluation's."""


def watch(folder: Path, episodes: int, seed: int, out: Path | None, which: str = checkpoint.NEWEST) -> Path:
    """Write a video of the trained agent with the score drawn in."""
    from rlgan.report.video import Video

    out = _film(out or folder / "videos" / f"{named(seed, which)}.mp4")
    found = trained.load(folder, which=which)
    run, agent, env, device = found.run, found.learner, found.env, found.device
    if "generator" in run.parts:
        right = f"rlgan sample {rundir.quoted(folder)}"
        raise UsageError(f"{folder} holds a generator, which plays nothing: write `{right}`")
    assembly.set_threads(run.config.threads, env.single_observation_space)
    with seeding.fork(seeding.derive(run.config.seed, SHOWN, seed), device):
        seed = seeding.derive(run.config.seed, SHOWN, seed)
        env = assembly.build_env(run, 1, device, seed, barrier=0, render=True, evaluation=True)
        if not has_pictures(env):
            raise UsageError(f"env={run.config.env} cannot be filmed: it has no render(state, i)")
        env.start(0)
        every = getattr(env, "film_every", 1)
        shown = {"score": 0.0, "steps": 0, "game": 1}

        def draw(row: dict[str, torch.Tensor]) -> None:
            shown["score"] += float(row["reward"][0])
            shown["steps"] += int(row["valid"][0])
            if shown["steps"] % every and not row["over"][0]:
                return
            text = f"{run.config.agent} on {run.config.env}   game {shown['game']}   score {shown['score']:g}"
            video.add(env.frame(0), f"{text}   step {shown['steps']}")
            if row["over"][0]:
                shown.update(score=0.0, steps=0, game=shown["game"] + 1)

        with closing(env):
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"out={out}: the folder {out.parent} cannot be made: {error.strerror}") from error
            with Video(out, env.fps, env.frame(0).shape[:2]) as video:
                evaluation.play(env, found.acting(env), agent.carry, episodes, draw)
    return out


def has_pictures(env: Any) -> bool:
    """Whether the env may be filmed; of a simulator only a film itself shows it."""
    return not isinstance(env, VecEnv) or env.render_mode is not None


def named(seed: int, which: str) -> str:
    """The name, without its suffix, of a file that shows a checkpoint."""
    return f"seed{seed}" if which == checkpoint.NEWEST else f"{which}-seed{seed}"


def _film(out: Path) -> Path:
    """The path of a film that can be written there, for nothing else may be overwritten."""
    if out.is_dir():
        raise UsageError(f"out={out} is a folder: write out={out / 'film.mp4'}")
    if out.suffix.lower() != ".mp4":
        raise UsageError(f"out={out} is no name of a film: write out={out.with_suffix('.mp4')}")
    return out
