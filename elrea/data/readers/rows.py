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
from elrea.data.readers.formats import BadRow, UnknownField
from elrea.data.readers.forms import plain_row
from elrea.data.readers.hints import for_unknown, ignoring, mapping
from elrea.data.readers.layouts import looks_like
from elrea.data.readers.turns import (
    LearnedTurns,
    TurnLoss,
    Turns,
    as_messages,
    chat,
    encodable,
    history,
    stripped,
    turn_loss,
)
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

TEXT = "text"
"""The role, and the usual name, of a plain text for language modelling; no prompt has it."""
_TEXT_ROLES = (TEXT, "source", "category", "id")
"""What a row of plain text may have."""
_TOOLS = ("tools", "functions")
"""Fields that describe the tools of a chat, which no prompt shows yet."""

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Left out of a file's default source. ".json" is not, as it never was: a source is part of the stage keys."""

_JUDGE = re.compile(r"[a-z][a-z0-9_]*|[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
"""The form of a judge's name, or of the module of a plugin's. Whether it exists is checked by the evaluation."""


class RowReader:
    """Turns rows into examples.

    Args:
        fields: role -> the field's name in the file; None keeps the usual names.
        ignore: fields of a row, and keys of a message, to skip; "*" skips all fields without a role.
        turns: the assistant turns of a chat that carry loss in training.
        options: how rows with choices are asked (`elrea.data.options`).

    Raises:
        DataError: `fields` has an unknown role.
    """

    def __init__(
        self,
        fields: Mapping[str, str | None] | None = None,
        ignore: Sequence[str] = (),
        turns: LearnedTurns = "last",
        options: Options = "letters",
    ) -> None:
        self._learned, self._options = turns, options
        roles = {**NAMES, TEXT: (TEXT,)}
        mapped = {role: name for role, name in (fields or {}).items() if name is not None}
        for role in mapped:
            if role not in roles:
                near = difflib.get_close_matches(role, roles, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the roles are {', '.join(roles)}"
                raise DataError(f"data.fields.{role}: unknown role; {hint}")
        self._mapped = frozenset(mapped.values())
        self._roles = {name: role for role in roles if role not in mapped for name in roles[role]}
        self._roles.update({name: role for role, name in mapped.items()})
        self._names = {role: mapped.get(role, names[0]) for role, names in roles.items()}
        self._ignore, self._skipped = frozenset(ignore), tuple(ignore)

    @property
    def is_mapped(self) -> bool:
        """Whether fields have been given roles."""
        return bool(self._mapped)

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
        if TEXT in values:
            return self._plain_text(values, where, label, line)
        instruction, turns, response, loss = self._turns(values, row, where)
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
            turn_loss=loss,
        )
        return with_options(example, self._options)

    def _plain_text(self, values: dict[str, Any], where: str, label: str, line: int) -> Example:
        """A row of plain text. It is kept as it is, white space at its ends too."""
        text = _text(values, TEXT, where) or ""
        if not text.strip():
            raise BadRow(where, "the text is empty; fill it or remove the line")
        return Example(
            id=f"{label}:{_text(values, 'id', where) or line}",
            instruction=text,
            response="",
            source=_text(values, "source", where) or source_of(label),
            category=_text(values, "category", where) or "",
            plain_text=True,
        )

    def _answer_instead(self, row: Mapping[str, Any]) -> str:
        """For a row with an empty response: the settings that take its answer, as LLM-Adapters' test files need."""
        answer = self._names["answer"]
        if not row.get(answer) or self._roles.get(answer) != "answer":
            return ""
        skipped = [name for name in row if self._roles.get(name) == "response"]
        return f", or set {mapping('response', answer)} {ignoring([*self._skipped, *skipped])}"

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
        text = self._names[TEXT]
        # Alpaca's own file has prompt and response once more in `text`, which a user has to skip.
        both = text in row and any(
            self._roles.get(name) not in (None, *_TEXT_ROLES)
            for name in row
            if name not in self._ignore
        )
        for name, value in row.items():
            role = None if both and name == text else self._roles.get(name)
            if name in self._ignore or (role is None and "*" in self._ignore):
                continue
            if role is None and name in _TOOLS:
                if value:
                    raise _tools(name, where)
            elif role is None:
                unknown.append(name)
            elif value is not None:
                if role in values:
                    raise DataError(
                        f"{where}: {name!r} is a second field for the {role}; add one of them to data.ignore, as"
                        f" {ignoring([*self._skipped, name])}"
                    )
                values[role] = value
        hint = looks_like(row, "jsonl") if unknown else ""
        if unknown:
            asked = {"instruction", "messages"} & values.keys()
            given = {"response", "messages", "answer"} & values.keys()
            missing = ["instruction"] * (not asked) + ["response"] * (not given)
            # A row with a response may have any list, such as its tags.
            lists = () if {"response", "messages"} & values.keys() else unknown
            advice = for_unknown(
                unknown,
                [] if hint else missing,
                [name for name in lists if _is_list(row[name])],
                self._skipped,
                "answer" in values,
            )
            raise UnknownField(
                f"{where}: unknown field(s) {', '.join(map(repr, unknown))}; {advice}{hint}"
            )
        return values

    def _turns(
        self, values: dict[str, Any], row: Mapping[str, Any], where: str
    ) -> tuple[str, Turns, str | None, TurnLoss]:
        """Instruction, history (earlier turns of a chat), response (None if it is missing), and what carries loss."""
        given = values.get("instruction"), values.get("response")
        if "messages" in values:
            also = sorted({"instruction", "input", "response", "history"} & set(values))
            if also:
                raise BadRow(where, f"both messages and {', '.join(also)}; keep one of them")
            read = chat(values["messages"], where, self._learned, self._ignore)
        elif None not in given and any(isinstance(text, list) for text in given):
            also = sorted({"input", "history"} & set(values))
            if also:
                raise BadRow(
                    where, f"both a list of messages and {', '.join(also)}; keep one of them"
                )
            messages, prompt = as_messages(*given)
            read = chat(messages, where, self._learned, self._ignore, prompt)
        else:
            return self._single(values, row, where)
        system = _system(values, where, read.history)
        loss = (*[None] * len(system), *read.turn_loss) if read.turn_loss else ()
        return read.instruction, (*system, *read.history), read.response, loss

    def _single(
        self, values: dict[str, Any], row: Mapping[str, Any], where: str
    ) -> tuple[str, Turns, str | None, TurnLoss]:
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
        loss = turn_loss(turns, self._learned)
        return instruction, turns, None if response is None else stripped(response), loss

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
            named = {"text": text} if text in choices else {}
            if text and text in list(letters):
                named["letter"] = choices[letters.index(text)]
            # JSON has an index as a number. All cells of a CSV are texts, its choices too.
            may_be_index = not named or isinstance(values.get("choices"), str)
            if may_be_index and text.isdecimal() and len(text) < 3 and int(text) < len(choices):
                named["index"] = choices[int(text)]
            if len(set(named.values())) > 1:
                problem = f"is the text of one choice and the {[*named][1]} of another"
                instead = "an index from 0" if "letter" in named else "its letter"
                raise BadRow(
                    where, f"the answer {text!r} {problem}; give {instead}", f"the answer {problem}"
                )
            if named:
                return next(iter(named.values()))
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


def _tools(name: str, where: str) -> BadRow:
    return BadRow(
        where,
        f"the field {name!r}: the tools of a chat are not read; remove the line, or skip the field with"
        f" data.ignore=[{name}]",
        f"field {name!r}",
    )


def _is_list(value: object) -> bool:
    """Whether a value is a list of texts, which may be written as JSON in a table's cell."""
    try:
        return len(_choices({"choices": value}, "")) > 1
    except BadRow:
        return False


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
        " and completion, messages, or text alone (data.fields maps other names)"
    )
