"""One line of a user's instruction file as an Example, whichever of four formats it has."""

from __future__ import annotations

import difflib
import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from elrea.data.examples import Example
from elrea.data.readers.layouts import looks_like
from elrea.errors import DataError
from elrea.store.files import is_text

NAMES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt"),
    "input": ("input", "context"),
    "response": ("response", "output", "completion"),
    "messages": ("messages",),
    "choices": ("choices",),
    "answer": ("answer",),
    "source": ("source", "dataset"),
    "category": ("category",),
    "id": ("id",),
    "judge": ("judge",),
}
"""Each role that a field can play, and the names that are understood without a mapping."""

END = "<|endoftext|>"
"""A literal that ends the completions of many published prompt/completion files."""

_ROLES = ("system", "user", "assistant")
_JUDGE = re.compile(r"[a-z][a-z0-9_]*")
"""The form of a judge's name. Which judges exist is checked by `elrea.evaluation.judging.check`."""


class RowReader:
    """Reads rows.

    Args:
        fields: role -> the name it has in the file; None keeps the usual names.
        ignore: names that are passed over; "*" passes over all that play no role.

    Raises:
        DataError: `fields` names a role that there is not.
    """

    def __init__(
        self, fields: Mapping[str, str | None] | None = None, ignore: Sequence[str] = ()
    ) -> None:
        mapped = {role: name for role, name in (fields or {}).items() if name is not None}
        for role in mapped:
            if role not in NAMES:
                near = difflib.get_close_matches(role, NAMES, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NAMES)}"
                raise DataError(f"data.fields.{role}: no such field; {hint}")
        self._roles = {name: role for role in NAMES if role not in mapped for name in NAMES[role]}
        self._roles.update({name: role for role, name in mapped.items()})
        self._names = {role: mapped.get(role, NAMES[role][0]) for role in NAMES}
        self._ignore = frozenset(ignore)

    def read(self, row: Mapping[str, Any], where: str, label: str, line: int) -> Example:
        """Make an Example of one row.

        Args:
            row: the JSON object.
            where: "file:line" for messages.
            label: the file's name in ids; its stem is the default source.
            line: counted from 1.

        Raises:
            DataError: unknown or missing fields, a value of the wrong kind, an empty text, an
                answer that is none of the choices.
        """
        values = self._by_role(row, where)
        instruction, history, response = self._asked(values, where)
        choices = _choices(values, where)
        if choices:
            response = self._answer(values, choices, response, where)
        elif "answer" in values:
            raise DataError(
                f"{where}: {self._names['answer']!r} without choices; if it is the response, set"
                f" data.fields.response={self._names['answer']}"
            )
        if response is None:
            raise DataError(f"{where}: no field {self._names['response']!r}; {_needs(row)}")
        for name, text in (("instruction", instruction), ("response", response)):
            if not text.strip():
                raise DataError(f"{where}: the {name} is empty; fill it or remove the line")
        stem = label.rpartition("/")[2].removesuffix(".jsonl")
        return Example(
            id=f"{label}:{_text(values, 'id', where) or line}",
            instruction=instruction,
            response=response,
            source=_text(values, "source", where) or stem,
            category=_text(values, "category", where) or "",
            choices=choices,
            history=history,
            judge=self._judge(values, where),
        )

    def _judge(self, values: dict[str, Any], where: str) -> str:
        judge = _text(values, "judge", where) or ""
        if judge and not _JUDGE.fullmatch(judge):
            raise DataError(
                f"{where}: {judge!r} cannot be the name of a judge; use lower-case letters, digits and _"
            )
        return judge

    def _by_role(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The row's values that are not null, by the role they play."""
        values: dict[str, Any] = {}
        unknown = []
        for name, value in row.items():
            role = self._roles.get(name)
            if name in self._ignore or (role is None and "*" in self._ignore):
                continue
            if role is None:
                unknown.append(name)
            elif value is not None:
                if role in values:
                    raise DataError(
                        f"{where}: {name!r} is a second {role}; add one of them to data.ignore"
                    )
                values[role] = value
        if unknown:
            raise DataError(
                f"{where}: unknown field(s) {', '.join(map(repr, unknown))}; map them with"
                f" data.fields or pass over them with data.ignore=[{','.join(unknown)}]{looks_like(row)}"
            )
        return values

    def _asked(
        self, values: dict[str, Any], where: str
    ) -> tuple[str, tuple[tuple[str, str], ...], str | None]:
        """Instruction, history and, where the row has it, response."""
        if "messages" in values:
            if second := sorted({"instruction", "input", "response"} & set(values)):
                raise DataError(f"{where}: messages and {', '.join(second)}; keep one of the two")
            return _chat(values["messages"], where)
        instruction = _text(values, "instruction", where)
        if instruction is None:
            raise DataError(f"{where}: no field {self._names['instruction']!r}; {_needs(values)}")
        extra = _text(values, "input", where)
        if extra and extra.strip():
            instruction = f"{instruction}\n\n{extra}"
        response = _text(values, "response", where)
        return instruction, (), None if response is None else _stripped(response)

    def _answer(
        self, values: dict[str, Any], choices: tuple[str, ...], response: str | None, where: str
    ) -> str:
        """The right choice, from an index (counted from 0), a letter or the text itself."""
        answer = values.get("answer", response)
        if answer is None:
            raise DataError(f"{where}: choices without a field {self._names['answer']!r}")
        letters = string.ascii_uppercase[: len(choices)]
        if isinstance(answer, int) and not isinstance(answer, bool):
            if 0 <= answer < len(choices):
                return choices[answer]
        elif isinstance(answer, str):
            text = answer.strip()
            by_letter = choices[letters.index(text)] if text and text in list(letters) else None
            if text in choices and by_letter not in (None, text):
                raise DataError(
                    f"{where}: the answer {text!r} is one choice's text and another's letter; give its index from 0"
                )
            if text in choices:
                return text
            if by_letter is not None:
                return by_letter
        else:
            raise DataError(
                f"{where}: the {self._names['answer']} must be an index from 0, a letter or a choice's text, not "
                f"{json.dumps(answer)[:40]}"
            )
        raise DataError(
            f"{where}: the answer {answer!r} is outside the {len(choices)} choices; give an index"
            f" from 0, a letter from A to {letters[-1]}, or the text of one"
        )


def _chat(messages: object, where: str) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """Split chat messages: the last assistant turn is the response, the turn before it the
    instruction, all before that history. User turns after it have no answer and are left out."""
    if not isinstance(messages, list):
        raise DataError(f"{where}: messages must be a list of {{role, content}}")
    turns = []
    for message in messages:
        role, text = (
            (message.get("role"), message.get("content")) if isinstance(message, dict) else (0, 0)
        )
        if role not in _ROLES or not isinstance(text, str):
            raise DataError(
                f"{where}: a message needs a role ({', '.join(_ROLES)}) and a text as content"
            )
        turns.append((str(role), _encodable(text, where)))
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    if len(turns) < 2 or turns[-2][0] != "user":
        raise DataError(f"{where}: the last assistant turn must answer a user turn")
    return turns[-2][1], tuple(turns[:-2]), _stripped(turns[-1][1])


def _choices(values: dict[str, Any], where: str) -> tuple[str, ...]:
    given = values.get("choices")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(choice, str) for choice in given):
        raise DataError(f"{where}: choices must be a list of texts")
    choices = tuple(_encodable(choice, where).strip() for choice in given)
    if not 2 <= len(set(choices)) == len(choices) <= 26 or "" in choices:
        raise DataError(f"{where}: choices must be 2 to 26 different texts, none empty")
    return choices


def _text(values: dict[str, Any], role: str, where: str) -> str | None:
    value = values.get(role)
    if role in ("id", "source", "category") and type(value) is int:
        return str(value)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: the {role} must be a text, not {type(value).__name__}")
    return value if value is None else _encodable(value, where)


def _encodable(text: str, where: str) -> str:
    r"""Refuse half a surrogate pair ("\ud800"): JSON lets it through, no tokenizer takes it."""
    if not is_text(text):
        raise DataError(f"{where}: not UTF-8: half a surrogate pair, {text!r}")
    return text


def _stripped(response: str) -> str:
    return response.strip().removesuffix(END).rstrip()


def _needs(row: Mapping[str, Any]) -> str:
    return (
        f"the line has {', '.join(row) or 'nothing'}; it needs instruction and response, prompt"
        " and completion, or messages (data.fields maps other names)"
    )
