"""An env from one Python file: ``env=./shop.py``. Its run keeps a copy, and comes back from that copy alone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

from rlgan.errors import PluginError, UsageError
from rlgan.hookspecs import collect
from rlgan.specs import EnvSpec, NoConfig, fault

KEPT, HASH = "env.py", "env.py.sha256"
"""The copy in a run directory, and its hash as ``sha256sum`` writes and checks it."""
METHODS = ("reset", "observe", "step")


def is_file(name: str) -> bool:
    """Whether ``env=name`` means a file."""
    return name.endswith(".py")


def load(path: Path, name: str) -> EnvSpec:
    """Run the file and return the one env that it defines, under ``name``.

    Where the file has a hook ``rlgan_specs``, the env is what that yields. Else it is the file's one public class with
    ``reset``, ``observe`` and ``step``; its settings are the dataclass that annotates the first parameter of its
    ``__init__(self, config, device, dtype)``, and without an annotation it has none.

    Raises:
        UsageError: the file cannot be read.
        PluginError: it raises, or defines no env, or several, or one that cannot be made from its settings.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"env={name}: the file cannot be read: {error.strerror}.") from None
    module = _execute(source, path, name)
    spec = _hooked(module, path, name) if hasattr(module, "rlgan_specs") else _defined(module, name)
    if reason := fault(spec):
        raise PluginError(f"env={name}: {reason}.")
    return dataclasses.replace(spec, name=name, source=source)


def keep(source: bytes, folder: Path) -> None:
    """Put the file that was run, and its hash, into a run directory."""
    (folder / KEPT).write_bytes(source)
    (folder / HASH).write_text(f"{digest(source)}  {KEPT}\n", encoding="utf-8")


def kept(folder: Path) -> Path:
    """The copy in a run directory, if it is what the run began with.

    Raises:
        UsageError: the copy or its hash is gone, or they differ.
    """
    try:
        source, wanted = (folder / KEPT).read_bytes(), (folder / HASH).read_text(encoding="utf-8").split()[:1]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{folder} has lost the env file of its run ({error}): put {KEPT} and {HASH} back, or start the run anew"
        ) from None
    if wanted != [digest(source)]:
        raise UsageError(
            f"{folder / KEPT} is not the env file that its run began with: it does not match the sha256 in {HASH}; "
            "put the old one back, or start a new run with the changed one"
        )
    return folder / KEPT


def digest(source: bytes) -> str:
    """The sha256 of a file's content, in hex."""
    return hashlib.sha256(source).hexdigest()


def _execute(source: bytes, path: Path, name: str) -> ModuleType:
    """Run exactly these bytes as a module; nothing is cached beside the file."""
    module = ModuleType(f"rlgan_env_file_{digest(source)[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses, type hints and source lookups ask there
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a file that prints must not spoil --json
            exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _raised(error, path, name) from error
    return module


def _raised(error: BaseException, path: Path, name: str) -> PluginError:
    """The sentence for what the file raised, with its line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    said = str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines, said = [error.lineno], error.msg
    where = f" at line {lines[-1]}" if lines else ""
    return PluginError(f"env={name} raised {type(error).__name__}{where}: {(said.splitlines() or ['no message'])[0]}")


def _hooked(module: ModuleType, path: Path, name: str) -> EnvSpec:
    try:
        specs = collect(module, name)
    except PluginError:
        raise
    except Exception as error:
        raise _raised(error, path, name) from error
    if len(specs) != 1 or not isinstance(specs[0], EnvSpec) or specs[0].family:
        offered = ", ".join(f"{spec.kind}.{spec.name}" for spec in specs) or "nothing"
        raise PluginError(f"env={name} must yield one EnvSpec that is no family from rlgan_specs; it yields {offered}.")
    return specs[0]


def _defined(module: ModuleType, name: str) -> EnvSpec:
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    classes = {value.__name__: value for value in own if isinstance(value, type) and not value.__name__.startswith("_")}
    envs = {key: cls for key, cls in classes.items() if all(callable(getattr(cls, m, None)) for m in METHODS)}
    if len(envs) != 1:
        found = f"defines {len(envs)} envs, {' and '.join(envs)}" if envs else "defines no env"
        rule = f"one class with {', '.join(METHODS)} (a name that begins with _ does not count)"
        raise PluginError(f"env={name} {found}: the file must define {rule}.")
    (title, cls), *_ = envs.items()
    summary = (inspect.getdoc(cls) or title).splitlines()[0]
    return EnvSpec(name, cls, _config(cls, title, name), summary)


def _config(cls: type, title: str, name: str) -> type:
    """The annotation of the first parameter of the class, or `NoConfig`."""
    try:
        signature = inspect.signature(cls)
        signature.bind(None, None, None)
    except TypeError:
        raise PluginError(f"env={name}: {title} must be made as {title}(config, device, dtype).") from None
    first = next(iter(signature.parameters.values()))
    if first.annotation is first.empty:
        return NoConfig
    try:
        config = get_type_hints(cls.__init__)[first.name]  # type: ignore[misc]
    except NameError as error:
        raise PluginError(f"env={name}: the annotations of {title}.__init__ cannot be read: {error}.") from None
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise PluginError(f"env={name}: {title} takes its {first.name} as {config!r}, which is not a dataclass.")
    return config
