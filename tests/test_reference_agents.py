"""Agents that learn nothing: random play over any space, the policies that envs bring, and runs that only evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

import rlgan
from rlgan.cli.main import main
from rlgan.core.protocols import Bound, Spaces
from rlgan.errors import UsageError
from rlgan.specs import NoConfig
from rlgan_agents.random import Random, refuses

CPU = torch.device("cpu")
VECTOR = Box(-1.0, 1.0, (2,), np.float32)


def drawn(space: spaces.Space, n: int = 20_000, mask: Any = None) -> torch.Tensor:
    torch.manual_seed(0)
    agent = Random(Spaces(VECTOR, space, 1), NoConfig(), CPU)
    obs = torch.zeros(n, 2) if mask is None else {"obs": torch.zeros(n, 2), "action_mask": mask}
    return agent.act(obs, None, torch.zeros(()), False)[0]["action"]


@pytest.mark.parametrize("n", [1, 3])
def test_parts_within_parts_count_as_one_observation(n: int) -> None:
    agent = Random(Spaces(VECTOR, Discrete(2), 1), NoConfig(), CPU)
    obs = {"obs": {key: torch.zeros(n, 2) for key in "abc"}, "action_mask": torch.ones(n, 2, dtype=torch.int8)}
    assert agent.act(obs, None, torch.zeros(()), False)[0]["action"].shape == (n,)


@pytest.mark.parametrize(
    "space",
    [
        Discrete(5, start=-2),
        MultiDiscrete([2, 3], start=[1, 0]),
        MultiDiscrete([[2, 3], [4, 5]]),
        MultiBinary(4),
        MultiBinary((2, 3)),
        Box(-2.0, 3.0, (2, 2), np.float32),
        Box(np.array([0, -3]), np.array([1, 5]), dtype=np.int64),
        Box(0, 255, (3,), np.uint8),
        Box(-np.inf, np.inf, (2,), np.float64),
        Box(np.array([1.0, -np.inf], np.float32), np.array([np.inf, -1.0], np.float32)),
    ],
    ids=str,
)
def test_actions_are_distributed_as_gymnasiums(space: spaces.Space) -> None:
    ours = drawn(space).numpy()
    assert ours.dtype == space.dtype and all(space.contains(action) for action in ours[:200].astype(space.dtype))
    space.seed(0)
    theirs = np.stack([space.sample() for _ in range(20_000)])
    assert ours.shape == theirs.shape
    for one, other in zip(ours.reshape(20_000, -1).T, theirs.reshape(20_000, -1).T, strict=True):
        if np.issubdtype(space.dtype, np.integer):
            values = np.union1d(one, other)
            share = np.array([[np.mean(each == value) for value in values] for each in (one, other)])
            assert np.abs(share[0] - share[1]).max() < 0.02
        else:
            at = np.linspace(0.01, 0.99, 50)
            quantile, spread = np.quantile(other, at), other.std()
            assert np.abs(np.mean(one[:, None] <= quantile, 0) - at).max() < 0.02 * max(1.0, 1 / spread)


def test_a_bound_is_computed_once_when_it_is_asked_for():
    asked = []
    bound = Bound(lambda: asked.append(1) or 2.5, "by counting", "here")
    assert not asked
    assert (bound.value, bound.value, asked) == (2.5, 2.5, [1])
    assert Bound(-1.0, "given", "there").value == -1.0


def test_masks_leave_what_is_allowed_and_nothing_else() -> None:
    mask = torch.tensor([1, 0, 1, 1, 0], dtype=torch.int8).expand(20_000, -1)
    shares = drawn(Discrete(5, start=3), mask=mask).bincount(minlength=8)[3:] / 20_000
    assert shares.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3, 0], abs=0.02)
    pair = drawn(MultiDiscrete([2, 3]), mask=mask)
    assert (pair[:, 0] == 0).all() and (pair[:, 1] < 2).all()
    assert float(pair[:, 1].float().mean()) == pytest.approx(0.5, abs=0.02)


def test_spaces_that_are_no_tensor_are_refused() -> None:
    assert "this env takes Text" in str(refuses(VECTOR, spaces.Text(3)))
    assert refuses(spaces.Text(3), Discrete(2)) is None


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["run", "agent=random", "env=cartpole", "eval.episodes=500", f"dir={folder}"]) == 0
    said = capsys.readouterr().err
    assert "random on cartpole: nothing to learn, 500 games, seed 0" in said and "normalised" in said
    (row,) = rows(folder)
    assert (row["kind"], row["step"], row["episodes"]) == ("eval", 0, 500)
    assert row["return_mean"] == pytest.approx(22.3, abs=2.0)
    assert (folder / "curve.png").exists()
    assert main(["eval", str(folder), "episodes=10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 10
    assert main(["resume", str(folder)]) == 0
    assert "this run has reached its end" in capsys.readouterr().err and len(rows(folder)) == 1
    assert rlgan.load(folder)(np.zeros((3, 4), np.float32)).shape == (3,)


def test_a_run_that_was_killed_in_its_evaluation_makes_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlgan.core.trainer import Trainer

    words = ["run", "agent=random", "env=cartpole", "eval.episodes=4"]
    assert main([*words, f"dir={tmp_path / 'whole'}"]) == 0

    class Killed(BaseException):
        pass

    def die(trainer: Trainer) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_evaluate", die)
        main([*words, f"dir={tmp_path / 'cut'}"])
    assert rows(tmp_path / "cut") == []
    assert main(["resume", str(tmp_path / "cut")]) == 0
    (whole,), (cut,) = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    del whole["time"], cut["time"]
    assert cut == whole


@pytest.mark.parametrize(
    ("env", "policy", "score", "margin"),
    [
        ("cartpole", "linear-feedback", 500, 1),
        ("bricks", "tracking", 70.1, 10),
        ("cliffwalking", "planned", -13, 0),
        ("acrobot", "reaction-pump", -84.5, 12),
        ("pendulum", "energy-swing-up", -150.5, 60),
    ],
)
def test_policies_of_envs_play(tmp_path: Path, env: str, policy: str, score: float, margin: float) -> None:
    finished = rlgan.run(agent=f"reference:{policy}", env=env, eval={"episodes": 50}, dir=tmp_path / "run")
    assert finished.evaluation["return_mean"] == pytest.approx(score, abs=margin)
    with pytest.raises(UsageError, match=f"holds the policy reference:{policy}, which sees the env's true state"):
        rlgan.load(finished)


def test_the_directory_of_a_run_without_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rlgan.run(agent="reference:linear-feedback", env="cartpole", eval={"episodes": 1})
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("reference-linear-feedback-cartpole-s0-")


def test_a_policy_is_filmed_and_demonstrates(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    folder, demos = tmp_path / "run", tmp_path / "demos.safetensors"
    words = ["agent=reference:linear-feedback", "env=cartpole", "env.max_steps=20", "eval.episodes=2"]
    assert main(["run", *words, f"dir={folder}"]) == 0
    assert main(["watch", str(folder)]) == 0
    assert (folder / "videos" / "seed0.mp4").stat().st_size > 1000
    assert main(["eval", str(folder), f"demos={demos}"]) == 0
    from safetensors.torch import load_file

    assert load_file(demos)["obs"].shape == (40, 4)


def test_a_film_overwrites_nothing_but_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.chdir(tmp_path)
    words = ["agent=reference:linear-feedback", "env=cartpole", "env.max_steps=20", "eval.episodes=1"]
    assert main(["run", *words, "dir=runs/a"]) == 0
    Path("demand.csv").write_text("7\n")
    refused = {
        "demand.csv": "out=demand.csv is no name of a film: write out=demand.mp4",
        "x.gif": "out=x.gif is no name of a film: write out=x.mp4",
        "runs": "out=runs is a folder: write out=runs/film.mp4",
        "demand.csv/x.mp4": "out=demand.csv/x.mp4: the folder demand.csv cannot be made: File exists",
    }
    capsys.readouterr()
    for out, sentence in refused.items():
        assert main(["watch", "runs/a", f"out={out}"]) == 2
        assert capsys.readouterr().err == f"rlgan: {sentence}\n"
    assert Path("demand.csv").read_text() == "7\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demand.csv", "runs"]
    assert main(["watch", "runs/a", "out=films/x.mp4"]) == 0
    assert Path("films/x.mp4").stat().st_size > 1000


def test_a_film_of_a_long_episode_skips_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    from rlgan.report.video import Video
    from rlgan_envs.cartpole import CartPole

    add, seen = Video.add, list[str]()

    def note(film: Video, frame: np.ndarray, text: str) -> None:
        seen.append(text.rpartition(" ")[2])
        add(film, frame, text)

    monkeypatch.setattr(Video, "add", note)
    monkeypatch.setattr(CartPole, "film_every", 8, raising=False)
    words = ["agent=reference:linear-feedback", "env=cartpole", "env.max_steps=20", "eval.episodes=1"]
    assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == 0
    assert main(["watch", str(tmp_path / "run"), "episodes=2"]) == 0
    assert seen == ["8", "16", "20", "0", "8", "16", "20"], "and the picture between two games"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            ["agent=reference:pid", "env=cartpole"],
            2,
            "env=cartpole has the reference policies agent=reference:random, agent=reference:linear-feedback; 'pid' is "
            "none of them",
        ),
        (
            ["agent=reference:optimum", "env=cartpole"],
            2,
            "env=cartpole has the reference policies agent=reference:random, agent=reference:linear-feedback; "
            "'optimum' is a bound, which nobody can play",
        ),
        (
            ["agent=reference:pid", "env=gym:CartPole-v1"],
            2,
            "env=gym:CartPole-v1 brings no reference policies: write agent=random, or an agent that learns",
        ),
        (["agent=reference", "env=cartpole"], 2, "agent 'reference' is a family: write agent=reference:NAME."),
        (["agent=random:x", "env=cartpole"], 2, "agent 'random' takes nothing after a colon: write agent=random."),
        (
            ["agent=random", "env=cartpole", "reward=rnd"],
            2,
            "an agent that learns nothing needs neither reward= nor normalise.*: leave them out",
        ),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    assert main(["run", *words, f"dir={tmp_path / 'run'}"]) == code
    assert f"rlgan: {sentence}" in capsys.readouterr().err


def test_random_play_of_a_simulator(tmp_path: Path) -> None:
    finished = rlgan.run(agent="random", env="gym:CartPole-v1", eval={"episodes": 100}, dir=tmp_path / "run")
    assert finished.evaluation["return_mean"] == pytest.approx(22.3, abs=4.0)


def test_a_simulators_policy_sees_its_observations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlgan_envs.gymnasium_ids import GymVector

    def references(self: GymVector) -> dict[str, Any]:
        return {"lean": lambda obs, rng: (obs @ torch.tensor([0.1, 0.3, 1.0, 0.5]) > 0).long()}

    monkeypatch.setattr(GymVector, "references", references, raising=False)
    finished = rlgan.run(agent="reference:lean", env="gym:CartPole-v1", eval={"episodes": 4}, dir=tmp_path / "run")
    assert finished.evaluation["return_mean"] == 500.0
    assert rlgan.load(finished)(np.ones(4, np.float32)) == 1


def test_random_play_keeps_to_the_mask_of_an_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders of two or three pieces are allowed, and every other one costs a thousand."""
    monkeypatch.chdir(tmp_path)
    shop = Path(__file__).with_name("shop.py").read_text(encoding="utf-8")
    masked = shop.replace(
        "    def step(",
        "    def action_mask(self, state):\n"
        "        allowed = (torch.arange(6) == 2) | (torch.arange(6) == 3)\n"
        "        return allowed.expand(len(state['stock']), -1)\n\n    def step(",
    ).replace("- 0.1 * left", "- 0.1 * left - 1000.0 * ((action < 2) | (action > 3))")
    Path("open.py").write_text(masked.replace("def action_mask", "def no_mask"))
    Path("masked.py").write_text(masked)
    scores = [
        rlgan.run(agent="random", env=f"./{name}.py", eval={"episodes": 20}, dir=name).evaluation["return_mean"]
        for name in ("masked", "open")
    ]
    assert scores[0] > 0 and scores[1] == pytest.approx(-20_000, rel=0.1)
