"""Who exists: plugins by name. Names come from package metadata; a module is imported only when a command names it."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.metadata
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlgan import envfile
from rlgan.discovery import KINDS, Entry, discover, extra_with, unmet
from rlgan.errors import PluginError, UsageError
from rlgan.hookspecs import collect
from rlgan.specs import EnvSpec, Spec, fault


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found about one entry."""

    entry: Entry
    spec: Spec | None
    seconds: float
    """Time that the import took; 0 where the module was already imported."""


@dataclass(frozen=True)
class _Module:
    specs: tuple[Spec, ...] = ()
    reason: str = ""
    extra: str | None = None
    seconds: float = 0.0


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is closest to a misspelt one, or None."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1)
    return lowered[close[0]] if close else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a misspelt name."""
    guess = nearest(word, known)
    return f": did you mean '{guess}'?" if guess else "."


class Registry:
    """Plugins by kind and name. A broken plugin costs only itself.

    Args:
        entries: the entries to know, for tests; by default those of all installed distributions.
    """

    def __init__(self, entries: Sequence[Entry] | None = None) -> None:
        self._modules: dict[str, _Module] = {}
        self._files: dict[str, Path] = {}
        self._file_specs: dict[str, EnvSpec] = {}
        self._strict = os.environ.get("RLGAN_STRICT") == "1"
        blocked = {word.strip() for word in os.environ.get("RLGAN_BLOCK", "").split(",") if word.strip()}
        for word in blocked:
            if word.partition(".")[0] not in KINDS or "." not in word:
                raise UsageError(f"RLGAN_BLOCK={word}: write KIND.NAME, with KIND one of {', '.join(KINDS)}.")
        self._entries = [_judge(entry, blocked) for entry in (discover() if entries is None else entries)]
        self._entries.sort(key=lambda entry: (entry.kind, entry.name, entry.distribution))
        self._entries = [self._marked_duplicate(entry) for entry in self._entries]

    def all(self) -> list[Entry]:
        """Every entry of every kind, also of those that are unusable."""
        return list(self._entries)

    def names(self, kind: str) -> list[Entry]:
        """The entries of one kind, by name. Imports nothing."""
        return [entry for entry in self._entries if entry.kind == kind]

    def allow(self, name: str, path: Path) -> None:
        """Let ``env=name`` run the Python file at ``path``: the owner has named it. No file runs without."""
        self._files[name] = path

    def find(self, kind: str, name: str) -> Entry:
        """The entry of that name, without importing it.

        Raises:
            UsageError: the name is unknown or blocked, or a file that nobody allowed or that is not there.
            PluginError: two distributions offer the name.
        """
        if kind == "envs" and envfile.is_file(name):
            return self._find_file(name)
        entries = [entry for entry in self.names(kind) if entry.name == name]
        for entry in entries:
            if entry.status == "duplicate":
                raise PluginError(f"{KINDS[kind]} '{name}' {entry.reason}.")
        usable = [entry for entry in entries if entry.status != "blocked"]
        if usable:
            return usable[0]
        if entries:
            raise UsageError(f"{KINDS[kind]} '{name}' is blocked: take it out of RLGAN_BLOCK to use it.")
        raise UsageError(self._unknown(kind, name))

    def get(self, kind: str, name: str) -> Spec:
        """The spec of that name; imports its module.

        Raises:
            UsageError: the name is unknown or blocked.
            PluginError: the plugin is broken, duplicated, of another API version, or misses its extra.
        """
        entry = self.find(kind, name)
        spec, status, reason = self._resolve(entry)
        if status == "extra missing":
            raise PluginError(f"{KINDS[kind]} '{name}' {reason}")
        if spec is None:
            raise PluginError(f"{entry} is broken: {reason}. See `rlgan plugins doctor`.")
        return spec

    def get_named(self, kind: str, text: str) -> tuple[Spec, str]:
        """The spec and the argument of ``env=text``: ``atari:pong`` gives ``(spec of atari, "pong")``."""
        if kind == "envs" and text in self._files:
            if text not in self._file_specs:
                self._file_specs[text] = envfile.load(self._files[text], text)
            return self._file_specs[text], ""
        name, colon, argument = text.partition(":")
        spec, noun, role = self.get(kind, name), KINDS[kind], kind.removesuffix("s")
        if spec.family and not argument:
            raise UsageError(f"{noun} '{name}' is a family: write {role}={name}:NAME.")
        if colon and not spec.family:
            raise UsageError(f"{noun} '{name}' takes nothing after a colon: write {role}={name}.")
        return spec, argument

    def locate(self, text: str) -> tuple[str, str]:
        """The kind and name of ``envs.cartpole``, or of ``cartpole`` where one kind alone has that name.

        Raises:
            UsageError: no kind has the name, or more than one.
        """
        kind, dot, name = text.partition(".")
        if dot and kind in KINDS:
            self.find(kind, name.partition(":")[0])
            return kind, name
        plain = text.partition(":")[0]
        kinds = sorted({entry.kind for entry in self._entries if entry.name == plain and entry.kind in KINDS})
        if len(kinds) == 1:
            self.find(kinds[0], plain)
            return kinds[0], text
        if kinds:
            raise UsageError(f"'{text}' names several plugins: write {' or '.join(f'{k}.{text}' for k in kinds)}.")
        known = [entry.name for entry in self._entries if entry.status == "installed"]
        raise UsageError(f"no plugin is named '{text}'{suggestion(plain, known)} See `rlgan list`.")

    def doctor(self, kind: str | None = None) -> list[Diagnosis]:
        """Import every plugin (of one kind), each on its own, and say how each is."""
        results = []
        for entry in self._entries if kind is None else self.names(kind):
            if entry.status != "installed":
                results.append(Diagnosis(entry, None, 0.0))
                continue
            seconds = 0.0 if entry.module in self._modules else self._load(entry).seconds
            spec, status, reason = self._resolve(entry)
            results.append(Diagnosis(dataclasses.replace(entry, status=status, reason=reason), spec, seconds))
        return results

    def _find_file(self, name: str) -> Entry:
        if name not in self._files:
            raise UsageError(
                f"env={name} is a file, and a config file alone may not choose code to run: "
                f"write env={name} among the words too, if you trust it."
            )
        if not self._files[name].is_file():
            raise UsageError(f"env={name}: there is no such file.")
        return Entry(name, "envs", "a file", "", str(self._files[name]))

    def _marked_duplicate(self, entry: Entry) -> Entry:
        owners = [e for e in self._entries if (e.kind, e.name) == (entry.kind, entry.name) and e.status != "blocked"]
        if len(owners) < 2 or entry.status != "installed":
            return entry
        block = f"{entry.kind}.{entry.name}@{owners[-1].distribution}"
        reason = (
            f"is offered by both {' and '.join(owner.distribution for owner in owners)}: "
            f"uninstall one of them, or set RLGAN_BLOCK={block}"
        )
        return dataclasses.replace(entry, status="duplicate", reason=reason)

    def _unknown(self, kind: str, name: str) -> str:
        known = [entry.name for entry in self.names(kind) if entry.status == "installed"]
        return f"unknown {KINDS[kind]} '{name}'{suggestion(name, known)} Installed: {', '.join(known) or 'none'}."

    def _resolve(self, entry: Entry) -> tuple[Spec | None, str, str]:
        """The entry's spec or None, its status, and the reason where that is not ``ok``."""
        module = self._load(entry)
        if module.reason:
            return None, "extra missing" if module.extra else "broken", module.reason
        matching = [spec for spec in module.specs if (spec.kind, spec.name) == (entry.kind, entry.name)]
        if len(matching) != 1:
            offered = ", ".join(f"{spec.kind}.{spec.name}" for spec in module.specs) or "nothing"
            many = "more than one" if matching else "no"
            return None, "broken", f"{entry.module} yields {many} spec {entry.kind}.{entry.name} (it yields {offered})"
        spec = matching[0]
        if reason := fault(spec):
            return None, "broken", reason
        if spec.extra:
            missing = unmet(entry.distribution, spec.extra)
            if missing is None:
                return None, "broken", f"it needs the extra '{spec.extra}', which {entry.distribution} does not declare"
            if missing:
                return None, "extra missing", _needs(entry, ", ".join(missing), spec.extra)
        return spec, "ok", ""

    def _load(self, entry: Entry) -> _Module:
        if entry.module not in self._modules:
            began = time.perf_counter()
            specs: tuple[Spec, ...] = ()
            reason, extra = "", None
            try:
                with contextlib.redirect_stdout(sys.stderr):  # a plugin that prints must not spoil --json
                    specs = _specs(entry.module)
            except (Exception, SystemExit) as error:
                if self._strict:
                    raise
                reason, extra = _reason(error, entry)
            self._modules[entry.module] = _Module(specs, reason, extra, time.perf_counter() - began)
        return self._modules[entry.module]


def _reason(error: BaseException, entry: Entry) -> tuple[str, str | None]:
    """Why an import failed, and the extra that would mend it, if one would."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = extra_with(entry.distribution, error.name.partition(".")[0])
        if extra:
            return _needs(entry, error.name, extra), extra
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}", None


def _needs(entry: Entry, what: str, extra: str) -> str:
    return f'needs {what}, which is not installed: pip install "{entry.distribution}[{extra}]"'


def _judge(entry: Entry, blocked: set[str]) -> Entry:
    if entry.kind not in KINDS and entry.status == "installed":
        reason = f"its group rlgan.{entry.kind} is none of {', '.join('rlgan.' + kind for kind in KINDS)}"
        return dataclasses.replace(entry, status="broken", reason=reason)
    word = f"{entry.kind}.{entry.name}"
    if word in blocked or f"{word}@{entry.distribution}" in blocked:
        return dataclasses.replace(entry, status="blocked", reason="named in RLGAN_BLOCK")
    return entry


def _specs(module: str) -> tuple[Spec, ...]:
    """Import one module and collect what its hook yields; raises whatever the plugin raises."""
    plugin = importlib.metadata.EntryPoint("plugin", module, "rlgan").load()
    return collect(plugin, module)
