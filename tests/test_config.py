"""Words, files and presets become runs; whatever is wrong is said at once, in sentences."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from annotated_types import Ge, Gt, Interval
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AllowInfNan

from rlgan import AgentSpec, EnvSpec, NoConfig, Preset, TrackerSpec, config, hookimpl, schema
from rlgan.discovery import Entry
from rlgan.errors import PluginError, UsageError
from rlgan.overrides import expand
from rlgan.registry import Registry


@dataclass(frozen=True)
class NetConfig:
    """A network."""

    width: Annotated[int, Ge(1)] = 64
    """Units in a layer."""


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of the fake agent."""

    lr: Annotated[float, Gt(0)] = 1e-3
    """Step size."""
    gamma: Annotated[float, Interval(ge=0, le=1)] = 0.99
    """Discount."""
    double: bool = False
    layers: tuple[int, ...] = (64, 64)
    """Widths,
    from the input on."""
    loss: Literal["huber", "mse"] = "huber"
    limit: float | None = None
    reach: Annotated[float, AllowInfNan(True)] = float("inf")
    net: NetConfig = NetConfig(32)

    def __post_init__(self) -> None:
        if self.loss == "mse" and self.double:
            raise ValueError("mse and double do not go together.")


@dataclass(frozen=True)
class GameConfig:
    """Settings of the fake env."""

    sticky: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Probability that the last action is repeated."""
    title: str = "game"


PRESETS = (
    Preset("quick", "game", {"steps": 5e4, "agent.lr": 0.01, "env.sticky": 0.25, "copies": 2}, default=True),
    Preset("long", "game", {"steps": 10_000_000}),
)


@pytest.fixture
def registry() -> Iterator[Registry]:
    module: Any = types.ModuleType("fake_specs")

    @hookimpl
    def rlgan_specs() -> Iterator[Any]:
        yield AgentSpec("learner", object, LearnerConfig, "", lambda o, a: None if a == "discrete" else "no", PRESETS)
        yield AgentSpec("bandit", object, NoConfig, "", lambda o, a: "never")
        yield EnvSpec("game", object, GameConfig, "")
        yield EnvSpec("games", object, GameConfig, "", family=True)
        yield TrackerSpec("board", object, NoConfig, "")

    module.rlgan_specs = rlgan_specs
    sys.modules["fake_specs"] = module
    names = {"agents": ["learner", "bandit"], "envs": ["game", "games"], "hooks": ["board"]}
    entries = [Entry(name, kind, "fake", "1", "fake_specs") for kind in names for name in names[kind]]
    yield Registry([*entries, Entry("torn", "agents", "fake-torn", "1", "no_such_module_x")])
    del sys.modules["fake_specs"]


BOTH = ["agent=learner", "env=game"]


def problems(words: list[str], registry: Registry) -> list[str]:
    with pytest.raises(UsageError) as caught:
        config.resolve(words, registry)
    return str(caught.value).splitlines()


def test_precedence_and_origins(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("agent:\n  name: learner\n  gamma: 0.5\ncopies: 3\nenv: game\nseed: 7\n")
    run = config.resolve_one([f"@{file}", "seed=9"], registry)
    assert (run.config.steps, run.config.copies, run.config.seed) == (50_000, 3, 9)
    assert (run.learner.config.lr, run.learner.config.gamma, run.world.config.sticky) == (0.01, 0.5, 0.25)
    assert run.preset is PRESETS[0]
    assert {key: run.origins[key] for key in ("steps", "copies", "seed", "agent.double", "agent.net.width")} == {
        "steps": "preset quick",
        "copies": f"file {file}",
        "seed": "command line",
        "agent.double": "default",
        "agent.net.width": "default",
    }
    assert set(run.origins) == {*schema.keys(config.RunConfig), *schema.keys(LearnerConfig, "agent.")} | {
        "env.sticky",
        "env.title",
    }


def test_presets(registry: Registry) -> None:
    assert config.resolve_one([*BOTH, "preset=none"], registry).config.steps == 100_000
    assert config.resolve_one([*BOTH, "preset=long"], registry).config.steps == 10_000_000
    assert config.resolve_one(["agent=learner", "env=games:x"], registry).preset is None
    assert problems([*BOTH, "preset=qick"], registry) == [
        "unknown preset 'qick' of agent 'learner': did you mean 'quick'? "
        "There are auto, none, quick (game), long (game)."
    ]


@pytest.mark.parametrize(
    ("words", "holds"),
    [("seed=3 eval.episodes=5", True), ("steps=60000", False), ("agent.lr=0.1", False), ("normalise.obs=true", False)],
)
def test_what_a_preset_promises_holds_while_nothing_else_is_set(words: str, holds: bool) -> None:
    assert config.resolve_one(["agent=dqn", "env=cartpole", *words.split()], Registry()).as_preset is holds


def test_a_presets_name_stands_for_settings_of_several_envs() -> None:
    for env, high, copies in (("cartpole", 100.0, 8), ("breakout", 10.0, 16), ("pong", 10.0, 16)):
        run = config.resolve_one(["agent=dqn", f"env={env}", "preset=rainbow"], Registry())
        assert run.learner.config.v_max == high and run.config.copies == copies
        assert run.learner.config.noisy and run.learner.config.head == "c51"


def test_family_argument(registry: Registry) -> None:
    run = config.resolve_one(["agent=bandit", "env=games:a/b:c-v0"], registry)
    assert (run.config.env, run.world.spec.name, run.world.argument) == ("games:a/b:c-v0", "games", "a/b:c-v0")
    assert problems(["agent=bandit", "env=games"], registry) == ["env 'games' is a family: write env=games:NAME."]


def test_every_problem_at_once(registry: Registry) -> None:
    words = [
        *BOTH,
        "agent.lrr=1",
        "agent.gamma=1.5",
        "stepz=5",
        "seed=-1",
        "copies=two",
        "device=cdua",
        "env.sticky=nan",
    ]
    assert problems(words, registry) == [
        "unknown key 'agent.lrr': did you mean 'agent.lr' (number > 0, default 0.001)? Step size.",
        "agent.gamma=1.5: must be less than or equal to 1; agent.gamma takes number >= 0 and <= 1, default 0.99.",
        "unknown key 'stepz': did you mean 'steps' (whole number >= 1, default 100000)? "
        "Decisions of an agent, summed over copies; sweeps of one that plans; updates of a generator.",
        "seed=-1: must be greater than or equal to 0; "
        "seed takes whole number >= 0 and <= 9223372036854775807, default 0.",
        "copies=two: is not a whole number; copies takes whole number >= 1, default 8.",
        "device=cdua: is not allowed; device takes auto, cpu, cuda or cuda:INDEX, default auto.",
        "env.sticky=nan: is not finite; env.sticky takes number >= 0 and <= 1, default 0.0.",
    ]


def test_wrong_names_come_with_the_problems_of_the_run_keys(registry: Registry) -> None:
    assert problems(["agent=lerner", "env=gme", "agent.any=1", "stepz=1"], registry) == [
        "unknown agent 'lerner': did you mean 'learner'? Installed: bandit, learner, torn.",
        "unknown env 'gme': did you mean 'game'? Installed: game, games.",
        "unknown key 'stepz': did you mean 'steps' (whole number >= 1, default 100000)? "
        "Decisions of an agent, summed over copies; sweeps of one that plans; updates of a generator.",
    ]


def test_numbers_that_no_tensor_holds(registry: Registry) -> None:
    assert problems([*BOTH, "steps=1e30"], registry) == [
        "steps=1e30: is more than 64 bits hold; steps takes whole number >= 1, default 100000."
    ]


def test_a_forgotten_group_is_found(registry: Registry) -> None:
    assert problems([*BOTH, "lr=1", "checkpoint=5"], registry) == [
        "unknown key 'lr': did you mean 'agent.lr' (number > 0, default 0.001)? Step size.",
        "checkpoint is a group of keys: write one of checkpoint.every, checkpoint.keep.",
    ]


def test_a_key_of_another_plugin_is_not_mistaken_for_one_of_this(registry: Registry) -> None:
    """A guess is a key like it in the same group, or the same word in another one; else all keys of the group stand."""
    assert problems([*BOTH, "agent.memory=1", "agent.copies=4", "agnt.gama=1"], registry) == [
        "unknown key 'agent.memory'. Keys are agent.lr, agent.gamma, agent.double, agent.layers, agent.loss, "
        "agent.limit, agent.reach, agent.net.width.",
        "unknown key 'agent.copies': did you mean 'copies' (whole number >= 1, default 8)? "
        "Copies of the env that step together.",
        "unknown key 'agnt.gama': did you mean 'agent.gamma' (number >= 0 and <= 1, default 0.99)? Discount.",
    ]


def test_missing_names(registry: Registry) -> None:
    assert problems(["seed=1"], registry) == [
        "agent is missing: write agent=NAME. What learns to act; see `rlgan list agents`.",
        "env is missing: write env=NAME. "
        "Where an agent learns: a name, family:argument or a file ending in .py; see `rlgan list envs`.",
    ]


def test_words_that_cannot_be_read(registry: Registry) -> None:
    assert problems(["dqn", "--seed=1", "seed=1", "seed=2", "steps=1,,2", "agent=[a", "copies=9..0"], registry) == [
        "cannot read 'dqn': write key=value, as in agent=dqn, or @file.yaml.",
        "cannot read '--seed=1': write key=value, as in agent=dqn, or @file.yaml.",
        "seed is given twice: give it once (commas ask for several runs: seed=A,B).",
        "steps=1,,2: a value between two commas is empty.",
        "agent=[a: unclosed bracket.",
        "copies=9..0: the range 9..0 is empty, write 0..9.",
    ]
    assert problems(["seed=0..999999999999"], registry) == [
        "seed=0..999999999999: the range 0..999999999999 has 1000000000000 values, more than 10000."
    ]
    assert problems([*BOTH, "seed=0..999", "copies=1..99"], registry) == [
        "the commas and ranges ask for 99000 runs, more than 10000: ask for fewer at a time."
    ]


def test_matrix(registry: Registry) -> None:
    runs = config.resolve(["agent=learner,bandit", "env=game", "seed=0..2"], registry)
    assert [(run.config.agent, run.config.seed) for run in runs] == [
        (agent, seed) for agent in ("learner", "bandit") for seed in (0, 1, 2)
    ]
    assert runs[4].overrides == ("agent=bandit", "env=game", "seed=1")
    again = config.resolve_one(runs[4].overrides, registry)
    assert again == runs[4]
    with pytest.raises(
        UsageError, match=r"^this needs one run and the words ask for 2: give one value for each key\.$"
    ):
        config.resolve_one([*BOTH, "seed=0,1"], registry)


def test_runs_of_a_matrix_never_share_a_directory(registry: Registry) -> None:
    runs = config.resolve(["agent=bandit", "env=games:a/1,game", "seed=0,1", "dir=out"], registry)
    assert [run.config.dir for run in runs] == [
        "out/env=games-a-1_seed=0",
        "out/env=games-a-1_seed=1",
        "out/env=game_seed=0",
        "out/env=game_seed=1",
    ]
    assert runs[1].overrides == ("agent=bandit", "env=games:a/1", "seed=1", "dir=out/env=games-a-1_seed=1")
    runs = config.resolve(["agent=bandit", "env=game", "seed=0,1", "dir=a,b"], registry)
    assert [run.config.dir for run in runs] == ["a/seed=0", "b/seed=0", "a/seed=1", "b/seed=1"]
    assert config.resolve_one(["agent=bandit", "env=game", "dir=out"], registry).config.dir == "out"


def test_a_directory_named_after_a_list_is_no_matrix(registry: Registry) -> None:
    first, second = config.resolve([*BOTH, "dir=out", "agent.layers=[1,2],[3]"], registry)
    assert first.config.dir == "out/agent.layers=-1,2-"
    assert first.overrides[-1] == "dir='out/agent.layers=-1,2-'"
    for run in (first, second):
        assert config.resolve_one(run.overrides, registry).config == run.config


def test_a_range_of_endless_digits_is_no_range(registry: Registry) -> None:
    [problem] = problems([*BOTH, f"seed=0..{'9' * 5000}"], registry)
    assert problem.endswith(
        "is not a whole number; seed takes whole number >= 0 and <= 9223372036854775807, default 0."
    )


def test_a_directory_has_no_zero_byte(registry: Registry) -> None:
    assert problems([*BOTH, "dir=a\0b"], registry) == [
        'dir=a\0b: is not allowed; dir takes text without a zero byte, default "".'
    ]


def test_lists_quotes_and_none(registry: Registry) -> None:
    run = config.resolve_one(
        [*BOTH, "agent.layers=[8,9]", "agent.limit=none", 'env.title="a,b"', "trackers=[board]", "agent.reach=inf"],
        registry,
    )
    assert (run.learner.config.layers, run.learner.config.limit, run.world.config.title) == ((8, 9), None, "a,b")
    assert (run.config.trackers, run.learner.config.reach) == (("board",), float("inf"))
    assert len(config.resolve([*BOTH, "agent.layers=[8,9],[7]"], registry)) == 2
    assert problems([*BOTH, "trackers=[bord]"], registry) == [
        "unknown tracker 'bord': did you mean 'board'? Installed: board."
    ]
    assert problems([*BOTH, "trackers=board"], registry) == [
        "trackers=board: is not a list, which is written [A,B]; trackers takes list [text, ...], default []."
    ]


def test_nested_dataclasses_keep_their_own_default(registry: Registry) -> None:
    assert config.resolve_one(BOTH, registry).learner.config.net == NetConfig(32)
    assert config.resolve_one([*BOTH, "agent.net.width=5"], registry).learner.config.net == NetConfig(5)


def test_post_init_is_a_sentence(registry: Registry) -> None:
    words = [*BOTH, "agent.double=true", "agent.loss=mse"]
    assert problems(words, registry) == ["agent=learner: mse and double do not go together."]


def test_a_run_is_written_and_read_back(registry: Registry, tmp_path: Path) -> None:
    words = [*BOTH, "seed=3", "agent.lr=3e-7", "agent.layers=[1,2]", "timeout=2.5", "dir=elsewhere"]
    run = config.resolve_one(words, registry)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(run.to_dict(), sort_keys=False))
    assert path.read_text().startswith("agent:\n  name: learner\n  lr: 3.0e-07\n")
    again = config.load_file(path, registry)
    assert (again.learner.config, again.world.config, again.preset) == (
        run.learner.config,
        run.world.config,
        run.preset,
    )
    assert again.config.dir == str(tmp_path)
    assert dataclasses.replace(again.config, dir="") == dataclasses.replace(run.config, dir="", preset="quick")
    assert again.to_dict() == run.to_dict()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1", "@{} holds no settings: it must map keys to values, as in `agent: dqn`."),
        ("a: [", "@{} is not YAML: while parsing a flow node"),
        ("agent: learner\nenv: game\nseed: yes\n", "seed=true (file {}): is not a whole number; seed takes"),
        ("agent: learner\nenv: game\nagent.lr: .nan\n", "agent.lr=nan (file {}): is not finite; agent.lr takes"),
        (
            "agent: learner\nenv: game\nenv.title: no\n",
            "env.title=false (file {}): is not text (quote it in the file);",
        ),
        ("agent: learner\nenv: game\nagent.lrr: 1\n", "unknown key 'agent.lrr' (file {}): did you mean 'agent.lr'"),
    ],
)
def test_bad_files(registry: Registry, tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    [problem] = problems([f"@{file}"], registry)
    assert problem.startswith(sentence.format(file))


def test_an_absent_file(registry: Registry) -> None:
    assert problems(["@no/such.yaml"], registry) == ["cannot read @no/such.yaml: No such file or directory."]


def test_a_broken_plugin_is_a_plugin_error(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"^agent 'torn' from fake-torn 1 is broken: ModuleNotFoundError: No module"):
        config.resolve(["agent=torn", "env=game"], registry)


def test_agents_that_can_pass_over_broken_ones(registry: Registry) -> None:
    assert config.agents_that_can(registry, "any", "discrete") == ["learner"]
    assert config.agents_that_can(registry, "any", "box") == []


def test_draft_is_for_help(registry: Registry) -> None:
    found = config.draft(["agent=learner", "agent.lr=1"], registry)
    assert found.values["agent.lr"] == 1.0 and found.values["env"] == ""
    assert "env.sticky" not in found.keys
    with pytest.raises(UsageError, match=r"unknown key 'agent\.lrr'"):
        config.draft(["agent=learner", "agent.lrr=1"], registry)


def test_field_docs() -> None:
    docs = schema.field_docs(LearnerConfig)
    assert docs == {"lr": "Step size.", "gamma": "Discount.", "layers": "Widths, from the input on."}
    nested = {"checkpoint", "barrier", "eval", "normalise", "record"}
    assert {field.name for field in dataclasses.fields(config.RunConfig)} - set(
        schema.field_docs(config.RunConfig)
    ) == nested
    assert all(key.doc for key in schema.keys(config.RunConfig).values())


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("1e6", int, 1_000_000),
        ("10M", int, 10_000_000),
        ("5k", int, 5_000),
        ("1.5k", int, 1_500),
        ("2G", int, 2_000_000_000),
        ("1_000_000", int, 1_000_000),
        ("9007199254740993", int, 9_007_199_254_740_993),
        ("1e-4", float, 1e-4),
        ("3", float, 3.0),
        ("off", bool, False),
        ("2", Literal[1, 2], 2),
        ("0.5", int | float, 0.5),
        ("none", str | None, None),
        ("[]", tuple[int, ...], ()),
        ("[1, 2]", list[int], [1, 2]),
        ("[a,1]", tuple[str, int], ("a", 1)),
        ("x/y", Path, Path("x/y")),
        ("'none'", str, "none"),
        ("'it''s'", str, "it's"),
        ("['a,b',c]", tuple[str, ...], ("a,b", "c")),
    ],
)
def test_text_is_read_by_type(text: str, hint: Any, value: Any) -> None:
    got = schema.read(schema.Key("k", hint, MISSING), text)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "reason"),
    [
        ("1.5", int, "is not a whole number; k takes whole number."),
        ("1e400", int, "is not finite; k takes whole number."),
        ("k", int, "is not a whole number; k takes whole number."),
        ("inf", float, "is not finite; k takes number."),
        ("maybe", bool, "is neither true nor false; k takes true or false."),
        ("c", Literal["a", "b"], "is not one of them; k takes one of a, b."),
        ("[1,x]", tuple[int, ...], "is not a whole number; k takes list [whole number, ...]."),
        ("[1]", tuple[int, int], "has 1 entries, not 2; k takes list [whole number, whole number]."),
        ("x", float | None, "is not a number; k takes number or none."),
    ],
)
def test_text_of_another_type_is_refused(text: str, hint: Any, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        schema.read(schema.Key("k", hint, MISSING), text)
    assert str(caught.value) == f"k={text}: {reason}"


@given(st.lists(st.integers(), max_size=4), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_what_show_writes_is_read_back(numbers: list[int], number: float, flag: bool) -> None:
    for value, hint in ((tuple(numbers), tuple[int, ...]), (number, float), (flag, bool)):
        cells, bad = expand([f"k={schema.show(value)}"])
        assert (len(cells), bad) == (1, [])
        assert schema.convert(cells[0].settings["k"], hint) == value
