"""Base class of the benchmarks that have test questions only: training uses other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from elrea.data.corpus import Corpus, Splits
from elrea.data.drops import Drops
from elrea.data.options import Options
from elrea.data.overlap.held_out import HeldOut, Overlap
from elrea.data.readers.dataset import DataSet
from elrea.data.readers.jsonl import BadRows, read_files
from elrea.data.readers.rows import RowReader
from elrea.data.readers.turns import LearnedTurns
from elrea.data.sources.base import Limits, TrainSource, corpus_of, settings_below
from elrea.errors import DataError, did_you_mean


@dataclass
class Benchmark(Limits, DataSet):
    """Test questions of a published data set, and other data as train. A subclass implements `questions`."""

    train: str | list[str] | TrainSource | None = None
    """Instruction files (.jsonl) or folders of them to fine-tune on; or another source, as +data@data.train=mix sets
    one, of which all training examples are used. Required: the benchmark has no training questions."""
    fields: dict[str, str | list[str] | None] = field(default_factory=dict)
    """Other names of the fields of `train`, as in data=jsonl."""
    ignore: list[str] = field(default_factory=list)
    """Fields of `train` to skip, as in data=jsonl."""
    bad_rows: BadRows = "refuse"
    """What to do with rows of `train` that cannot be used, as in data=jsonl."""
    turns: LearnedTurns = "last"
    """Assistant turns of the chats of `train` that carry loss, as in data=jsonl."""
    options: Options = "letters"
    """How rows of `train` with choices are asked, as in data=jsonl."""
    overlap: Overlap = "refuse"
    """What to do with a question of test or dev that is also in train: "refuse" the data, or "drop" and count it in
    train. A test question that is also in the benchmark's own dev is always dropped from dev and counted."""

    whole: ClassVar[int]
    """Number of all subjects or tasks of the benchmark."""

    def questions(self) -> Splits:
        """Dev and test questions, with their shots.

        Raises:
            DataError: a problem in the files, with file and line.
        """
        raise NotImplementedError

    def load(self) -> Corpus:
        """Read questions and training data, resolve overlap, limit and check.

        Raises:
            DataError: a missing setting, or a problem in the files, with file and line.
            ConfigError: a limit or the number of shots is out of range.
        """
        self.place()
        if not self.train:
            raise DataError(
                f"data={self.name} needs data.train: {self.title} has no training questions; give one or more .jsonl"
                " instruction files or folders of them"
            )
        questions, training = self.questions(), self._training(self.train)
        train, dev, drops = training.train, questions.dev, training.drops
        if not self.allow_overlap:
            held_out, name = HeldOut(dev, questions.test), f"data={self.name}"
            train = held_out.remove_from("train", train, self.overlap, drops, name)
            # Dropped even with overlap=refuse: it is in the published files, so the user could not correct it.
            dev = held_out.remove_from("dev", dev, "drop", drops, name)
        note = f"{questions.note}; {training.note}"
        short = f"{questions.note}; trained on {training.short}" if training.short else ""
        splits = replace(questions, train=train, dev=dev, drops=drops, note=note, short=short)
        return corpus_of(self.name, self.limit(splits), options=self.options)

    def _training(self, train: str | list[str] | TrainSource) -> Splits:
        if isinstance(train, str | list):
            reader = RowReader(self.fields, self.ignore, self.turns, self.options)
            drops = Drops()
            files = read_files({"data.train": train}, reader, drops, self.bad_rows)
            return Splits(files["data.train"], drops=drops, note="trained on other data")
        with settings_below("data.train", train):
            splits = train.limit(train.read())
        note = f"trained on {splits.note}"
        return Splits(splits.train, drops=splits.drops, note=note, short=splits.short)

    def select(self, wanted: str | Sequence[str], available: Sequence[str], noun: str) -> list[str]:
        """The subjects or tasks to use, sorted.

        Args:
            wanted: "all", or names.
            available: the names that the files have, sorted.
            noun: "subject" or "task"; the setting's name is its plural.

        Raises:
            DataError: a name is not available, or `wanted` is empty.
        """
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        if names == ["all"]:
            return list(available)
        for name in names:
            if name not in available:
                where = self.root or self.hub_name
                raise DataError(
                    f"data.{noun}s: {where} has no {noun} {name!r}{did_you_mean(name, available)}"
                    f" ({len(available)} of {self.whole} are available)"
                )
        if not names:
            raise DataError(f"data.{noun}s is empty; name {noun}s or set it to all")
        return sorted(set(names))
