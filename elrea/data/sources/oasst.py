"""OpenAssistant's conversations (Köpf et al., 2023): trees of messages, read as threads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from elrea.data.examples import Example
from elrea.data.overlap.dropped import Drops
from elrea.data.parts import Parts
from elrea.data.readers.tables import Row
from elrea.data.sources.base import Source
from elrea.errors import DataError

_ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass
class Oasst(Source):
    """Trees (one a line) or messages (one a line, each with its parent), gzipped or not; the hub has messages.

    A thread is a path from a tree's root to the last answer on it: that answer is the response, the message before it
    the instruction, all before that history.
    """

    paths: Literal["all", "best"] = "all"
    """"all" paths, or of each tree the one along the best-ranked replies. Threads of one tree begin alike."""
    languages: list[str] | None = None
    """Codes to keep, [en]; None keeps all. A thread is of the language of its first message."""

    name: ClassVar[str] = "oasst"
    title: ClassVar[str] = "OpenAssistant"
    public: ClassVar[str] = "OpenAssistant/oasst1"
    holds: ClassVar[str] = "oasst's *_ready.trees.jsonl.gz or *.messages.jsonl.gz"

    def parts(self) -> Parts:
        """Read all trees; all of it is train until a test is held out.

        Raises:
            DataError: anything wrong with the files, with file and line.
        """
        drops = Drops()
        if self.place():
            rows = self.file_rows()
        else:
            rows = (row for split in ("train", "validation") for row in self.hub_rows(split))
        kept = (
            (root, path)
            for root in trees(rows, self, drops)
            if self.languages is None or root.language in self.languages
            for path in Threads(root, best=self.paths == "best")
        )
        made = tuple(self._examples(kept))
        which = "best threads" if self.paths == "best" else "all threads"
        spoken = f", {'/'.join(self.languages)}" if self.languages else ""
        return Parts(made, drops=drops, note=f"OpenAssistant, {which}{spoken}")

    def _examples(self, paths: Iterator[tuple[Message, tuple[Message, ...]]]) -> Iterator[Example]:
        for root, path in paths:
            *before, question, answer = path
            yield Example(
                id=f"oasst/{answer.id}",
                instruction=question.text,
                response=answer.text,
                source=self.name,
                category=root.language,
                history=tuple((_ROLES[message.role], message.text) for message in before),
            )


READY = "ready_for_export"
"""The state of trees that are published as such; others are "low_grade", "growing" and the like."""
_DELETED = "deleted message"


class Fields(Protocol):
    """Reads a row's fields, or says what is wrong with them (`elrea.data.readers.place.Placed`)."""

    def text(self, row: Row, name: str) -> str:
        """One that has to hold a text."""

    def optional(self, row: Row, name: str) -> str:
        """One that need not be there."""


@dataclass(slots=True)
class Message:
    """One message and the replies to it."""

    id: str
    role: str
    text: str
    language: str
    rank: float
    """Among its siblings, 0 the best; infinite where nobody ranked it."""
    replies: list[Message] = field(default_factory=list)


@dataclass(slots=True)
class _Found:
    """A message as it stands in a file."""

    message: Message
    parent: str | None
    where: str
    deleted: bool


def trees(rows: Iterable[Row], fields: Fields, drops: Drops) -> Iterator[Message]:
    """Roots, in the order of the file. What is deleted, or cannot be reached from a root, goes with all that replies to
    it, counted.

    Args:
        rows: of a file of trees or of messages; both in one are fine.
        fields: reads a row's fields.
        drops: told what was left out.

    Raises:
        DataError: a row that is neither, a field of the wrong kind, an id that stands twice, a role that there is not,
            or a reply to its own role.
    """
    found: dict[str, _Found] = {}
    for row in rows:
        is_tree = "prompt" in row.value and "message_tree_id" in row.value
        if (row.value.get("tree_state") or READY) != READY:
            what = "tree" if is_tree else "message of a tree"
            drops.add("oasst", "dropped from train", f"{what} not ready for export", row.where)
            continue
        for each in _nested(row, fields) if is_tree else [_message(row, fields)]:
            name = each.message.id
            if name in found:
                raise DataError(
                    f"{each.where}: the message_id {name!r} stands at {found[name].where} already; keep one of the two"
                )
            found[name] = each
    reasons = _reasons(found)
    for name, each in found.items():
        if reasons[name]:
            where = f"{each.where} ({name})"
            drops.add("oasst", "dropped from train", reasons[name], where)
        elif each.parent is not None:
            _reply(found[each.parent].message, each.message, each.where)
        elif each.message.role != "prompter":
            raise DataError(f"{name}: a tree's first message must be a prompter's")
    yield from (
        each.message for name, each in found.items() if each.parent is None and not reasons[name]
    )


