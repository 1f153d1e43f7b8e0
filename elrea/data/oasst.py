"""OpenAssistant's conversations (Köpf et al., 2023): trees of messages, read as threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.oasst_trees import Message, Threads, trees
from elrea.data.parts import Parts
from elrea.data.source import Source

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
