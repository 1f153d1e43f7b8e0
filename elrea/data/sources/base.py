"""Base classes of the sources: limits, holding out test and dev, and the way from files to a checked corpus."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from elrea.data.corpus import Corpus, Splits
from elrea.data.overlap.held_out import Overlap, resolve_overlap
from elrea.data.readers.dataset import DataSet
from elrea.data.sampling import hold_out, split, stratified
from elrea.errors import ConfigError, DataError, NotHere

if TYPE_CHECKING:
    from elrea.data.options import Options

log = logging.getLogger(__name__)


@contextmanager
def settings_below(place: str, source: Any) -> Iterator[None]:
    """Errors of a source inside another one name its settings in full: data.sources.gsm8k.root instead of data.root.

    Args:
        place: Of the source: "data.sources.gsm8k".
        source: The inner source.
    """
    try:
        yield
    except (DataError, ConfigError) as error:
        names = "|".join(field.name for field in fields(source))
        text = re.sub(rf"\bdata\.(?=(?:{names})\b)", f"{place}.", str(error))
        if text == str(error):
            raise
        kind = next(k for k in (NotHere, DataError, ConfigError) if isinstance(error, k))
        raise kind(text) from error


class TrainSource(Protocol):
    """A source that a benchmark can train on (`elrea.data.sources.benchmark.Benchmark.train`)."""

    def read(self) -> Splits:
        """Read everything, without holding out or limiting."""

    def limit(self, splits: Splits) -> Splits:
        """Reduce train and test to the limits of the settings."""


@dataclass(kw_only=True)
class Limits:
    """The settings that all sources share: limits, the seed of all draws, and whether overlap is allowed."""

    limit_train: int | None = None
    """Maximum number of training examples, drawn by `seed` from each source in proportion to its size; None takes
    all."""
    limit_test: int | None = None
    """As `limit_train`, for test."""
    seed: int = 0
    """Seed of all draws. It is not the run's seed: runs of several seeds are scored on the same questions."""
    allow_overlap: bool = False
    """Allow test questions in train. Scores on questions that were seen in training say little."""

    expected: list[int] | None = None
    """Number of examples to train and to test, for plan=true if they would have to be downloaded first."""

    def limit(self, splits: Splits) -> Splits:
        """Reduce train and test to `limit_train` and `limit_test` examples, stratified by source.

        Raises:
            ConfigError: a limit is below 1.
        """
        return replace(
            splits,
            train=stratified(splits.train, self.limit_train, self.seed, "train"),
            test=stratified(splits.test, self.limit_test, self.seed, "test"),
        )


@dataclass
class Source(Limits, DataSet):
    """A published data set to train on, and to test on its test split or, without one, on held-out questions.

    A subclass implements `read`.
    """

    test_share: float = 0.1
    """Share of train's questions that become test if the files have no test split."""
    dev_size: int = 0
    """Number of training questions that become dev if the files have no dev split: for choosing settings."""
    overlap: Overlap = "refuse"
    """What to do with a test question that is also in train or dev, or a dev question in train: "refuse" the data, or
    "drop" and count the copy there."""

    def read(self) -> Splits:
        """Read everything.

        Raises:
            DataError: a problem in the files, with file and line.
        """
        raise NotImplementedError

    def load(self) -> Corpus:
        """Read, hold out, resolve overlap, limit and check.

        Raises:
            DataError: a problem in the files, with file and line, or test questions in train.
            ConfigError: a share or limit is out of range.
        """
        splits = self.hold_out(self.read())
        if not self.allow_overlap:
            splits = resolve_overlap(splits, self.overlap, f"data={self.name}")
        return corpus_of(self.name, self.limit(splits))

    def hold_out(self, splits: Splits) -> Splits:
        """Hold test, and dev if `dev_size` asks for it, out of train by question."""
        train, dev, test, note = splits.train, splits.dev, splits.test, splits.note
        if not test and train:
            train, test = split(train, self.test_share, self.seed)
            note += f", {self.test_share:.0%} of its questions held out as test"
        if self.dev_size and not dev:
            train, dev = hold_out(train, self.dev_size, self.seed, "dev_size")
        return replace(splits, train=train, dev=dev, test=test, note=note)


def corpus_of(
    name: str,
    splits: Splits,
    tasks: Literal["category", "source"] = "category",
    options: Options = "letters",
) -> Corpus:
    """A checked corpus of splits in which overlap is resolved already. Dropped rows are logged and counted in its note.

    Raises:
        DataError: as `Corpus.check`.
    """
    drops = splits.drops.among({example.id for example in splits.test})
    lines = tuple(drops.lines())
    for line in lines:
        log.info(line)
    note = f"{splits.note}; {drops.summary()}" if lines else splits.note
    corpus = Corpus(
        name, splits.train, splits.dev, splits.test, note, lines, tasks, options, splits.short
    )
    corpus.check()
    return corpus
