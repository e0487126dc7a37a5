"""Errors that a user can mend. Each carries one clear sentence and the exit code of the command line."""

from __future__ import annotations


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
