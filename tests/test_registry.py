"""Plugins by name, from real metadata of throw-away distributions."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlgan.discovery import Entry, discover
from rlgan.errors import PluginError, UsageError
from rlgan.registry import Registry

GOOD = """
    from dataclasses import dataclass
    from rlgan import AgentSpec, EnvSpec, NoConfig, hookimpl

    @hookimpl
    def rlgan_specs():
        yield AgentSpec("good", object, NoConfig, "does well", lambda o, a: None)
        yield EnvSpec("plain", object, NoConfig, "one env")
        yield EnvSpec("family", object, NoConfig, "many envs", family=True)
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make a distribution: its metadata, entry points and one module."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def install(name: str, points: str, source: str | None = None, requires: str = "", version: str = "1.0") -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{textwrap.dedent(requires).lstrip()}"
        (folder / "METADATA").write_text(metadata)
        (folder / "entry_points.txt").write_text(textwrap.dedent(points))
        module = name.replace("-", "_")
        if source is not None:
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        made.append(module)

    yield install
    for module in made:
        sys.modules.pop(module, None)


def registry() -> Registry:
    return Registry([entry for entry in discover() if entry.distribution.startswith("fake")])


def test_names_come_without_an_import(install: Install) -> None:
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", GOOD)
    entries = registry().names("agents")
    assert entries == [Entry("good", "agents", "fake-good", "1.0", "fake_good")]
    assert "fake_good" not in sys.modules


def test_only_what_is_named_is_imported(install: Install) -> None:
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", GOOD)
    install("fake-bad", "[rlgan.agents]\nbad = fake_bad\n", "raise RuntimeError('must not run')")
    assert registry().get("agents", "good").summary == "does well"
    assert "fake_bad" not in sys.modules


def test_one_module_gives_many_specs_and_families(install: Install) -> None:
    install("fake-good", "[rlgan.envs]\nplain = fake_good\nfamily = fake_good\n", GOOD)
    known = registry()
    spec, argument = known.get_named("envs", "family:a:b-v0")
    assert (spec.name, argument) == ("family", "a:b-v0")
    assert known.get_named("envs", "plain")[1] == ""
    with pytest.raises(UsageError, match=r"^env 'family' is a family: write env=family:NAME\.$"):
        known.get_named("envs", "family")
    with pytest.raises(UsageError, match=r"^env 'plain' takes nothing after a colon: write env=plain\.$"):
        known.get_named("envs", "plain:x")


def test_unknown_name_says_the_nearest(install: Install) -> None:
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", GOOD)
    with pytest.raises(UsageError, match=r"^unknown agent 'goood': did you mean 'good'\? Installed: good\.$"):
        registry().find("agents", "goood")
    with pytest.raises(UsageError, match=r"^unknown env 'x'\. Installed: none\.$"):
        registry().find("envs", "x")


