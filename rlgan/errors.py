"""Errors that a user can mend. Each carries one clear sentence and the exit code of the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


class RlganError(Exception):
    """Base of all errors that are shown as a sentence, without a traceback."""

    exit_code = 1


class UsageError(RlganError):
    """What was asked for cannot be done: unknown name, wrong key or value, unreadable run."""

    exit_code = 2


class PluginError(RlganError):
    """A plugin is broken, missing an extra, or made for another version of the contract."""

    exit_code = 3


class ConformanceError(PluginError, AssertionError):
    """A plugin breaks the contract: what `rlgan.testing` found, as one sentence."""


class EnvError(RlganError):
    """An environment raised, hung, or broke its contract."""

    exit_code = 4


class NonFiniteError(RlganError):
    """A loss, metric or parameter became NaN or infinite."""

    exit_code = 5


def guarded(kind: type[RlganError], who: str, when: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what a plugin's author wrote; what it raises becomes one sentence of a kind: ``who`` raised it ``when``."""
    try:
        return function(*arguments)
    except RlganError:
        raise
    except Exception as error:
        raise kind(f"{who} raised {type(error).__name__} {when}: {error}") from error


def divisor_near(number: int, size: int) -> int:
    """What to write for a size that should divide a number: the nearest that does, the larger of two; 1 for 1 alone."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return min({*small, *(number // d for d in small)} - {1} or {1}, key=lambda d: (abs(d - size), -d))
