"""The examples of one source in train, dev and test: as they are read (`Splits`), and checked for a run (`Corpus`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.data.options import Options
from elrea.data.overlap.question_key import QuestionKey
from elrea.errors import DataError
from elrea.store.files import sha256_of

Split = Literal["train", "dev", "test"]

_FIELDS = tuple(field.name for field in fields(Example))
_ADDED = ("judge", "options", "turn_loss", "plain_text")
"""Fields of later versions, which an example's fingerprint has only where they are set."""


@dataclass(frozen=True)
class Splits:
    """The examples that a source has read, before anything is held out, removed as overlap, limited or checked."""

    train: tuple[Example, ...] = ()
    dev: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    """Empty if the files have no test split: test is then held out of train."""
    drops: Drops = field(default_factory=Drops)
    """The rows that were left out. Later steps add to it."""
    note: str = ""
    """What a reader of the results must know about the data."""
    short: str = ""
    """Stands for a long note in titles; empty if the note is short enough."""


@dataclass(frozen=True)
class Corpus:
    """All examples of one run: train is D_ft, dev is for choosing settings, test is for scoring only."""

    name: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    note: str = ""
    """What a reader of the results must know about the data, e.g. "built-in exam, not MMLU"."""
    left_out: tuple[str, ...] = ()
    """Rows that were dropped, or kept in test although they cannot be scored: a line for each reason."""
    tasks: Literal["category", "source"] = "category"
    """The groups of the macro average: categories (subjects), or the sources of a mix, which differ in size."""
    options: Options = "letters"
    """How rows with choices are asked, which an exported ensemble keeps for its prompts."""
    short: str = ""
    """Stands for a long note in titles; empty if the note is short enough."""

    @property
    def title(self) -> str:
        """The name with what a reader must know of the data, or with the short form of it."""
        caveat = self.short or self.note
        return f"{self.name} ({caveat})" if caveat else self.name

    @property
    def details(self) -> str:
        """The note, if the title does not have it already."""
        return self.note if self.short else ""

    @property
    def train_sources(self) -> tuple[str, ...]:
        """The sources of the training examples, sorted."""
        return tuple(sorted({example.source for example in self.train}))

    def fingerprint(self, split: Split) -> str:
        """SHA-256 (64 hex digits) of one split: of each example's canonical JSON, line by line."""
        digest = sha256_of()
        for example in getattr(self, split):
            row = {name: getattr(example, name) for name in _FIELDS}
            for name in _ADDED:
                if not row[name]:
                    del row[name]
            digest.update(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()

    def check(self) -> None:
        """Check that train and test have examples and that every id is unique.

        Overlap between splits is another step: `elrea.data.overlap.held_out.resolve_overlap`.

        Raises:
            DataError: train or test is empty, or two examples have the same id.
        """
        for split in ("train", "test"):
            if not getattr(self, split):
                raise DataError(
                    f"{self.name}: there are no {split} examples{self._other_split(split)}; add more data"
                )
        seen: set[str] = set()
        for example in self:
            if example.id in seen:
                raise DataError(
                    f"{self.name}: the id {example.id!r} appears twice; make every id unique"
                )
            seen.add(example.id)

    def _other_split(self, split: str) -> str:
        """For the error about an empty train or test: how many examples and questions the other one has."""
        other, examples = ("test", self.test) if split == "train" else ("train", self.train)
        details = [self.note] if self.note else []
        if examples:
            questions = len(set(map(QuestionKey(examples).key_of, examples)))
            details.insert(
                0,
                f"{other} has {len(examples):,} example{'s' * (len(examples) > 1)} of {questions:,}"
                f" question{'s' * (questions > 1)}, first {examples[0].id}",
            )
        return f" ({'; '.join(details)})" if details else ""

    def task_of(self, example: Example) -> str:
        """The group of the macro average that an example belongs to: its category if it has one, else its source."""
        return (example.category if self.tasks == "category" else "") or example.source

    def __iter__(self) -> Iterator[Example]:
        yield from self.train
        yield from self.dev
        yield from self.test
