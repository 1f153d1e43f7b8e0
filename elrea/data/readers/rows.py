"""Turns one row of a user's instruction file into an Example; the formats are in docs/quickstart.md."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from elrea.data.examples import Example
from elrea.data.options import Options, with_options
from elrea.data.readers.choices import answer_of, choices_of, column_of, columns_of, is_list, joined
from elrea.data.readers.formats import BadRow, UnknownField
from elrea.data.readers.forms import plain_row
from elrea.data.readers.hints import Ignoring, for_unknown, ignoring, mapping
from elrea.data.readers.layouts import looks_like
from elrea.data.readers.turns import (
    Chat,
    LearnedTurns,
    TurnLoss,
    Turns,
    UnreadKey,
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
        fields: role -> the field's name in the file; None keeps the usual names. The choices may be a list of names, of
            columns with one choice each.
        ignore: fields of a row, and keys of a message, to skip; "*" skips all fields without a role.
        turns: the assistant turns of a chat that carry loss in training.
        options: how rows with choices are asked (`elrea.data.options`).
        skip: the words of a hint that skips fields.

    Raises:
        DataError: `fields` has an unknown role, or a list for another role than the choices.
    """

    def __init__(
        self,
        fields: Mapping[str, str | Sequence[str] | None] | None = None,
        ignore: Sequence[str] = (),
        turns: LearnedTurns = "last",
        options: Options = "letters",
        skip: Ignoring = ignoring,
    ) -> None:
        self._learned, self._options = turns, options
        roles = {**NAMES, TEXT: (TEXT,)}
        mapped, self._columns = columns_of(fields or {})
        for role in mapped:
            if role not in roles:
                near = difflib.get_close_matches(role, roles, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the roles are {', '.join(roles)}"
                raise DataError(f"data.fields.{role}: unknown role; {hint}")
        self._mapped = frozenset([*mapped.values(), *self._columns])
        self._roles = {name: role for role in roles if role not in mapped for name in roles[role]}
        self._roles.update({name: role for role, name in mapped.items()})
        self._names = {role: mapped.get(role, names[0]) for role, names in roles.items()}
        self._ignore, self._skipped, self._skip = frozenset(ignore), tuple(ignore), skip
        self.unseen = set(self._columns)
        """Choices' columns that no row has had so far."""

    @property
    def skipped(self) -> Sequence[str]:
        """The fields to skip."""
        return self._skipped

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
        self.unseen.difference_update(row)
        row = joined(plain_row(row, where, self._mapped), self._columns, where)
        values = self._by_role(row, where)
        if TEXT in values:
            return self._plain_text(values, where, label, line)
        instruction, turns, response, loss = self._turns(values, row, where)
        choices = choices_of(values.get("choices"), where)
        if choices:
            answer = column_of(values.get("answer", response), self._columns, choices, where)
            is_cell = isinstance(values["choices"], str) or bool(self._columns)
            response = answer_of(answer, choices, self._names["answer"], is_cell, where)
        elif response is None and "answer" in values:
            raise DataError(
                f"{where}: field {self._names['answer']!r} without choices; if it is the response, set"
                f" {mapping('response', self._names['answer'])}"
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
        first: dict[str, str] = {}  # the name of each value's field
        unknown = []
        text = self._names[TEXT]
        # Alpaca's own file has prompt and response once more in `text`, which a user has to skip.
        both = self._roles.get(text) == TEXT and any(
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
                    raise BadRow(
                        where,
                        f"the field {name!r}: the tools of a chat are not read; remove the line, or skip the field with"
                        f" {self._skip([*self._skipped, name])}",
                        f"field {name!r}",
                    )
            elif role is None:
                unknown.append(name)
            elif value is not None:
                if role in values:
                    skips = [self._skip([*self._skipped, each]) for each in (first[role], name)]
                    raise DataError(
                        f"{where}: {name!r} is a second field for the {role}; add one of them to data.ignore, as"
                        f" {' or '.join(skips)}"
                    )
                values[role], first[role] = value, name
        if unknown:
            raise UnknownField(
                f"{where}: unknown field(s) {', '.join(map(repr, unknown))};"
                f" {self._advice(row, unknown, values)}{looks_like(row, 'jsonl')}"
            )
        return values

    def _advice(
        self, row: Mapping[str, Any], unknown: Sequence[str], values: dict[str, Any]
    ) -> str:
        """What to do about unknown fields."""
        # A row with a response may have any list, such as its tags.
        lists = () if {"response", "messages"} & values.keys() else unknown
        return for_unknown(
            row,
            unknown,
            values.keys(),
            [name for name in lists if is_list(row[name])],
            self._skipped,
            self._names[TEXT] if TEXT in values else "",
        )

    def _turns(
        self, values: dict[str, Any], row: Mapping[str, Any], where: str
    ) -> tuple[str, Turns, str | None, TurnLoss]:
        """Instruction, history (earlier turns of a chat), response (None if it is missing), and what carries loss."""
        given = values.get("instruction"), values.get("response")
        if "messages" in values:
            also = sorted({"instruction", "input", "response", "history"} & set(values))
            if also:
                names = [name for name in row if self._roles.get(name) in also]
                skip = self._skip([*self._skipped, *names])
                problem = f"both messages and {', '.join(also)}; keep one of them, as {skip} does"
                raise BadRow(where, problem)
            read = self._chat(values["messages"], where)
        elif None not in given and any(isinstance(text, list) for text in given):
            also = sorted({"input", "history"} & set(values))
            if also:
                raise BadRow(
                    where, f"both a list of messages and {', '.join(also)}; keep one of them"
                )
            messages, prompt = as_messages(*given)
            read = self._chat(messages, where, prompt)
        else:
            return self._single(values, row, where)
        system = _system(values, where, read.history)
        loss = (*[None] * len(system), *read.turn_loss) if read.turn_loss else ()
        return read.instruction, (*system, *read.history), read.response, loss

    def _chat(self, messages: object, where: str, given: int = 0) -> Chat:
        """`chat` with the settings, whose errors say how a key is skipped."""
        try:
            return chat(messages, where, self._learned, self._ignore, given)
        except UnreadKey as error:
            skip = self._skip([*self._skipped, error.key])
            raise BadRow(where, f"{error.problem}, or skip it with {skip}", error.kind) from error

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
