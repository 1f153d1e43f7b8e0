"""What every source hands on: examples, and a corpus of them in train, dev and test."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from elrea.data.asked import Asked
from elrea.data.overlap import settle
from elrea.data.parts import Parts
from elrea.errors import DataError

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction and the response that is wanted, (x_instr, x_resp) of D_ft.

    Raises:
        DataError: where `choices` are given and `response` is none of them, or two read the same.
    """

    id: str
    """Unique in the corpus: "mmlu/test/astronomy/17", "t0/ag_news_classify.jsonl:12"."""
    instruction: str
    """The question as the source words it, without shots, earlier turns or header."""
    response: str
    """What is to be produced; for multiple choice one of `choices`."""
    source: str
    """Where it comes from: a dataset, a board of the exam, a file's stem."""
    category: str = ""
    """Subject or task; empty where the source has none."""
    choices: tuple[str, ...] = ()
    """Answers to choose from, as the model would write them; empty for a free response."""
    shots: tuple[tuple[str, str], ...] = ()
    """Solved examples (instruction, response) to stand before the instruction."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns (role, text) of a chat; roles are system, user and assistant."""
    header: str = ""
    """A line before everything, such as MMLU's about the subject. Routing prompts include it."""
    judge: str = ""
    """Who says whether a generated response is right (`elrea.evaluation.judges`): "maths", "letter", "answer";
    empty: it is compared word for word."""

    def __post_init__(self) -> None:
        if len(set(self.choices)) < len(self.choices):
            raise DataError(f"{self.id}: two choices read the same: {list(self.choices)}")
        if self.choices and self.response not in self.choices:
            raise DataError(
                f"{self.id}: the answer {self.response!r} is none of {list(self.choices)}"
            )

    @property
    def answer(self) -> int | None:
        """Index of the response in `choices`; None for a free response."""
        return self.choices.index(self.response) if self.choices else None

    @property
    def question(self) -> tuple[str, ...]:
        """What is asked word for word, blind to white space alone; `elrea.data.asked` sees more.

        Choices count in any order; mere letters say nothing that the instruction does not.
        """
        letters = tuple(string.ascii_uppercase[: len(self.choices)])
        choices = () if self.choices == letters else sorted(self.choices)
        words = (self.instruction, *choices, *(text for _, text in self.history))
        return tuple(" ".join(text.split()) for text in words)


_FIELDS = tuple(field.name for field in fields(Example))


@dataclass(frozen=True)
class Corpus:
    """All examples of one source. Train is D_ft; dev is for choosing; test is for scoring alone."""

    name: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    note: str = ""
    """What a reader of the results must know of the data, e.g. "built-in exam, not MMLU"."""
    left_out: tuple[str, ...] = ()
    """What its source dropped, or kept though it cannot be scored right: a line each, with counts and places."""
    tasks: Literal["category", "source"] = "category"
    """What the macro average is over: subjects and the like, or the sources of a mix, which are of unlike size."""

    def fingerprint(self, split: Split) -> str:
        """SHA-256 (64 hex digits) of one split: of each example's canonical JSON, line by line."""
        digest = hashlib.sha256()
        for example in getattr(self, split):
            row = {name: getattr(example, name) for name in _FIELDS}
            if not row["judge"]:
                del row["judge"]
            digest.update(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()

    def check(self, allow_overlap: bool = False) -> None:
        """Hold the laws that every later stage relies on.

        Args:
            allow_overlap: let test questions stand in train or dev, and dev's in train.

        Raises:
            DataError: train or test is empty; an id stands twice; a question of one split is asked
                in another (`elrea.data.asked`).
        """
        for split in ("train", "test"):
            if not getattr(self, split):
                raise DataError(
                    f"{self.name}: there is not one {split} example{self._instead(split)}; give more data"
                )
        seen: set[str] = set()
        for example in self:
            if example.id in seen:
                raise DataError(f"{self.name}: the id {example.id!r} stands twice; make it unique")
            seen.add(example.id)
        if not allow_overlap:
            settle(Parts(self.train, self.dev, self.test), "refuse", self.name)

    def _instead(self, split: str) -> str:
        """Where the examples are that `split` lacks."""
        other, there = ("test", self.test) if split == "train" else ("train", self.train)
        said = [self.note] if self.note else []
        if there:
            asked = len(set(map(Asked(there).of, there)))
            has = f"{len(there):,} example{'s' * (len(there) > 1)} of {asked:,} question{'s' * (asked > 1)}"
            said.insert(0, f"{other} has {has}, first {there[0].id}")
        return f" ({'; '.join(said)})" if said else ""

    def task_of(self, example: Example) -> str:
        """What an example counts for in the macro average: its category where there is one, or its source."""
        return (example.category if self.tasks == "category" else "") or example.source

    def __iter__(self) -> Iterator[Example]:
        yield from self.train
        yield from self.dev
        yield from self.test
