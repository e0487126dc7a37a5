"""Completion of the words of ``run``: keys, names, what follows a family's colon, and the values of choices.

Bash splits words at ``=`` and ``:`` and wants the last piece alone; zsh and fish give and take whole words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete, add_completion_class

from rlgan import schema
from rlgan.errors import RlganError
from rlgan.registry import Registry
from rlgan.runconfig import FAMILIES, ROLES, RunConfig

_BASH = """\
%(complete_func)s() {
    local word
    COMPREPLY=()
    while IFS= read -r word; do
        [[ $word == *[=:.] ]] && compopt -o nospace 2> /dev/null
        COMPREPLY+=("$word")
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a found
    found=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) %(complete_var)s=zsh_complete %(prog_name)s)}")
    found=(${found:#})
    compadd -U -V %(prog_name)s -- ${found:#*[=:.]}
    compadd -U -V %(prog_name)s -S '' -- ${(M)found:#*[=:.]}
}
compdef %(complete_func)s %(prog_name)s
"""
_FISH = """\
function %(complete_func)s
    COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) %(complete_var)s=fish_complete %(prog_name)s
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Plain:
    """One candidate a line; what ends in ``=``, ``:`` or ``.`` is to be gone on with, so no space follows it."""

    def format_completion(self, item: CompletionItem) -> str:
        return str(item.value)


for _shell, _template in ((BashComplete, _BASH), (ZshComplete, _ZSH), (FishComplete, _FISH)):
    add_completion_class(type(_shell.__name__, (_Plain, _shell), {"source_template": _template}))


def complete_word(words: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """The ways to go on with the last word.

    Args:
        words: the words before it. Bash hands ``agent=d`` over as ``agent``, ``=``, ``d``.
        incomplete: what is typed of it. Click turns a lone ``=`` into an empty string.
    """
    *before, whole = joined(words, incomplete)
    # what stands before the piece that is completed is there already
    done = 0 if whole == incomplete else max(whole.rfind("="), whole.rfind(":")) + 1
    return [CompletionItem(word[done:]) for word in candidates(before, whole, Registry()) if word.startswith(whole)]


def joined(words: Sequence[str], incomplete: str) -> list[str]:
    """Put together again what bash split at ``=`` and ``:``; the last word is the one that is typed."""
    pieces = [*words, incomplete]
    if not incomplete and words and words[-1] in _keys([], "", Registry()):  # a key alone is no word
        pieces[-1] = "="
    whole: list[str] = []
    open_word = False
    for piece in pieces:
        splits = piece != "" and not piece.strip("=:")
        if whole and (splits or open_word):
            whole[-1] += piece
        else:
            whole.append(piece)
        open_word = splits
    return whole


def candidates(before: Sequence[str], whole: str, registry: Registry) -> Iterable[str]:
    """Whole words that the last one may become. Imports a plugin only where the word is about its keys or names."""
    named = {key: text for key, _, text in (word.partition("=") for word in before)}
    key, equals, text = whole.partition("=")
    keys = _keys(before, whole, registry)
    if not equals:
        groups = [f"{kind}." for kind in ROLES if kind in named and not whole.startswith(f"{kind}.")]
        return [f"{name}=" for name in keys if name not in named] + groups
    rest, comma, _ = text.rpartition(",")  # the last item of a matrix
    item = text[len(rest) + len(comma) :]
    if key in ROLES:
        values = _names(key, item, registry)
    elif key == "preset":
        spec = _spec("agent" if "agent" in named else "generator", named, registry)
        values = list(dict.fromkeys(["auto", "none", *(preset.name for preset in getattr(spec, "presets", ()))]))
    else:
        values = _choices(keys[key].hint) if key in keys else []
    return [f"{key}={rest}{comma}{value}" for value in values]


def _keys(before: Sequence[str], whole: str, registry: Registry) -> dict[str, schema.Key]:
    """The keys of every run, and those of the agent or env where the word begins with its group."""
    keys = schema.keys(RunConfig)
    group = whole.partition(".")[0]
    if group in ROLES and "." in whole:
        spec = _spec(group, dict(word.split("=", 1) for word in before if "=" in word), registry)
        keys |= schema.keys(spec.config, f"{group}.") if spec else {}
    return keys


def _spec(kind: str, named: Mapping[str, str], registry: Registry) -> Any:
    """The spec that the words before name, or None: an unusable plugin has nothing to offer."""
    try:
        return registry.get(ROLES[kind], named.get(kind, "").split(",")[0].partition(":")[0])
    except RlganError:
        return None


def _names(key: str, item: str, registry: Registry) -> list[str]:
    family, colon, _ = item.partition(":")
    if colon and key in FAMILIES:
        spec = _spec(key, {key: family}, registry)
        return [f"{family}:{name}" for name in spec.members()] if spec and spec.members else []
    return [entry.name for entry in registry.names(ROLES[key]) if entry.status == "installed"]


def _choices(hint: Any) -> list[str]:
    if hint is bool:
        return ["true", "false"]
    return [schema.show(choice) for choice in get_args(hint)] if get_origin(hint) is Literal else []
