"""Dataclasses as settings: their dotted keys, and the conversion and judgement of one value by its field's type."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import re
import textwrap
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rlgan.errors import UsageError
from rlgan.overrides import RANGE, split_commas

_SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NONES = ("none", "null")
_REASONS = {
    "bool_type": "is neither true nor false",
    "finite_number": "is not finite",
    "float_type": "is not a number",
    "int_type": "is not a whole number",
    "literal_error": "is not one of them",
    "predicate_failed": "is not allowed",
    "string_type": "is not text (quote it in the file)",
    "tuple_type": "is not a list",
}
_NOUNS = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}


@dataclass(frozen=True)
class Key:
    """One setting."""

    name: str
    """Dotted, as on the command line."""
    hint: Any
    """The field's type, with its Annotated constraints."""
    default: Any
    """``dataclasses.MISSING`` where a value must be given."""
    owner: Any = object
    """The dataclass that has the field."""

    @property
    def doc(self) -> str:
        """What it means; read from the source where it is shown, and not at every start."""
        return field_docs(self.owner).get(self.name.rpartition(".")[2], "")

    @property
    def type(self) -> str:
        """What values it takes, in words."""
        return describe(self.hint)

    @property
    def brief(self) -> str:
        """Its type and default, in words."""
        return self.type if self.default is MISSING else f"{self.type}, default {show(self.default)}"


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field, in one line; empty for classes whose source is not on disk."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except OSError:
            continue
        assert isinstance(body, ast.ClassDef)
        for pair in pairwise(body.body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs


def keys(cls: type, prefix: str = "") -> dict[str, Key]:
    """Every setting of a dataclass and of the dataclasses nested in it, by dotted name."""
    hints = get_type_hints(cls, include_extras=True)
    found: dict[str, Key] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        name, hint, default = prefix + field.name, hints[field.name], field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if not dataclasses.is_dataclass(hint):
            found[name] = Key(name, hint, default, cls)
            continue
        for inner in keys(hint, name + ".").values():  # type: ignore[arg-type]
            value = inner.default
            if default is not MISSING:
                value = default
                for part in inner.name.removeprefix(name + ".").split("."):
                    value = getattr(value, part)
            found[inner.name] = dataclasses.replace(inner, default=value)
    return found


def build(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Make the dataclass from a value for each of its dotted keys."""
    hints: dict[str, Any] = get_type_hints(cls)
    kwargs = {}
    for field in dataclasses.fields(cls):
        if field.init:
            name, hint = prefix + field.name, hints[field.name]
            nested = isinstance(hint, type) and dataclasses.is_dataclass(hint)
            kwargs[field.name] = build(hint, values, name + ".") if nested else values[name]
    return cls(**kwargs)


def show(value: Any) -> str:
    """A value as one would type it: `convert` reads it back."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(show, value)) + "]"
    text = str(value)
    if text == "":
        return '""'
    return text if _reads_as_itself(text) else "'" + text.replace("'", "''") + "'"


def _reads_as_itself(text: str) -> bool:
    """Whether the grammar gives text no meaning: no list, matrix, range, none or quotes, no space to be stripped."""
    marked = re.search(r"[\[\],'\"]", text) or RANGE.fullmatch(text) or text.lower() in _NONES
    return not marked and text == text.strip()


def describe(hint: Any) -> str:
    """What values a type takes, in words: ``whole number >= 1``."""
    if get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if hasattr(mark, "func"):  # annotated_types.Predicate: its docstring says what it takes
                return (mark.func.__doc__ or mark.func.__name__).splitlines()[0]
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        bounds = [
            f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}"
            for mark in hint.__metadata__
            for name, sign in signs.items()
            if (bound := getattr(mark, name, None)) is not None
        ]
        return f"{describe(hint.__origin__)} {' and '.join(bounds)}".rstrip()
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(show, args))
    if origin in (Union, types.UnionType):
        return " or ".join("none" if arg is type(None) else describe(arg) for arg in args)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"list [{', '.join(map(describe, args))}]"
    if origin in (tuple, list):
        return f"list [{describe(args[0])}, ...]"
    return str(_NOUNS.get(hint) or getattr(hint, "__name__", hint))


