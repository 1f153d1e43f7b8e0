"""Reads a row that asks and has no response yet: the prompt is the one that the same row has in data=jsonl.

Of a chat it is that of the last user turn, also where data=jsonl learns an earlier answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elrea.data.readers.choices import columns_of, joined
from elrea.data.readers.formats import BadRow, UnknownField
from elrea.data.readers.forms import plain_row
from elrea.data.readers.hints import ignore_options, prompt_options
from elrea.data.readers.rows import NAMES, TEXT, RowReader
from elrea.data.readers.turns import is_assistant
from elrea.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.data.options import Options

_ROLES = {name: role for role, names in NAMES.items() for name in names}
"""Role of a field in data=jsonl, by the field's name."""
_ASKING = ("instruction", "input", "messages", "system", "history", "choices", "id")
"""Roles that make a prompt; the others are ignored."""
_PROMPTS = {"instruction", "messages"}
"""Roles of which a prompt has one."""
_PLACE = "?"
"""Stands for the response while the row is read."""
_RESPONSE, _ANSWER = "(response)", "(answer)"
"""Names of what stands for the response, and for the right choice: no field has them."""


class PromptReader:
    """Turns rows without a response into examples, by the reader of data=jsonl.

    Args:
        options: how rows with choices are asked, as `data.options` of the training.
        fields: role -> the field's name in the rows, or the choices' columns, as `data.fields`.
        ignore: fields of a row, and keys of a message, to skip, as `data.ignore`.

    Raises:
        DataError: `fields` has an unknown role.
    """

    def __init__(
        self,
        options: Options = "text",
        fields: Mapping[str, str | Sequence[str]] | None = None,
        ignore: Sequence[str] = (),
    ) -> None:
        given, self._columns = columns_of(fields or {})
        for role in given:
            if role not in NAMES:
                raise DataError(
                    f"{role}={given[role]}: {role} is no role of a field; the roles are {', '.join(NAMES)}"
                )
        asking = {role: name for role, name in given.items() if role in _ASKING}
        stand_ins = {"response": _RESPONSE, "answer": _ANSWER}
        self._reader = RowReader(asking | stand_ins, ignore, options=options, skip=ignore_options)
        self._given = given
        self._roles = {name: role for name, role in _ROLES.items() if role not in given}
        self._roles |= {name: role for role, name in given.items()}
        self._ignore = frozenset(ignore)
        self._mapped = frozenset([*given.values(), *self._columns])
        self.unseen = set(self._columns)
        """Choices' columns that no row has had so far."""

    def read(self, row: Mapping[str, Any], where: str) -> Example:
        """The prompt of a row; its id is its place, and its response is empty, or the first choice.

        A response, and what else says nothing of the prompt, is ignored, as is a last message of the assistant. Fields
        that begin with "_" are ignored too.

        Args:
            row: as a row of data=jsonl. Its last message may be the user's.
            where: its place, for the messages.

        Raises:
            UnknownField: a field without a role.
            BadRow: two fields for one thing, or a value that data=jsonl refuses.
        """
        asked = self._asked(row, where)
        asked.pop(self._id() or "", None)
        example = self._reader.read(asked, where, where, 0)
        first = example.choices[0] if example.choices else ""
        return replace(example, id=where, response=first, source="", category="")

    def name_of(self, row: Mapping[str, Any], where: str) -> str | None:
        """The row's id; None if it has none.

        Raises:
            BadRow: the id is neither a text nor a number.
        """
        name = row.get(self._id() or "")
        if type(name) not in (str, int, float, type(None)) or name != name:
            raise BadRow(where, "the id must be a text or a number")
        return None if name is None else str(name)

    def _asked(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The fields that make a prompt, with a response in the form that they need."""
        row = {
            name: value
            for name, value in row.items()
            if not name.startswith("_") and name not in self._ignore
        }
        self.unseen.difference_update(row)
        asked: dict[str, Any] = {}
        fields: dict[str, str] = {}
        row = joined(plain_row(row, where, self._mapped, answered=False), self._columns, where)
        unknown = [name for name in row if name not in self._roles]
        if unknown and "*" not in self._ignore:
            for key in _PROMPTS & self._given.keys():
                if (given := self._given[key]) not in row:
                    there = ", ".join(map(repr, row))
                    raise UnknownField(
                        f"{where}: no field {given!r} for {key}={given}; the row has {there}"
                    )
            raise _unknown(
                row, unknown, where, {self._roles[name] for name in row if name in self._roles}
            )
        for name, value in row.items():
            role = self._roles.get(name)
            if role not in _ASKING or value is None:
                continue
            if role in fields:
                raise BadRow(
                    where, f"{name!r} is a second field for the {role}; keep one of the two"
                )
            fields[role] = name
            asked[name] = value
        if not _PROMPTS & fields.keys():
            raise BadRow(where, "no prompt; give `prompt`, `instruction` or `messages`")
        if "messages" in fields:
            asked[fields["messages"]] = _answered(asked[fields["messages"]])
        else:
            asked[_RESPONSE] = _PLACE
        if asked.get(fields.get("choices", "")):
            asked[_ANSWER] = 0
        return asked

    def _id(self) -> str | None:
        """What the rows call the id; None if they have none."""
        names = (name for name, role in self._roles.items() if role == "id")
        return next((name for name in names if name not in self._ignore), None)


def _unknown(
    row: Mapping[str, Any], names: Sequence[str], where: str, has: Collection[str]
) -> DataError:
    """Of fields without a role; `has`: the roles of the row's other fields."""
    if TEXT in names:
        problem = "plain text has no prompt to answer; call its field 'prompt' if it is one"
        return BadRow(where, problem, "plain text")
    known = [known for known, role in _ROLES.items() if role in _ASKING]
    near = did_you_mean(names[0], known) if len(names) == 1 else ""
    fields, it = ("field", "it") if len(names) == 1 else ("fields", "them")
    if options := prompt_options(row, names, has):
        named = ", ".join(map(repr, names))
        return UnknownField(
            f"{where}: unknown {fields} {named}; what is asked is read with {options}"
        )
    return UnknownField(
        f"{where}: unknown {fields} {', '.join(map(repr, names))}; rename {it}, or let {it} begin with _ to have {it}"
        f" ignored{near}"
    )


def _answered(messages: object) -> object:
    """A chat whose last message is the assistant's, whatever it says."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], Mapping):
        return messages  # refused by the reader
    share = "role" not in messages[-1] and "from" in messages[-1]
    role, content = ("from", "value") if share else ("role", "content")
    if is_assistant(messages[-1].get(role)):
        messages = messages[:-1]
    return [*messages, {role: "assistant", content: _PLACE}]
