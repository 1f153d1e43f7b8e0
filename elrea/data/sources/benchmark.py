"""What benchmarks share that are for testing alone: training on other data, limits, overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from elrea.data.corpus import Corpus
from elrea.data.overlap.held_out import HeldOut, Overlap
from elrea.data.parts import Parts, Readable
from elrea.data.readers.jsonl import read_files
from elrea.data.readers.place import Placed
from elrea.data.readers.rows import RowReader
from elrea.data.sources.base import Limited, corpus_of
from elrea.errors import DataError, did_you_mean


@dataclass
class Benchmark(Limited, Placed):
    """Test questions from a published data set, and other data as train."""

    train: str | list[str] | Readable | None = None
    """Instruction files (.jsonl) or folders of them, to fine-tune on; or a source of its own, as +data@data.train=mix
    names one, of which all training examples are taken. Required: there are no training questions of this kind."""
    fields: dict[str, str | None] = field(default_factory=dict)
    """Other names of the fields of `train`, as in data=jsonl."""
    ignore: list[str] = field(default_factory=list)
    """Fields of `train` to pass over, as in data=jsonl."""
    overlap: Overlap = "refuse"
    """Where a question of test or dev stands in train: "refuse", or "drop" it from train, counted. A test question that
    stands in the benchmark's own dev leaves dev in either case, counted."""

    whole: ClassVar[int]
    """How many subjects or tasks there are."""

    def questions(self) -> Parts:
        """Dev and test questions, with their shots.

        Raises:
            DataError: anything wrong with the files, with file and line.
        """
        raise NotImplementedError

    def load(self) -> Corpus:
        """Read and check.

        Raises:
            DataError: a setting is missing, or anything is wrong with the files, with file and
                line.
            ConfigError: a limit or the number of shots is out of range.
        """
        self.place()
        if not self.train:
            raise DataError(
                f"data={self.name} needs data.train: {self.title} has nothing to train on; give one or more .jsonl"
                " instruction files or folders of them"
            )
        asked, trained = self.questions(), self._trained(self.train)
        train, dev, drops = trained.train, asked.dev, trained.drops
        if not self.allow_overlap:
            held, name = HeldOut(dev, asked.test), f"data={self.name}"
            train = held.leave("train", train, self.overlap, drops, name)
            # Published so: nobody could mend what `refuse` would refuse.
            dev = held.leave("dev", dev, "drop", drops, name)
        note = f"{asked.note}; {trained.note}"
        parts = replace(asked, train=train, dev=dev, drops=drops, note=note)
        return corpus_of(self.name, self.limited(parts))

    def _trained(self, train: str | list[str] | Readable) -> Parts:
        if isinstance(train, str | list):
            reader = RowReader(self.fields, self.ignore)
            found = read_files({"data.train": train}, reader)["data.train"]
            return Parts(found, note="trained on other data")
        parts = train.limited(train.parts())
        return Parts(parts.train, drops=parts.drops, note=f"trained on {parts.note}")

    def chosen(self, wanted: str | Sequence[str], there: Sequence[str], noun: str) -> list[str]:
        """The subjects or tasks that are asked for, of those that are there, sorted.

        Args:
            wanted: "all", or names.
            there: names, sorted.
            noun: what they are, "subject"; the setting is its plural.

        Raises:
            DataError: a name that is not there, or none at all.
        """
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        if names == ["all"]:
            return list(there)
        for name in names:
            if name not in there:
                where = self.root or self.hub_name
                raise DataError(
                    f"data.{noun}s: {where} has no {noun} {name!r}{did_you_mean(name, there)}"
                    f" ({len(there)} of {self.whole} are there)"
                )
        if not names:
            raise DataError(f"data.{noun}s is empty; name {noun}s or set it to all")
        return sorted(set(names))
