"""Turns one row of a user's instruction file into an Example; the formats are in docs/quickstart.md."""

from __future__ import annotations

import difflib
import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from elrea.data.examples import Example
from elrea.data.options import Options, with_options
from elrea.data.readers.formats import BadRow
from elrea.data.readers.forms import plain_row
from elrea.data.readers.layouts import looks_like
from elrea.data.readers.turns import Turns, as_messages, chat, encodable, history, stripped
from elrea.errors import DataError

NAMES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt"),
    "input": ("input", "context"),
    "response": ("response", "output", "completion"),
    "messages": ("messages", "conversations"),
    "system": ("system",),
    "history": ("history",),
    "choices": ("choices",),
    "answer": ("answer",),
    "source": ("source", "dataset"),
    "category": ("category",),
    "id": ("id",),
    "judge": ("judge",),
}
"""Role of a field -> the names that the field may have in the file without `data.fields`."""

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Left out of a file's default source. ".json" is not, as it never was: a source is part of the stage keys."""

_JUDGE = re.compile(r"[a-z][a-z0-9_]*")
"""The form of a judge's name. Whether the judge exists is checked by the evaluation."""


class RowReader:
    """Turns rows into examples.

    Args:
        fields: role -> the field's name in the file; None keeps the usual names.
        ignore: fields to skip; "*" skips all fields without a role.
        options: how rows with choices are asked (`elrea.data.options`).

    Raises:
        DataError: `fields` has an unknown role.
    """

    def __init__(
        self,
        fields: Mapping[str, str | None] | None = None,
        ignore: Sequence[str] = (),
        options: Options = "letters",
    ) -> None:
        self._options = options
        mapped = {role: name for role, name in (fields or {}).items() if name is not None}
        for role in mapped:
            if role not in NAMES:
                near = difflib.get_close_matches(role, NAMES, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the roles are {', '.join(NAMES)}"
                raise DataError(f"data.fields.{role}: unknown role; {hint}")
        self._mapped = frozenset(mapped.values())
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

        A row with a response and an `answer` but no choices keeps the response: in LLM-Adapters' files `answer` is the
        last word of `output`.

        Raises:
            BadRow: a missing field, a value of the wrong type, an empty text, or an answer that is not one of the
                choices.
            DataError: a field that is unknown, or given twice by two names: `data.fields` or `data.ignore` must say
                what it is.
        """
        row = plain_row(row, where, self._mapped)
        values = self._by_role(row, where)
        instruction, turns, response = self._turns(values, row, where)
        choices = _choices(values, where)
        if choices:
            response = self._answer(values, choices, response, where)
        elif response is None and "answer" in values:
            raise DataError(
                f"{where}: field {self._names['answer']!r} without choices; if it is the response, set"
                f" data.fields.response={self._names['answer']}"
            )
        if response is None:
            raise self._missing("response", row, where)
        for name, text in (("instruction", instruction), ("response", response)):
            if not text.strip():
                hint = self._answer_instead(row) if name == "response" else ""
                raise BadRow(where, f"the {name} is empty; fill it or remove the line{hint}")
        example = Example(
            id=f"{label}:{_text(values, 'id', where) or line}",
            instruction=instruction,
            response=response,
            source=_text(values, "source", where) or source_of(label),
            category=_text(values, "category", where) or "",
            choices=choices,
            history=turns,
            judge=self._judge(values, where),
        )
        return with_options(example, self._options)

    def _answer_instead(self, row: Mapping[str, Any]) -> str:
        """For a row with an empty response: the settings that take its answer, as LLM-Adapters' test files need."""
        answer = self._names["answer"]
        if not row.get(answer) or self._roles.get(answer) != "answer":
            return ""
        skipped = [name for name in row if self._roles.get(name) == "response"]
        return f", or set data.fields.response={answer} data.ignore=[{','.join(skipped)}]"

    def _missing(self, role: str, row: Mapping[str, Any], where: str) -> BadRow:
        """The error for a row without instruction or response."""
        name = next((n for n in row if self._roles.get(n) == role and n not in self._ignore), None)
        if name is not None:
            return BadRow(
                where,
                f"the {role} ({name!r}) is null; fill it or remove the line",
                f"the {role} is null",
            )
        return BadRow(where, f"no field {self._names[role]!r}; {_needs(row)}")

    def _judge(self, values: dict[str, Any], where: str) -> str:
        judge = _text(values, "judge", where) or ""
        if judge and not _JUDGE.fullmatch(judge):
            problem = (
                f"{judge!r} cannot be the name of a judge; use lower-case letters, digits and _"
            )
            raise BadRow(where, problem, "not the name of a judge")
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
        hint = looks_like(row, "jsonl") if unknown else ""
        if "text" in unknown and not hint and not {"instruction", "messages"} & values.keys():
            raise DataError(
                f"{where}: plain text without prompt and response cannot be read yet; split it into prompt and"
                " completion"
            )
        if unknown:
            raise DataError(
                f"{where}: unknown field(s) {', '.join(map(repr, unknown))}; map them with"
                f" data.fields or skip them with data.ignore=[{','.join(unknown)}]{hint}"
            )
        return values

    def _turns(
        self, values: dict[str, Any], row: Mapping[str, Any], where: str
    ) -> tuple[str, Turns, str | None]:
        """Instruction, history (earlier turns of a chat), and response; None for a missing response."""
        given = values.get("instruction"), values.get("response")
        if "messages" in values:
            also = sorted({"instruction", "input", "response", "history"} & set(values))
            if also:
                raise BadRow(where, f"both messages and {', '.join(also)}; keep one of them")
            instruction, turns, response = chat(values["messages"], where)
        elif None not in given and any(isinstance(text, list) for text in given):
            also = sorted({"input", "history"} & set(values))
            if also:
                raise BadRow(
                    where, f"both a list of messages and {', '.join(also)}; keep one of them"
                )
            instruction, turns, response = chat(as_messages(*given), where)
        else:
            return self._single(values, row, where)
        return instruction, (*_system(values, where, turns), *turns), response

    def _single(
        self, values: dict[str, Any], row: Mapping[str, Any], where: str
    ) -> tuple[str, Turns, str | None]:
        """As `_turns`, for a row of single texts."""
        instruction = _text(values, "instruction", where)
        if instruction is None:
            raise self._missing("instruction", row, where)
        extra = _text(values, "input", where)
        if extra and extra.strip():
            instruction = f"{instruction}\n\n{extra}"
        response = _text(values, "response", where)
        turns = history(values.get("history"), where)
        turns = (*_system(values, where, turns), *turns)
        return instruction, turns, None if response is None else stripped(response)

    def _answer(
        self, values: dict[str, Any], choices: tuple[str, ...], response: str | None, where: str
    ) -> str:
        """The right choice, which the row gives as an index (from 0), a letter or the choice's text."""
        answer = values.get("answer", response)
        if answer is None:
            raise BadRow(where, f"choices without a field {self._names['answer']!r}; add it")
        letters = string.ascii_uppercase[: len(choices)]
        if isinstance(answer, int) and not isinstance(answer, bool):
            if 0 <= answer < len(choices):
                return choices[answer]
        elif isinstance(answer, str):
            text = answer.strip()
            by_letter = choices[letters.index(text)] if text and text in list(letters) else None
            if text in choices and by_letter not in (None, text):
                raise BadRow(
                    where,
                    f"the answer {text!r} is the text of one choice and the letter of another; give an index from 0",
                    "the answer is the text of one choice and the letter of another",
                )
            if text in choices:
                return text
            if by_letter is not None:
                return by_letter
        else:
            raise BadRow(
                where,
                f"the {self._names['answer']} must be an index from 0, a letter or a choice's text, not "
                f"{json.dumps(answer, default=str)[:40]}",
                "the answer has the wrong type",
            )
        raise BadRow(
            where,
            f"the answer {answer!r} is not one of the {len(choices)} choices; give an index from 0, a letter from A to"
            f" {letters[-1]}, or the text of a choice",
            "the answer is not one of the choices",
        )


def source_of(label: str) -> str:
    """A file's default source: its name without folder and suffix."""
    name = label.rpartition("/")[2]
    suffix = max((suffix for suffix in _SUFFIXES if name.endswith(suffix)), key=len, default="")
    return name.removesuffix(suffix)


def _system(values: dict[str, Any], where: str, turns: Turns) -> Turns:
    """The system turn of LLaMA-Factory's field `system`; none if it is missing or empty.

    Raises:
        BadRow: the chat has a system turn as well.
    """
    text = _text(values, "system", where)
    if not text or not text.strip():
        return ()
    if any(role == "system" for role, _ in turns):
        raise BadRow(where, "both a field 'system' and a system turn; keep one of them")
    return (("system", text),)


def _choices(values: dict[str, Any], where: str) -> tuple[str, ...]:
    given = values.get("choices")
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


def _text(values: dict[str, Any], role: str, where: str) -> str | None:
    value = values.get(role)
    if role in ("id", "source", "category") and type(value) is int:
        return str(value)
    if value is not None and not isinstance(value, str):
        is_nan = isinstance(value, float) and math.isnan(value)
        kind = "NaN" if is_nan else type(value).__name__
        raise BadRow(where, f"the {role} must be a text, not {kind}")
    return value if value is None else encodable(value, where)


def _needs(row: Mapping[str, Any]) -> str:
    return (
        f"the line has {', '.join(row) or 'nothing'}; it needs instruction and response, prompt"
        " and completion, or messages (data.fields maps other names)"
    )