def convert(value: Any, hint: Any, typed: bool = False) -> Any:
    """Turn text (or, with ``typed``, what a YAML file or a preset holds) into a value of the type.

    Raises:
        ValueError: a phrase that says why not. Bounds are judged by `judge`.
    """
    hint = hint.__origin__ if get_origin(hint) is Annotated else hint
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, typed)
    if typed and isinstance(value, (list, tuple)) and origin in (tuple, list):
        return _convert_items(list(value), origin, args, typed)
    if not isinstance(value, str):
        if hint is int and isinstance(value, float) and value.is_integer():
            return int(value)
        return value
    if typed and hint is str:
        return value
    if not typed and len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1].replace(2 * value[0], value[0])
    if origin is Literal:
        for choice in args:
            if value == str(choice) or value == show(choice):
                return choice
        raise ValueError("is not one of them")
    if origin in (tuple, list):
        if not (value.startswith("[") and value.endswith("]")):
            raise ValueError("is not a list, which is written [A,B]")
        inner = value[1:-1].strip()
        return _convert_items([i.strip() for i in split_commas(inner)] if inner else [], origin, args, typed)
    if hint is bool:
        if value.lower() not in _BOOLS:
            raise ValueError("is neither true nor false")
        return _BOOLS[value.lower()]
    if hint in (int, float):
        return _number(value, hint)
    return Path(value).expanduser() if hint is Path else value


def _convert_union(value: Any, args: tuple[Any, ...], typed: bool) -> Any:
    if type(None) in args and (value is None or (isinstance(value, str) and value.lower() in _NONES)):
        return None
    reason = "is none of them"
    for arg in sorted((arg for arg in args if arg is not type(None)), key=lambda arg: arg is str):  # text takes all
        try:
            return convert(value, arg, typed)
        except ValueError as error:
            reason = str(error)
    raise ValueError(reason)


def _convert_items(items: list[Any], origin: Any, args: tuple[Any, ...], typed: bool) -> Any:
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(items) != len(args):
            raise ValueError(f"has {len(items)} entries, not {len(args)}")
        return tuple(convert(item, arg, typed) for item, arg in zip(items, args, strict=True))
    return origin(convert(item, args[0], typed) for item in items)


def _number(text: str, kind: type) -> int | float:
    """``1e6``, ``10M``, ``5k``, ``1_000_000``, ``0.5``."""
    match = re.fullmatch(r"(.*?\d_?\.?)([kKMGB])", text)
    digits, factor = (match[1], _SUFFIXES[match[2]]) if match else (text, 1)
    try:
        return int(digits) * factor if kind is int else float(digits) * factor
    except ValueError:
        pass
    try:
        value = float(digits) * factor
    except ValueError:
        raise ValueError(f"is not a {_NOUNS[kind]}") from None
    if not math.isfinite(value):
        raise ValueError("is not finite")
    if not value.is_integer():
        raise ValueError("is not a whole number")
    return int(value)


def judge(value: Any, hint: Any) -> Any:
    """Check type and bounds strictly; numbers must be finite unless the field says ``pydantic.AllowInfNan()``.

    Raises:
        ValueError: a phrase that says why not.
    """
    # names, which are all that most mistakes need, do without a library whose import takes a third of a start
    if type(value) is str and value.isascii() and hint in (str, str | None):
        return value
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    settings = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    try:
        sound = TypeAdapter(hint, config=settings).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        said = _REASONS.get(first["type"]) or first["msg"].replace("Input should be", "must be")
        raise ValueError(said) from None
    if isinstance(sound, int) and abs(sound) >= 2**63:
        raise ValueError("is more than 64 bits hold")
    return sound


def read(key: Key, value: Any, typed: bool = False, origin: str = "") -> Any:
    """Convert and judge one value; ``origin`` is said where it is not the command line.

    Raises:
        UsageError: a sentence that names the key, the value, its origin, what is wrong and what the key takes.
    """
    try:
        return judge(convert(value, key.hint, typed), key.hint)
    except (ValueError, UsageError) as error:
        where = f" ({origin})" if origin else ""
        said = show(value) if typed or value == "" else value
        raise UsageError(f"{key.name}={said}{where}: {error}; {key.name} takes {key.brief}.") from None