BROKEN = {
    "raises at import": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exits at import": ("raise SystemExit('bye')", "SystemExit: bye"),
    "syntax": ("def (", "SyntaxError: invalid syntax (fake_bad.py, line 1)"),
    "module missing": ("import no_such_module_x", "ModuleNotFoundError: No module named 'no_such_module_x'"),
    "no hook": ("x = 1", "PluginError: fake_bad has no function rlgan_specs marked with @hookimpl"),
    "generator raises": (
        GOOD + "        raise ValueError('half way')\n",
        "ValueError: half way",
    ),
    "misspelt hook": (
        "from rlgan import hookimpl\n@hookimpl\ndef rlgan_spec():\n    yield 1\n",
        "PluginValidationError: unknown hook 'rlgan_spec' in plugin",
    ),
    "not a spec": (
        "from rlgan import hookimpl\n@hookimpl\ndef rlgan_specs():\n    yield 'dqn'\n",
        "PluginError: fake_bad yields 'dqn', which is not a Spec",
    ),
    "another name": (
        GOOD,
        "fake_bad yields no spec agents.bad (it yields agents.good, envs.plain, envs.family)",
    ),
    "another api": (
        GOOD.replace('"good", object', '"bad", object').replace("None)", "None, api=9)", 1),
        "it is made for version 9 of the plugin contract and this rlgan speaks version 1",
    ),
    "config is no dataclass": (
        GOOD.replace('"good", object, NoConfig', '"bad", object, dict'),
        "its config <class 'dict'> is not a dataclass",
    ),
    "field called name": (
        GOOD.replace('"good", object, NoConfig', '"bad", object, Bad').replace(
            "    @hookimpl", "    @dataclass(frozen=True)\n    class Bad:\n        name: str = ''\n\n    @hookimpl"
        ),
        "its config has a field 'name', which a config file needs for the plugin's own name",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_costs_only_itself(install: Install, case: str) -> None:
    source, reason = BROKEN[case]
    install("fake-bad", "[rlgan.agents]\nbad = fake_bad\n", source)
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", GOOD)
    known = registry()
    with pytest.raises(PluginError) as caught:
        known.get("agents", "bad")
    assert str(caught.value).startswith(f"agent 'bad' from fake-bad 1.0 is broken: {reason}")
    assert str(caught.value).endswith("See `rlgan plugins doctor`.")
    assert known.get("agents", "good").name == "good"
    found = {d.entry.name: d.entry for d in known.doctor()}
    assert found["good"].status == "ok"
    assert found["bad"].status == "broken" and found["bad"].reason.startswith(reason)


def test_strict_raises_the_plugins_own_error(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLGAN_STRICT", "1")
    install("fake-bad", "[rlgan.agents]\nbad = fake_bad\n", "raise RuntimeError('no luck')")
    with pytest.raises(RuntimeError, match=r"^no luck$"):
        registry().get("agents", "bad")


def test_duplicates_name_both_and_one_can_be_blocked(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", GOOD)
    install("fake-too", "[rlgan.agents]\ngood = fake_too\n", GOOD)
    sentence = (
        "agent 'good' is offered by both fake-good and fake-too: "
        "uninstall one of them, or set RLGAN_BLOCK=agents.good@fake-too."
    )
    with pytest.raises(PluginError) as caught:
        registry().get("agents", "good")
    assert str(caught.value) == sentence
    assert [entry.status for entry in registry().names("agents")] == ["duplicate", "duplicate"]
    monkeypatch.setenv("RLGAN_BLOCK", "agents.good@fake-too")
    assert registry().find("agents", "good").distribution == "fake-good"
    assert registry().get("agents", "good").name == "good"


def test_one_name_in_two_kinds_is_no_duplicate(install: Install) -> None:
    source = GOOD.replace('EnvSpec("plain"', 'EnvSpec("good"')
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n[rlgan.envs]\ngood = fake_good\n", source)
    assert registry().get("agents", "good").kind == "agents"
    assert registry().get("envs", "good").kind == "envs"


def test_block(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", GOOD)
    monkeypatch.setenv("RLGAN_BLOCK", "agents.good, envs.other")
    with pytest.raises(UsageError, match=r"^agent 'good' is blocked: take it out of RLGAN_BLOCK to use it\.$"):
        registry().get("agents", "good")
    assert registry().doctor()[0].entry.status == "blocked"
    assert "fake_good" not in sys.modules
    monkeypatch.setenv("RLGAN_BLOCK", "agent.good")
    with pytest.raises(UsageError, match=r"^RLGAN_BLOCK=agent\.good: write KIND\.NAME, with KIND one of agents, envs"):
        registry()


EXTRA = "Provides-Extra: big\nRequires-Dist: {}; extra == 'big'\nRequires-Dist: pluggy\n"


def test_a_missing_extra_says_the_pip_line(install: Install) -> None:
    source = GOOD.replace("lambda o, a: None)", "lambda o, a: None, extra='big')")
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", source, EXTRA.format("no-such-dist-x>=2"))
    with pytest.raises(PluginError) as caught:
        registry().get("agents", "good")
    needs = 'needs no-such-dist-x>=2, which is not installed: pip install "fake-good[big]"'
    assert str(caught.value) == f"agent 'good' {needs}"
    assert registry().doctor()[0].entry.status == "extra missing"
    assert registry().doctor()[0].entry.reason == needs


def test_an_old_version_of_an_extra_is_missing_and_a_fitting_one_is_not(install: Install) -> None:
    source = GOOD.replace("lambda o, a: None)", "lambda o, a: None, extra='big')")
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", source, EXTRA.format("pluggy>=999"))
    with pytest.raises(PluginError, match=r"needs pluggy>=999, which is not installed"):
        registry().get("agents", "good")
    install("fake-two", "[rlgan.agents]\ngood = fake_two\n", source, EXTRA.format("pluggy>=1"))
    assert Registry([e for e in discover() if e.distribution == "fake-two"]).get("agents", "good").extra == "big"


def test_an_extra_that_is_imported_at_the_top_of_a_plugin(install: Install) -> None:
    source = "import no_such_dist_x\n"
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", source, EXTRA.format("no-such-dist-x>=2"))
    with pytest.raises(PluginError) as caught:
        registry().get("agents", "good")
    pip = 'pip install "fake-good[big]"'
    assert str(caught.value) == f"agent 'good' needs no_such_dist_x, which is not installed: {pip}"


def test_an_extra_that_is_not_declared_is_a_broken_plugin(install: Install) -> None:
    source = GOOD.replace("lambda o, a: None)", "lambda o, a: None, extra='big')")
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", source)
    with pytest.raises(PluginError, match=r"it needs the extra 'big', which fake-good does not declare"):
        registry().get("agents", "good")


def test_unreadable_entry_points_and_unknown_groups_are_reported(install: Install) -> None:
    install("fake-torn", "[rlgan.agents]\nno equals sign\n")
    install("fake-odd", "[rlgan.agent]\nx = fake_odd\n", GOOD)
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", GOOD)
    known = registry()
    assert [entry.name for entry in known.names("agents")] == ["good"]
    reasons = {e.distribution: e.reason for e in known.all()}
    assert reasons["fake-torn"].startswith("its entry_points.txt cannot be read: ")
    assert reasons["fake-odd"] == (
        "its group rlgan.agent is none of rlgan.agents, rlgan.envs, rlgan.generators, rlgan.data, rlgan.rewards, "
        "rlgan.hooks"
    )


def test_a_plugin_that_prints_does_not_spoil_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("fake-good", "[rlgan.agents]\ngood = fake_good\n", "print('welcome')\n" + textwrap.dedent(GOOD))
    registry().get("agents", "good")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "welcome\n")


def test_every_built_in_is_found() -> None:
    entries = {(entry.kind, entry.name) for entry in discover() if entry.distribution == "rlgan"}
    assert {
        ("agents", "dqn"),
        ("envs", "cartpole"),
        ("envs", "mountaincar-continuous"),
        ("envs", "breakout"),
        ("envs", "gym"),
    } <= entries