def _reasons(found: Mapping[str, _Found]) -> dict[str, str]:
    """Why each message is left out; empty where it is not."""
    replies: dict[str, list[str]] = {}
    waiting: list[tuple[str, str]] = []
    for name, each in found.items():
        if each.parent is None:
            waiting.append((name, ""))
        elif each.parent in found:
            replies.setdefault(each.parent, []).append(name)
        else:
            waiting.append((name, "reply to a message that is not there"))
    reasons = dict.fromkeys(found, "replies in a circle")
    while waiting:
        name, reason = waiting.pop()
        reasons[name] = reason = _DELETED if found[name].deleted else reason
        handed = "reply to a deleted message" if reason == _DELETED else reason
        waiting += [(reply, handed) for reply in replies.get(name, ())]
    return reasons


def _nested(row: Row, fields: Fields) -> Iterator[_Found]:
    """A tree's messages, without recursion: some threads are long."""
    if not isinstance(row.value["prompt"], Mapping):
        raise DataError(f"{row.where}: prompt must be a message")
    waiting: list[tuple[Mapping[str, Any], str | None]] = [(row.value["prompt"], None)]
    while waiting:
        node, parent = waiting.pop()
        found = _message(Row({**node, "parent_id": parent}, row.where), fields)
        yield found
        replies = node.get("replies") or ()
        if not isinstance(replies, list | tuple) or not all(
            isinstance(r, Mapping) for r in replies
        ):
            raise DataError(f"{row.where}: replies must be a list of messages")
        waiting += [(reply, found.message.id) for reply in replies]


def _message(row: Row, fields: Fields) -> _Found:
    """One message; of a deleted one the text does not count."""
    role, name = fields.text(row, "role"), fields.text(row, "message_id")
    if role not in ("prompter", "assistant"):
        raise DataError(f"{row.where}: the role {role!r} is neither prompter nor assistant")
    parent, deleted = row.value.get("parent_id"), bool(row.value.get("deleted"))
    if parent is not None and not isinstance(parent, str):
        raise DataError(f"{row.where}: parent_id must be a text or null, not {parent!r}")
    text = "" if deleted else fields.text(row, "text").strip()
    message = Message(name, role, text, fields.optional(row, "lang"), _rank(row))
    return _Found(message, parent, row.where, deleted)


def _rank(row: Row) -> float:
    rank = row.value.get("rank")
    if rank is None:
        return math.inf
    if isinstance(rank, bool) or not isinstance(rank, int | float) or math.isnan(rank):
        raise DataError(f"{row.where}: rank must be a number or null, not {rank!r}")
    return rank


def _reply(parent: Message, reply: Message, where: str) -> None:
    if parent.role == reply.role:
        raise DataError(f"{where}: {reply.id} has the role of what it replies to, {reply.role}")
    parent.replies.append(reply)


class Threads:
    """Paths of one tree from its root to an answer that nothing but questions follows; each once.

    Args:
        root: of the tree, a question.
        best: the one path along the best-ranked replies, in place of all.
    """

    def __init__(self, root: Message, best: bool) -> None:
        self._root = root
        self._best = best

    def __iter__(self) -> Iterator[tuple[Message, ...]]:
        waiting: list[tuple[Message, ...]] = [(self._root,)]
        while waiting:
            path = waiting.pop()
            # By id where ranks are equal: files have replies in different orders.
            replies = sorted(path[-1].replies, key=lambda message: (message.rank, message.id))
            if self._best:
                replies = replies[:1]
            if path[-1].role == "assistant" and not any(reply.replies for reply in replies):
                yield path
            else:
                waiting += [(*path, reply) for reply in reversed(replies)]
