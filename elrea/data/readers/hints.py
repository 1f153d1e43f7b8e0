"""Suggestions in errors about a user's fields: overrides that work as they are printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_PLAIN = re.compile(r"[\w.-]+")
"""Names that neither Hydra nor a shell reads as anything else."""
_ASKS = ("question", "query", "problem", "instruction", "prompt", "input", "text")
_ANSWERS = (
    "answer", "solution", "response", "completion", "output", "target", "label", "reply", "correct", "gold",
    "right",
)  # fmt: skip
_CHOICES = ("option", "choice", "candidate")
"""Parts of the names that people give to questions, to responses and to choices."""


def ignoring(names: Sequence[str]) -> str:
    """The override that skips fields: data.ignore=[a,b]."""
    if all(map(_PLAIN.fullmatch, names)):
        return f"data.ignore=[{','.join(names)}]"
    return shlex.quote(f"data.ignore=[{','.join(map(_quoted, names))}]")


def mapping(role: str, name: str) -> str:
    """The override that gives a field a role: data.fields.response=solution."""
    key = f"data.fields.{role}="
    return key + name if _PLAIN.fullmatch(name) else shlex.quote(key + _quoted(name))


def for_unknown(
    names: Sequence[str],
    missing: Sequence[str],
    lists: Sequence[str] = (),
    skipped: Sequence[str] = (),
    answered: bool = False,
) -> str:
    """What to do about unknown fields.

    Args:
        names: Of the fields.
        missing: The roles, instruction and response, that no field of the row has.
        lists: Those of the fields that hold a list of texts.
        skipped: What `data.ignore` has already.
        answered: Whether the row has an `answer` already.
    """
    left = list(names)
    choices = [name for name in left if _like(name, _CHOICES)] or list(lists)
    if len(choices) == 1:  # dropping it would leave a letter without its text
        left.remove(choices[0])
        mapped = mapping("choices", choices[0])
        if not left:
            return f"map it with {mapped}"
        roles = ["answer" if role == "response" else role for role in missing]
        asks = not answered and any(_like(name, _ANSWERS) for name in left)
        if "answer" not in roles and asks:
            roles.append("answer")
        return f"{_with_roles(left, roles, skipped)} {mapped}"
    if not missing or len(missing) > len(left):
        return f"map them with data.fields or skip them with {ignoring([*skipped, *names])}"
    return _with_roles(left, missing, skipped)


def _with_roles(names: Sequence[str], roles: Sequence[str], skipped: Sequence[str]) -> str:
    """A field for each role, the likeliest first; the others are ignored."""
    left, words = list(names), []
    for role in roles[: len(left)]:
        likely = _ASKS if role == "instruction" else _ANSWERS
        other = _ANSWERS if role == "instruction" else _ASKS
        name = next(
            iter(
                [name for name in left if _like(name, likely)]
                + [name for name in left if not _like(name, other)]
                + left
            )
        )
        left.remove(name)
        words.append(mapping(role, name))
    return f"map them with {' '.join([*words, *([ignoring([*skipped, *left])] if left else [])])}"


def _like(name: str, words: Sequence[str]) -> bool:
    return any(word in name.lower() for word in words)


def _quoted(name: str) -> str:
    """A name in Hydra's quotes."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
