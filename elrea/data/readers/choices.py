"""Reads the choices of a row and its answer: an index (from 0), a letter or the text of a choice."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from contextlib import suppress

from elrea.data.readers.formats import BadRow
from elrea.data.readers.turns import encodable


def choices_of(given: object, where: str) -> tuple[str, ...]:
    """The choices; empty if there are none.

    Args:
        given: a list of texts, or such a list as JSON in a cell of a table.
        where: the row's place, for the messages.

    Raises:
        BadRow: not 2 to 26 different texts.
    """
    if given is None or given == "":
        return ()
    if isinstance(given, str) and given.lstrip().startswith("["):  # a cell of a CSV
        with suppress(ValueError):
            given = json.loads(given)
    if not isinstance(given, list) or not all(isinstance(choice, str) for choice in given):
        raise BadRow(where, "choices must be a list of texts")
    choices = tuple(encodable(choice, where).strip() for choice in given)
    if not 2 <= len(set(choices)) == len(choices) <= 26 or "" in choices:
        raise BadRow(where, "choices must be 2 to 26 different texts that are not empty")
    return choices


def is_list(value: object) -> bool:
    """Whether a value could be choices: a list of texts."""
    try:
        return len(choices_of(value, "")) > 1
    except BadRow:
        return False


def answer_of(answer: object, choices: Sequence[str], name: str, is_cell: bool, where: str) -> str:
    """The right choice.

    Args:
        answer: an index from 0, a letter or a choice's text. None is an error.
        choices: the texts.
        name: what the row calls the answer.
        is_cell: whether the row is a table's, which has no numbers: "1" may be an index or a text there.
        where: the row's place, for the messages.

    Raises:
        BadRow: none of the choices, or two of them.
    """
    if answer is None:
        raise BadRow(where, f"choices without a field {name!r}; add it")
    letters = string.ascii_uppercase[: len(choices)]
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(choices):
            return choices[answer]
    elif isinstance(answer, str):
        text = answer.strip()
        by_letter = choices[letters.index(text)] if text and text in list(letters) else None
        is_index = (
            text.isdecimal() and len(text) < 3 and int(text) < len(choices)
        )  # a cell of a CSV
        by_index = choices[int(text)] if is_index else None
        if text in choices and by_letter not in (None, text):
            raise _ambiguous(text, "letter", "an index from 0", where)
        if text in choices and is_cell and by_index not in (None, text):
            raise _ambiguous(text, "index from 0", "a letter", where)
        found = text if text in choices else by_letter or by_index
        if found is not None:
            return found
    else:
        raise BadRow(
            where,
            f"the {name} must be an index from 0, a letter or a choice's text, not "
            f"{json.dumps(answer, default=str)[:40]}",
            "the answer has the wrong type",
        )
    raise BadRow(
        where,
        f"the answer {answer!r} is not one of the {len(choices)} choices; give an index from 0, a letter from A to"
        f" {letters[-1]}, or the text of a choice",
        "the answer is not one of the choices",
    )


def _ambiguous(text: str, other: str, hint: str, where: str) -> BadRow:
    kind = f"the text of one choice and the {other} of another"
    return BadRow(where, f"the answer {text!r} is {kind}; give {hint}", f"the answer is {kind}")
