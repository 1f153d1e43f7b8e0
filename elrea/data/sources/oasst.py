"""OpenAssistant (Köpf et al., 2023): trees of messages, of which every path becomes a chat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from elrea.data.corpus import Splits
from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.readers.tables import Row
from elrea.data.readers.turns import LearnedTurns, turn_loss
from elrea.data.sources.base import Source
from elrea.errors import DataError

_ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass
class Oasst(Source):
    """Files of trees or of messages, one a line, gzipped or not. A message names its parent, or has its replies in it.
    The hub has messages.

    A thread is a path from a tree's root to the last answer on it: that answer is the response, the message before it
    the instruction, and all earlier messages are history.
    """

    paths: Literal["all", "best"] = "all"
    """"all" threads, or "best": one thread of each tree, along the best-ranked replies. Threads of one tree have the
    same beginning."""
    languages: list[str] | None = None
    """Language codes to keep, [en]; None keeps all. A thread's language is that of its first message."""

    turns: LearnedTurns = "last"
    """Assistant turns of a thread that carry loss in training: the "last", or "all", as in data=jsonl. With paths=all
    an answer is learned once for each thread that it is in."""

    name: ClassVar[str] = "oasst"
    title: ClassVar[str] = "OpenAssistant"
    public: ClassVar[str] = "OpenAssistant/oasst1"
    holds: ClassVar[str] = "oasst's *_ready.trees.jsonl.gz or *.messages.jsonl.gz"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("message_tree_id",),
        ("message_id", "role", "text"),
    )

    def read(self) -> Splits:
        """Read all trees as train.

        Raises:
            DataError: a problem in the files, with file and line.
        """
        drops = Drops()
        if self.place():
            rows = self.file_rows(drops=drops)
        else:
            rows = (row for split in ("train", "validation") for row in self.hub_rows(split))
        chosen = (
            (root, thread)
            for root in trees(rows, self, drops)
            if self.languages is None or root.language in self.languages
            for thread in threads(root, best=self.paths == "best")
        )
        examples = tuple(self._examples(chosen))
        which = "best threads" if self.paths == "best" else "all threads"
        languages = f", {'/'.join(self.languages)}" if self.languages else ""
        return Splits(examples, drops=drops, note=f"OpenAssistant, {which}{languages}")

    def _examples(self, chosen: Iterable[tuple[Message, tuple[Message, ...]]]) -> Iterator[Example]:
        for root, thread in chosen:
            *before, question, answer = thread
            history = tuple((_ROLES[message.role], message.text) for message in before)
            yield Example(
                id=f"oasst/{answer.id}",
                instruction=question.text,
                response=answer.text,
                source=self.name,
                category=root.language,
                history=history,
                turn_loss=turn_loss(history, self.turns),
            )


READY = "ready_for_export"
"""The tree_state of finished trees; other states are "low_grade", "growing" and the like."""
_DELETED = "deleted message"


class Fields(Protocol):
    """Reads fields of a row, as `elrea.data.readers.dataset.DataSet` does."""

    def text(self, row: Row, name: str) -> str:
        """A required text field."""

    def optional(self, row: Row, name: str) -> str:
        """An optional field as a text."""


@dataclass(slots=True)
class Message:
    """One message and the replies to it."""

    id: str
    role: str
    text: str
    language: str
    rank: float
    """Rank among its siblings: 0 is the best, infinity if it was not ranked."""
    replies: list[Message] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """A message of a file, before it is attached to its parent."""

    message: Message
    parent: str | None
    where: str
    deleted: bool


def trees(rows: Iterable[Row], fields: Fields, drops: Drops) -> Iterator[Message]:
    """The roots of all trees, in the order of the file. Their replies are attached.

    Deleted messages and messages that cannot be reached from a root are dropped together with all replies to them.

    Args:
        rows: trees or messages; a file may have both.
        fields: reads a row's fields.
        drops: every dropped message is added to it.

    Raises:
        DataError: a row that is neither, a field of the wrong type, a duplicate id, an unknown role, or a reply by the
            role that it replies to.
    """
    nodes: dict[str, _Node] = {}
    for row in rows:
        is_tree = "prompt" in row.value and "message_tree_id" in row.value
        if (row.value.get("tree_state") or READY) != READY:
            kind = "tree" if is_tree else "message of a tree"
            drops.add("oasst", "dropped from train", f"{kind} not ready for export", row.where)
            continue
        for node in _nested(row, row.value["prompt"] if is_tree else row.value, fields):
            name = node.message.id
            if name in nodes:
                raise DataError(
                    f"{node.where}: duplicate message_id {name!r}, first at {nodes[name].where}; keep one of the two"
                )
            nodes[name] = node
    reasons = _reasons(nodes)
    for name, node in nodes.items():
        if reasons[name]:
            where = f"{node.where} ({name})"
            drops.add("oasst", "dropped from train", reasons[name], where)
        elif node.parent is not None:
            _attach(nodes[node.parent].message, node.message, node.where)
        elif node.message.role != "prompter":
            raise DataError(f"{name}: the first message of a tree must have the role prompter")
    yield from (
        node.message for name, node in nodes.items() if node.parent is None and not reasons[name]
    )


