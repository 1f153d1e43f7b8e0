"""Turns one row of a user's instruction file, in one of four formats, into an Example."""

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
"""Role of a field -> the names that the field may have in the file without `data.fields`."""

END = "<|endoftext|>"
"""A text that ends the completions in many published prompt/completion files; it is removed."""

_ROLES = ("system", "user", "assistant")
_JUDGE = re.compile(r"[a-z][a-z0-9_]*")
"""The form of a judge's name. Whether the judge exists is checked by the evaluation."""


class RowReader:
    """Turns rows into examples.

    Args:
        fields: role -> the field's name in the file; None keeps the usual names.
        ignore: fields to skip; "*" skips all fields without a role.

    Raises:
        DataError: `fields` has an unknown role.
    """

    def __init__(
        self, fields: Mapping[str, str | None] | None = None, ignore: Sequence[str] = ()
    ) -> None:
        mapped = {role: name for role, name in (fields or {}).items() if name is not None}
        for role in mapped:
            if role not in NAMES:
                near = difflib.get_close_matches(role, NAMES, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the roles are {', '.join(NAMES)}"
                raise DataError(f"data.fields.{role}: unknown role; {hint}")
        self._roles = {name: role for role in NAMES if role not in mapped for name in NAMES[role]}
        self._roles.update({name: role for role, name in mapped.items()})
        self._names = {role: mapped.get(role, NAMES[role][0]) for role in NAMES}
        self._ignore = frozenset(ignore)

    def read(self, row: Mapping[str, Any], where: str, label: str, line: int) -> Example:
        """Turn one row into an example.

        Args:
            row: the JSON object.
            where: "file:line" for the messages.
            label: the file's name in ids, "t0/ag_news.jsonl"; "ag_news" is the default source.
            line: the line's number, counted from 1: the default id.

        Raises:
            DataError: an unknown or missing field, a value of the wrong type, an empty text, or an answer that is not
                one of the choices.
        """
        values = self._by_role(row, where)
        instruction, history, response = self._turns(values, where)
        choices = _choices(values, where)
        if choices:
            response = self._answer(values, choices, response, where)
        elif "answer" in values:
            raise DataError(
                f"{where}: field {self._names['answer']!r} without choices; if it is the response, set"
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
        """The values of the row that are not null, by role."""
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
                        f"{where}: {name!r} is a second field for the {role}; add one of them to data.ignore"
                    )
                values[role] = value
        if unknown:
            raise DataError(
                f"{where}: unknown field(s) {', '.join(map(repr, unknown))}; map them with"
                f" data.fields or skip them with data.ignore=[{','.join(unknown)}]{looks_like(row)}"
            )
        return values

    def _turns(
        self, values: dict[str, Any], where: str
    ) -> tuple[str, tuple[tuple[str, str], ...], str | None]:
        """Instruction, history (earlier turns of a chat), and response; None for a missing response."""
        if "messages" in values:
            if others := sorted({"instruction", "input", "response"} & set(values)):
                raise DataError(f"{where}: both messages and {', '.join(others)}; keep one of them")
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
        """The right choice, which the row gives as an index (from 0), a letter or the choice's text."""
        answer = values.get("answer", response)
        if answer is None:
            raise DataError(f"{where}: choices without a field {self._names['answer']!r}; add it")
        letters = string.ascii_uppercase[: len(choices)]
        if isinstance(answer, int) and not isinstance(answer, bool):
            if 0 <= answer < len(choices):
                return choices[answer]
        elif isinstance(answer, str):
            text = answer.strip()
            by_letter = choices[letters.index(text)] if text and text in list(letters) else None
            if text in choices and by_letter not in (None, text):
                raise DataError(
                    f"{where}: the answer {text!r} is the text of one choice and the letter of another; give an"
                    " index from 0"
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
            f"{where}: the answer {answer!r} is not one of the {len(choices)} choices; give an index"
            f" from 0, a letter from A to {letters[-1]}, or the text of a choice"
        )


def _chat(messages: object, where: str) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """Instruction, history and response of a chat.

    The last assistant turn is the response, the turn before it the instruction, and all earlier turns are history. User
    turns after the response have no answer and are ignored.
    """
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
        raise DataError(f"{where}: the last assistant turn must follow a user turn")
    return turns[-2][1], tuple(turns[:-2]), _stripped(turns[-1][1])


def _choices(values: dict[str, Any], where: str) -> tuple[str, ...]:
    given = values.get("choices")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(choice, str) for choice in given):
        raise DataError(f"{where}: choices must be a list of texts")
    choices = tuple(_encodable(choice, where).strip() for choice in given)
    if not 2 <= len(set(choices)) == len(choices) <= 26 or "" in choices:
        raise DataError(f"{where}: choices must be 2 to 26 different texts that are not empty")
    return choices


def _text(values: dict[str, Any], role: str, where: str) -> str | None:
    value = values.get(role)
    if role in ("id", "source", "category") and type(value) is int:
        return str(value)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: the {role} must be a text, not {type(value).__name__}")
    return value if value is None else _encodable(value, where)


def _encodable(text: str, where: str) -> str:
    r"""The text itself.

    Raises:
        DataError: it has half a surrogate pair ("\ud800"), which JSON allows and no tokenizer accepts.
    """
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
