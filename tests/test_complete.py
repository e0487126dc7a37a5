"""Completion: candidates for words as each shell hands them over, and what real shells make of them at a terminal."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from rlgan.cli import complete
from rlgan.discovery import Entry

DQN = ["agent=dqn", "env=cartpole"]


def values(words: list[str], incomplete: str) -> list[str]:
    return [item.value for item in complete.complete_word(words, incomplete)]


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Entry(name, kind, "f", "1", "m") for name, kind in (("dqn", "agents"), ("dsac", "agents"), ("pong", "envs"))
    ]
    monkeypatch.setattr("rlgan.registry.discover", lambda: found)


@pytest.mark.usefixtures("entries")
def test_names() -> None:
    assert values([], "agent=d") == ["agent=dqn", "agent=dsac"]
    assert values(["agent", "="], "dq") == ["dqn"]
    assert values(["agent=dqn"], "env=") == ["env=pong"]
    assert values(["agent=dqn", "env"], "") == ["pong"]
    assert values([], "agent=dqn,ds") == ["agent=dqn,dsac"]
    assert values(["agent", "="], "dqn,ds") == ["dqn,dsac"]


def test_what_follows_a_familys_colon() -> None:
    pytest.importorskip("ale_py")
    assert values([], "env=atari:pon") == ["env=atari:pong"]
    assert values(["agent", "=", "dqn", "env", "=", "atari", ":"], "pon") == ["pong"]
    assert {"pong", "breakout"} <= set(values(["env", "=", "atari"], ":"))
    assert values([], "env=gym:CartPole-v") == ["env=gym:CartPole-v0", "env=gym:CartPole-v1"]
    assert values([], "env=cartpole:x") == values([], "env=nothing:x") == []


def test_keys() -> None:
    assert values(DQN, "ste") == ["steps="]
    assert values(DQN, "agent.l") == ["agent.lr=", "agent.lr_end=", "agent.learning_starts=", "agent.loss="]
    assert values(["agent", "=", "dqn"], "agent.lea") == ["agent.learning_starts="]
    assert values(DQN, "env.m") == ["env.max_steps="]
    assert values(DQN, "age") == ["agent."] and values([], "age") == ["agent="]
    assert values(["seed=1"], "se") == [], "a key that is given is not offered again"
    assert values([], "agent.l") == values(["agent=nothing"], "agent.l") == []


def test_values_of_choices() -> None:
    assert values([], "capture=e") == ["capture=eager"]
    assert values(DQN, "agent.loss=") == ["agent.loss=huber", "agent.loss=mse"]
    assert values(["deterministic"], "") == ["true", "false"]
    assert values(DQN, "preset=cartpole-") == ["preset=cartpole-zoo"]
    assert values(DQN, "steps=") == []


def test_what_bash_split_is_joined() -> None:
    assert complete.joined(["env", "=", "atari", ":", "pong", "seed", "="], "1") == ["env=atari:pong", "seed=1"]
    assert complete.joined(["env=atari:pong"], "se") == ["env=atari:pong", "se"]
    assert complete.joined(["seed"], "") == ["seed="]
    assert complete.joined(["seed=1"], "") == ["seed=1", ""]


# --- real shells ---

START = {
    "bash": (["--norc", "--noprofile", "-i"], "PS1='READY> '; bind 'set show-all-if-ambiguous on'; eval \"$(SOURCE)\""),
    "zsh": (
        ["-f", "-i"],
        "PS1='READY> '; unsetopt listambiguous; autoload -U compinit; compinit -u -D; eval \"$(SOURCE)\"",
    ),
    "fish": (["--no-config", "-i"], "function fish_prompt; echo -n 'READY> '; end; SOURCE | source"),
}
"""For each shell its arguments, and what loads the completion as docs/cli.md says."""


class Terminal:
    """A shell at a terminal of its own. ``rlgan`` completes as the real one, and otherwise writes down its words."""

    def __init__(self, shell: str, folder: Path) -> None:
        self.result, self.calls = folder / "result", folder / "calls"
        script = folder / "rlgan"
        script.write_text(
            "#!/bin/sh\n"
            f'if [ -z "$_RLGAN_COMPLETE" ]; then printf "%s\\n" "$@" > "{self.result}.new"; '
            f'mv "{self.result}.new" "{self.result}"; exit; fi\n'
            f'"{sys.executable}" -m rlgan "$@"; echo >> "{self.calls}"\n'
        )
        script.chmod(0o755)
        arguments, source = START[shell]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            keep = {key: value for key, value in os.environ.items() if not key.startswith(("COMP_", "_RLGAN"))}
            own = {"PATH": f"{folder}:{os.environ['PATH']}", "TERM": "xterm", "HOME": str(folder), "COLUMNS": "200"}
            os.execvpe(shell, [shell, *arguments], keep | own)
        self.seen = ""
        self.send(source.replace("SOURCE", f"_RLGAN_COMPLETE={shell}_source rlgan") + "\n")
        self.wait(lambda: self.calls.exists() and "READY> " in self.seen.rpartition("source")[2])
        self.quiet()

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def read(self, seconds: float) -> bool:
        if not select.select([self.fd], [], [], seconds)[0]:
            return False
        data = os.read(self.fd, 65536).decode(errors="replace")
        # fish asks the terminal who it is, and waits for the answer
        if "\x1b[c" in data or "\x1b[0c" in data:
            self.send("\x1b[?1;2c")
        self.seen += data
        return True

    def wait(self, done: Callable[[], bool], limit: float = 60) -> None:
        end = time.monotonic() + limit
        while not done():
            assert time.monotonic() < end, self.seen
            self.read(0.05)

    def quiet(self, seconds: float = 0.4) -> None:
        while self.read(seconds):
            pass

    def tab(self, text: str) -> str:
        """Type a text and TAB, and return what the terminal then shows."""
        self.seen, before = "", self.calls.stat().st_size
        self.send(f"{text}\t")
        self.wait(lambda: self.calls.stat().st_size > before)
        self.quiet()
        return self.seen

    def offered(self, text: str) -> str:
        """What is shown for a word that can be completed in several ways; the line is given up after."""
        shown = self.tab(text)
        for _ in range(2):  # fish closes its list first
            self.send("\x03")
            self.quiet()
        return shown

    def words(self) -> list[str]:
        """Press Enter: the words that the program is called with."""
        self.result.unlink(missing_ok=True)
        self.send("\r")
        self.wait(self.result.exists)
        self.quiet()
        return self.result.read_text().splitlines()

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.mark.parametrize("shell", START)
def test_a_real_shell_at_a_terminal(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        absent = f"NOT TESTED: {shell} is not installed, so nothing is known of completion in it"
        warnings.warn(absent, stacklevel=1)  # pytest shows warnings always, reasons of skips only when asked
        pytest.skip(absent)
    pytest.importorskip("ale_py")
    terminal = Terminal(shell, tmp_path)
    try:
        terminal.tab("rlgan run agent=dq")
        terminal.tab("env=atari:pon")
        # a key is not followed by a space, a finished word is
        terminal.tab("agent.lea")
        terminal.send("5 ")
        terminal.tab("see")
        terminal.send("1,2")
        assert terminal.words() == ["run", "agent=dqn", "env=atari:pong", "agent.learning_starts=5", "seed=1,2"]
        shown = terminal.offered("rlgan run agent=dqn env=atari:spa")
        assert "space_invaders" in shown and "space_war" in shown
        shown = terminal.offered("rlgan run agent=dqn agent.l")
        assert all(key in shown for key in ("lr_end=", "learning_starts=", "loss="))
        shown = terminal.offered("rlgan run env=")
        assert "cartpole" in shown and "breakout" in shown
    finally:
        terminal.close()
