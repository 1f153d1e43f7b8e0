"""A corpus: examples in train, dev and test, and the laws that hold between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from elrea.data.examples import Example
from elrea.data.overlap.held_out import resolve_overlap
from elrea.data.overlap.question_key import QuestionKey
from elrea.data.parts import Parts
from elrea.errors import DataError
from elrea.store.files import sha256_of

Split = Literal["train", "dev", "test"]

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

    @property
    def title(self) -> str:
        """The name with what a reader must know of the data."""
        return f"{self.name} ({self.note})" if self.note else self.name

    def fingerprint(self, split: Split) -> str:
        """SHA-256 (64 hex digits) of one split: of each example's canonical JSON, line by line."""
        digest = sha256_of()
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
                in another (`elrea.data.overlap.question_key`).
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
            resolve_overlap(Parts(self.train, self.dev, self.test), "refuse", self.name)

    def _instead(self, split: str) -> str:
        """Where the examples are that `split` lacks."""
        other, there = ("test", self.test) if split == "train" else ("train", self.train)
        said = [self.note] if self.note else []
        if there:
            asked = len(set(map(QuestionKey(there).of, there)))
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
