"""OpenAssistant's trees, from either of its layouts, and the paths through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from elrea.data.drops import Drops
from elrea.data.tables import Row
from elrea.errors import DataError

Text = Callable[[Row, str], str]
"""Reads a field that has to hold a text."""


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


def trees(rows: Iterable[Row], text: Text, drops: Drops) -> Iterator[Message]:
    """Roots, in the order of the file. Deleted messages go with all that replies to them, counted.

    Args:
        rows: of a file of trees or of messages; both in one are fine.
        text: reads a field, or says what is wrong with the row.
        drops: told what was left out.

    Raises:
        DataError: a row that is neither, a role that there is not, or a reply to its own role.
    """
    flat: dict[str, Message] = {}
    parents: dict[str, str | None] = {}
    roots: list[Message] = []
    for row in rows:
        if "prompt" in row.value and "message_tree_id" in row.value:
            if row.value.get("tree_state", "ready_for_export") != "ready_for_export":
                drops.add("oasst", "dropped from train", "tree not ready for export", row.where)
                continue
            prompt = row.value["prompt"]
            if not isinstance(prompt, Mapping):
                raise DataError(f"{row.where}: prompt must be a message")
            if root := _nested(prompt, row.where, text, drops):
                roots.append(root)
            continue
        message = _message(row, text, drops)
        if message:
            flat[message.id] = message
            parents[message.id] = row.value.get("parent_id")
            if parents[message.id] is None:
                roots.append(message)
    for name, message in flat.items():
        parent = parents[name]
        if parent in flat:
            _reply(flat[parent], message, name)
    for root in roots:
        if root.role != "prompter":
            raise DataError(f"{root.id}: a tree's first message must be a prompter's")
        yield root


def _nested(value: Mapping[str, Any], where: str, text: Text, drops: Drops) -> Message | None:
    """A message with all its replies, without recursion: some threads are long."""
    root = _message(Row(value, where), text, drops)
    waiting = [(root, value)] if root else []
    while waiting:
        message, node = waiting.pop()
        for child in node.get("replies") or ():
            if not isinstance(child, Mapping):
                raise DataError(f"{where}: replies must be messages")
            reply = _message(Row(child, where), text, drops)
            if reply:
                _reply(message, reply, where)
                waiting.append((reply, child))
    return root


def _message(row: Row, text: Text, drops: Drops) -> Message | None:
    """One message; None for a deleted one."""
    role, name = text(row, "role"), text(row, "message_id")
    if role not in ("prompter", "assistant"):
        raise DataError(f"{row.where}: the role {role!r} is neither prompter nor assistant")
    if row.value.get("deleted"):
        drops.add("oasst", "dropped from train", "deleted message", f"{row.where} ({name})")
        return None
    rank = row.value.get("rank")
    return Message(
        name,
        role,
        text(row, "text").strip(),
        str(row.value.get("lang") or ""),
        float("inf") if rank is None else float(rank),
    )


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
