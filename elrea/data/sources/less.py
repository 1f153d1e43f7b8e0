"""The training data of LESS (Xia et al., 2024), which the paper trains its general models on: four sets as chats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from elrea.data.parts import Parts
from elrea.data.readers.rows import RowReader
from elrea.data.readers.tables import SUFFIXES, Row, rows_of, suffix_of
from elrea.data.sources.base import Source
from elrea.errors import DataError

_FILES = "train/processed/*/*.jsonl"


@dataclass
class Less(Source):
    """JSON lines of dataset, id and messages: Dolly 15,011, OpenAssistant 55,668, CoT 100,000 and Flan V2 100,000.

    Of a chat's turns the last answer is the response; what stands before its question is history.
    """

    name: ClassVar[str] = "less"
    title: ClassVar[str] = "LESS"
    public: ClassVar[str] = "princeton-nlp/less_data"
    holds: ClassVar[str] = "less_data's train/processed/"

    def parts(self) -> Parts:
        """Read all files; all of it is train until a test is held out.

        Raises:
            DataError: anything wrong with them, with file and line.
        """
        reader, made = RowReader(), []
        place = self.place()
        for row in self._rows(place) if place else self.hub_rows("train", files=_FILES):
            for name in ("dataset", "id", "messages"):
                if name not in row.value:
                    self.text(row, name)  # says what the row looks like
            if more := sorted(set(row.value) - {"dataset", "id", "messages"}):
                raise DataError(
                    f"{row.where}: unknown field(s) {', '.join(map(repr, more))}; {self.title}'s rows have dataset, id"
                    " and messages: take the rest out, or read the file by data=jsonl with data.ignore"
                )
            made.append(reader.read(row.value, row.where, self.name, 0))
        return Parts(tuple(made), note="LESS's training data")

    def _rows(self, place: Path) -> Iterator[Row]:
        if place.is_file():
            files = [place]
        else:
            inner = place / "train" / "processed"
            under = inner if inner.is_dir() else place
            files = sorted(file for file in under.rglob("*") if suffix_of(file) in SUFFIXES)
        if not files:
            raise DataError(f"{place}: no *.jsonl in here; data.root holds {self.holds}")
        for file in files:
            yield from rows_of(file)