def _reasons(nodes: Mapping[str, _Node]) -> dict[str, str]:
    """The reason why each message is dropped; empty if it is kept."""
    replies: dict[str, list[str]] = {}
    waiting: list[tuple[str, str]] = []
    for name, node in nodes.items():
        if node.parent is None:
            waiting.append((name, ""))
        elif node.parent in nodes:
            replies.setdefault(node.parent, []).append(name)
        else:
            waiting.append((name, "reply to a missing message"))
    # Messages that the loop does not reach have no way to a root: they are their own ancestors.
    reasons = dict.fromkeys(nodes, "replies in a circle")
    while waiting:
        name, reason = waiting.pop()
        reasons[name] = reason = _DELETED if nodes[name].deleted else reason
        for_replies = "reply to a deleted message" if reason == _DELETED else reason
        waiting += [(reply, for_replies) for reply in replies.get(name, ())]
    return reasons


def _nested(row: Row, root: Any, fields: Fields) -> Iterator[_Node]:
    """A message and the replies in it. A loop, because some threads are longer than Python's limit of recursion."""
    if not isinstance(root, Mapping):
        raise DataError(f"{row.where}: prompt must be a message")
    parent_of_root = None if root is row.value.get("prompt") else root.get("parent_id")
    waiting: list[tuple[Mapping[str, Any], Any]] = [(root, parent_of_root)]
    while waiting:
        value, parent = waiting.pop()
        node = _message(Row({**value, "parent_id": parent}, row.where), fields)
        yield node
        replies = value.get("replies") or ()
        if not isinstance(replies, list | tuple) or not all(
            isinstance(r, Mapping) for r in replies
        ):
            raise DataError(f"{row.where}: replies must be a list of messages")
        waiting += [(reply, node.message.id) for reply in replies]


def _message(row: Row, fields: Fields) -> _Node:
    """One message. The text of a deleted message is not read."""
    role, name = fields.text(row, "role"), fields.text(row, "message_id")
    if role not in ("prompter", "assistant"):
        raise DataError(f"{row.where}: the role {role!r} is neither prompter nor assistant")
    parent, deleted = row.value.get("parent_id"), bool(row.value.get("deleted"))
    if parent is not None and not isinstance(parent, str):
        raise DataError(f"{row.where}: parent_id must be a text or null, not {parent!r}")
    text = "" if deleted else fields.text(row, "text").strip()
    message = Message(name, role, text, fields.optional(row, "lang"), _rank(row))
    return _Node(message, parent, row.where, deleted)


def _rank(row: Row) -> float:
    rank = row.value.get("rank")
    if rank is None:
        return math.inf
    if isinstance(rank, bool) or not isinstance(rank, int | float) or math.isnan(rank):
        raise DataError(f"{row.where}: rank must be a number or null, not {rank!r}")
    return rank


def _attach(parent: Message, reply: Message, where: str) -> None:
    if parent.role == reply.role:
        raise DataError(
            f"{where}: {reply.id} and the message that it replies to have the same role, {reply.role}"
        )
    parent.replies.append(reply)


def threads(root: Message, best: bool) -> Iterator[tuple[Message, ...]]:
    """The paths of a tree from its root to an answer that only questions without answers follow; each path once.

    Args:
        root: the first message of the tree, a question.
        best: follow only the best-ranked reply of each message, which gives at most one path.
    """
    waiting: list[tuple[Message, ...]] = [(root,)]
    while waiting:
        path = waiting.pop()
        # Equal ranks are ordered by id, because files have replies in different orders.
        replies = sorted(path[-1].replies, key=lambda message: (message.rank, message.id))
        if best:
            replies = replies[:1]
        if path[-1].role == "assistant" and not any(reply.replies for reply in replies):
            yield path
        else:
            waiting += [(*path, reply) for reply in reversed(replies)]
