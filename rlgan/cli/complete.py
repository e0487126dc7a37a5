"""Completion of ``agent=``, ``env=`` and their like, whether or not the shell splits words at ``=``."""

from __future__ import annotations

from collections.abc import Sequence

from click.shell_completion import CompletionItem


def complete_word(words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """The ways to go on with the last word.

    Args:
        words: the whole words before it. Bash hands ``agent=d`` over as ``agent``, ``=``, ``d``.
        incomplete: what is typed of it. Click turns a lone ``=`` into an empty string.
    """
    from rlgan.registry import Registry
    from rlgan.runconfig import ROLES

    before = [word for word in words if word != "="]
    key, equals, part = incomplete.partition("=")
    prefix = f"{key}=" if equals else ""
    if not equals:
        key, part = (before[-1] if before else ""), incomplete
    done, comma, part = part.rpartition(",")  # the last item of a matrix
    names = [entry.name for entry in Registry().names(ROLES.get(key, "")) if entry.status == "installed"]
    return [CompletionItem(f"{prefix}{done}{comma}{name}") for name in names if name.startswith(part)]
