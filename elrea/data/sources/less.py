"""LESS's training data (Xia et al., 2024), on which the paper trains its general models: four data sets as chats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from elrea.data.corpus import Splits
from elrea.data.readers.rows import RowReader
from elrea.data.readers.tables import SUFFIXES, Row, rows_of, suffix_of
from elrea.data.readers.turns import LearnedTurns
from elrea.data.sources.base import Source
from elrea.errors import DataError

_FILES = "train/processed/*/*.jsonl"
_FIELDS = ("dataset", "id", "messages")


@dataclass
class Less(Source):
    """JSON lines of dataset, id and messages: Dolly 15,011, OpenAssistant 55,668, CoT 100,000 and Flan V2 100,000.

    The last answer of a chat is the response, the turn before it the instruction, and all earlier turns are history.
    """

    turns: LearnedTurns = "last"
    """Assistant turns of a chat that carry loss in training: the "last", or "all", as in data=jsonl."""

    name: ClassVar[str] = "less"
    title: ClassVar[str] = "LESS"
    public: ClassVar[str] = "princeton-nlp/less_data"
    holds: ClassVar[str] = "less_data's train/processed/"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (_FIELDS,)

    def read(self) -> Splits:
        """Read all files as train.

        Raises:
            DataError: a problem in the files, with file and line.
        """
        reader, examples = RowReader(turns=self.turns), []
        place = self.place()
        for row in self._rows(place) if place else self.hub_rows("train", files=_FILES):
            for name in _FIELDS:
                if name not in row.value:
                    self.text(row, name)  # raises with a hint what the row looks like
            if more := sorted(set(row.value) - set(_FIELDS)):
                raise DataError(
                    f"{row.where}: unknown field(s) {', '.join(map(repr, more))}; {self.title}'s rows have dataset, id"
                    " and messages: remove the other fields, or read the file by data=jsonl with data.ignore"
                )
            examples.append(reader.read(row.value, row.where, self.name, 0))
        return Splits(tuple(examples), note="LESS's training data")

    def _rows(self, place: Path) -> Iterator[Row]:
        if place.is_file():
            files = [place]
        else:
            inner = place / "train" / "processed"
            under = inner if inner.is_dir() else place
            files = sorted(file for file in under.rglob("*") if suffix_of(file) in SUFFIXES)
        if not files:
            raise DataError(f"{place}: no *.jsonl in here; data.root must have {self.holds}")
        for file in files:
            yield from rows_of(file)
