"""Reads the choices of a row, in one field or in a column each, and its answer: an index, a letter or a text."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from elrea.data.readers.formats import BadRow
from elrea.data.readers.turns import encodable
from elrea.errors import DataError

JOINED = "choices"
"""The field that stands for the columns of the choices."""


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


_NUMBERED = re.compile(r"(.*?)(\d+|[A-Za-z])")
"""The name of a column with a number or a letter at its end."""


def columns_of(
    fields: Mapping[str, str | Sequence[str] | None],
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Role -> the field's name of all roles that have one, and the columns of the choices.

    Where the choices have columns, their role has the name that `joined` gives them.

    Raises:
        DataError: a list for another role, one of fewer than two columns, or a column with another role.
    """
    names: dict[str, str] = {}
    columns: tuple[str, ...] = ()
    for role, name in fields.items():
        if isinstance(name, str):
            names[role] = name
        elif name is not None:
            columns = tuple(map(str, name))
            if role != "choices":
                raise DataError(
                    f"data.fields.{role}={[*columns]}: give one name; only choices may be a list"
                )
            names[role] = JOINED
    if columns and len(set(columns)) < max(2, len(columns)):
        raise DataError(f"data.fields.choices={[*columns]}: give at least two columns, each once")
    if twice := {*columns} & {*names.values()}:
        raise DataError(
            f"data.fields: {sorted(twice)[0]!r} is one of the choices and has another role; where one column is always"
            " the right choice, write the choices as one list in a field 'choices', in random order"
        )
    return names, columns


def joined(row: Mapping[str, Any], columns: Sequence[str], where: str) -> Mapping[str, Any]:
    """The row with the texts of these columns as one list, `JOINED`; the row itself if it has none of the columns.

    Empty columns at the end are left out: some questions have fewer choices.

    Raises:
        BadRow: the row has a field of the list's name as well.
    """
    if not {*columns} & row.keys():
        return row
    texts = [row.get(name) for name in columns]
    while texts and texts[-1] in (None, ""):
        texts.pop()
    rest = {name: value for name, value in row.items() if name not in columns}
    if rest.get(JOINED) is not None:
        problem = f"both a field {JOINED!r} and the choices' columns {', '.join(columns)}"
        raise BadRow(where, f"{problem}; remove one of them")
    return {**rest, JOINED: texts or None}


def column_of(answer: object, columns: Sequence[str], choices: Sequence[str], where: str) -> object:
    """The index of the column that an answer names, by its whole name or its end; the answer itself if it names none.

    "B" and "option_b" name the second column of option_a, option_b; 1 and "1" the first one of option1, option2.

    Raises:
        BadRow: the answer is also the text of another choice, or a number where the columns have other numbers.
    """
    if not columns or isinstance(answer, bool) or not isinstance(answer, int | str):
        return answer
    parts = [_NUMBERED.fullmatch(name) for name in columns]
    alike = len({part[1] if part else "" for part in parts}) == 1
    ends = [part[2].lower() for part in parts if part and alike]
    numbered = bool(ends) and all(end.isdecimal() for end in ends)
    text = str(answer).strip()
    if isinstance(answer, int) and not numbered:
        return answer
    if text in columns:
        index = columns.index(text)
    elif text.lower() in ends:
        index = ends.index(text.lower())
    elif numbered and text.isdecimal() and text not in choices:
        names = f"{columns[0]} to {columns[-1]}"
        raise BadRow(
            where, f"the answer {answer!r} is none of the columns {names}", "no such column"
        )
    else:
        return answer
    if text in choices and choices.index(text) != index:
        raise _ambiguous(text, "column", "the name of a column", where)
    return index


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
