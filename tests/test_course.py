"""The lessons of docs/course: their commands resolve, both languages say the same, and the script makes a figure."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import course
import course_figures
import course_measures
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rlgan import config
from rlgan.cli.main import main
from rlgan.errors import UsageError
from rlgan.nn.actor_critic import ActorCritic
from rlgan.registry import Registry
from rlgan.tables import horizon_values

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "course"
NAMES = ("dqn", "monte-carlo", "cliff", "baseline", "families")
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


def page(name: str, language: str = "") -> str:
    return (PAGES / f"{name}{language}.md").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    return re.findall(r"^rlgan run (.*)$", text, re.MULTILINE)


def test_there_is_a_page_for_each_lesson() -> None:
    assert tuple(course.LESSONS) == NAMES
    index = set(LINK.findall(page("README")))
    assert {f"{name}.md" for name in NAMES} <= index


@pytest.mark.parametrize("name", NAMES)
def test_the_page_shows_the_commands_of_the_script_and_they_resolve(name: str) -> None:
    lesson = course.LESSONS[name]
    shown = commands(page(name))
    assert shown == [f"{words} seed=0..{lesson.seeds - 1}" for words in lesson.commands.values()]
    assert f"python benchmarks/course.py {name}\n" in page(name)
    for words in shown:
        runs = config.resolve(words.replace("'", "").split(), Registry())
        assert [run.config.seed for run in runs] == list(range(lesson.seeds))


@pytest.mark.parametrize("words", [words for lesson in course.LESSONS.values() for words in lesson.commands.values()])
def test_the_commands_begin(tmp_path: Path, words: str) -> None:
    """What is refused when a run is made is more than what its settings show."""
    kept = [word for word in words.split() if not word.startswith(("steps=", "eval.episodes="))]
    assert main(["run", *kept, "steps=8", "eval.episodes=1", f"dir={tmp_path / 'run'}"]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_settings_named_in_the_text_exist(name: str) -> None:
    tried = re.findall(r"`((?:(?:agent|env)\.\w+=[^`\s]+ ?)+)`", page(name).partition("## Things to try")[2])
    assert tried
    for more in tried:
        assert any(resolves(words, more) for words in course.LESSONS[name].commands.values()), more


def resolves(words: str, more: str) -> bool:
    given = {word.partition("=")[0] for word in more.split()}
    kept = [word for word in words.split() if word.partition("=")[0] not in given]
    try:
        config.resolve([*kept, *more.split()], Registry())
    except UsageError:  # another command of the lesson may have an agent that takes them
        return False
    return True


@pytest.mark.parametrize("name", ["README", *NAMES])
def test_both_languages_say_the_same(name: str) -> None:
    english, chinese = page(name), page(name, ".zh-CN")
    assert BLOCK.findall(english) == BLOCK.findall(chinese)
    for pattern in (r"^\|", r"^(?:- |\d\. )", r"^#+ ", r"`[^`\n]+`"):
        found = [Counter(re.findall(pattern, BLOCK.sub("", text), re.MULTILINE)) for text in (english, chinese)]
        assert found[0] == found[1], pattern
    links = [Counter(link.replace(".zh-CN", "") for link in LINK.findall(text)) for text in (english, chinese)]
    assert links[0] == links[1]
    assert f"]({name}.zh-CN.md)" in english and f"]({name}.md)" in chinese
    for link in LINK.findall(english + chinese):
        assert link.startswith("https://") or (PAGES / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_numbers_are_those_of_the_commands(name: str) -> None:
    lesson = course.LESSONS[name]
    kept = json.loads((ROOT / "docs" / "results" / "course" / f"{name}.json").read_text(encoding="utf-8"))["commands"]
    assert {label: command["words"] for label, command in kept.items()} == lesson.commands
    assert all(command["steps"] is None for command in kept.values())


def test_the_script_makes_a_lesson_and_does_not_repeat_what_it_has(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "course.py"), "cliff", "--seeds", "2", "--out", str(tmp_path)]
    script += ["--steps", "4000"]
    first, second = (subprocess.run(script, capture_output=True, text=True, check=True) for _ in range(2))
    assert first.stderr.count("evaluation at step") == 4 and "evaluation at step" not in second.stderr
    kept = json.loads((tmp_path / "cliff.json").read_text())
    sarsa = kept["commands"]["Sarsa"]["seeds"]
    assert list(sarsa) == ["0", "1"] and sarsa["0"]["step"][0] > 900
    assert sarsa["0"]["path"][0] == 36 and len(sarsa["0"]["values"]) == 48
    assert struct.unpack(">II", (tmp_path / "cliff.png").read_bytes()[16:24])[0] > 1000


def test_the_interval_over_seeds() -> None:
    values = np.asarray([[1.0, 5.0], [3.0, 5.0]])
    mean, low, high = course_figures.interval(values)
    assert mean.tolist() == [2, 5] and low.tolist() == [1, 5] and high.tolist() == [3, 5]


def test_curves_of_seeds_meet_on_one_grid() -> None:
    seeds = {"0": {"step": [10, 20, 40], "y": [1.0, None, 4.0]}, "1": {"step": [0, 30], "y": [0.0, 3.0]}}
    x, values = course_figures.on_grid({"seeds": seeds}, "y")
    assert (x[0], x[-1]) == (10, 30) and values.shape == (2, len(x))
    np.testing.assert_allclose(values[:, [0, -1]], [[1, 3], [1, 3]])


def test_values_of_random_play_equal_those_of_sweeps() -> None:
    model = course_measures.FrozenLake(course_measures.FrozenLakeConfig(), "cpu").model()
    values = course_measures.random_values()
    torch.testing.assert_close(values.mean(1), horizon_values(model, 0.99, 3000, best=False), rtol=0, atol=1e-10)


def test_gradients_of_games_equal_the_formula_of_a_linear_policy() -> None:
    net = ActorCritic(Box(-1, 1, (2,)), Discrete(3), (), "float32", torch.device("cpu"))
    obs, draw = torch.randn(4, 2, 2), torch.randint(3, (4, 2))
    credit, played = torch.randn(4, 2), torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0]]).bool()
    found = course_measures.game_gradients(net, {"obs": obs, "draw": draw, "played": played}, credit)
    chance = torch.softmax(net.policy(obs.flatten(0, 1)).view(4, 2, 3), -1)
    logits = (torch.nn.functional.one_hot(draw, 3) - chance) * (credit * played)[..., None]  # (T, n, A)
    weight = torch.einsum("tna,tno->nao", logits, obs).flatten(1)
    torch.testing.assert_close(found, torch.cat([weight, logits.sum(0)], 1))
