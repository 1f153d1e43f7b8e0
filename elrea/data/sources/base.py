"""What sources share: what is held out, how much is taken, and what overlaps."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

from elrea.data.corpus import Corpus
from elrea.data.overlap.held_out import Overlap, resolve_overlap
from elrea.data.parts import Parts
from elrea.data.readers.place import Placed
from elrea.data.sampling import held_out, split, subset

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Limited:
    """At most so many examples, and whether test questions may stand in train."""

    limit_train: int | None = None
    """At most so many training examples, drawn by `seed`; None takes all."""
    limit_test: int | None = None
    """At most so many test examples, drawn by `seed`; None takes all."""
    seed: int = 0
    """Of all that is drawn. Not the run's seed: runs of several seeds are scored on the same questions."""
    allow_overlap: bool = False
    """Let test questions stand in train. Off: scores on questions seen in training say little."""

    expected: list[int] | None = None
    """How many examples there are to train and to test, for plan=true where they would have to be fetched first."""

    def limited(self, parts: Parts) -> Parts:
        """At most `limit_train` and `limit_test` of it.

        Raises:
            ConfigError: a limit is below 1.
        """
        return replace(
            parts,
            train=subset(parts.train, self.limit_train, self.seed, "train"),
            test=subset(parts.test, self.limit_test, self.seed, "test"),
        )


@dataclass
class Source(Limited, Placed):
    """A data set to train on, and to test on what it holds for that or what is held out."""

    test_share: float = 0.1
    """Share of train's questions that become test where the files hold no test."""
    dev_size: int = 0
    """So many training questions become dev where the files hold none: to choose settings by."""
    overlap: Overlap = "refuse"
    """Where a test question stands in train or dev, or dev's in train: "refuse", or "drop" it there, counted."""

    def parts(self) -> Parts:
        """Read everything.

        Raises:
            DataError: anything wrong with the files, with file and line.
        """
        raise NotImplementedError

    def load(self) -> Corpus:
        """Read, hold out, check and limit.

        Raises:
            DataError: anything wrong with the files, with file and line, or test questions in train.
            ConfigError: a share or limit out of range.
        """
        parts = self.ready(self.parts())
        if not self.allow_overlap:
            parts = resolve_overlap(parts, self.overlap, f"data={self.name}")
        return corpus_of(self.name, self.limited(parts))

    def ready(self, parts: Parts) -> Parts:
        """With test, and dev where it is asked for, held out of train by question."""
        train, dev, test, note = parts.train, parts.dev, parts.test, parts.note
        if not test and train:
            train, test = split(train, self.test_share, self.seed)
            note += f", {self.test_share:.0%} of its questions held out as test"
        if self.dev_size and not dev:
            train, dev = held_out(train, self.dev_size, self.seed, "dev_size")
        return replace(parts, train=train, dev=dev, test=test, note=note)


def corpus_of(name: str, parts: Parts, tasks: Literal["category", "source"] = "category") -> Corpus:
    """A checked corpus of parts that are settled; what was left out is summed up in its note.

    Raises:
        DataError: as `Corpus.check`, but for overlap, which is settled before anything is limited.
    """
    drops = parts.drops.among({example.id for example in parts.test})
    lines = tuple(drops.lines())
    for line in lines:
        log.info(line)
    note = f"{parts.note}; {drops.summed()}" if lines else parts.note
    corpus = Corpus(name, parts.train, parts.dev, parts.test, note, lines, tasks)
    corpus.check(allow_overlap=True)
    return corpus
