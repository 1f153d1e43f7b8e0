r"""MATH (Hendrycks et al., 2021): 12,500 competition problems whose solutions hold the answer in \boxed{}."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from elrea.data.overlap.dropped import Drops, Unparsed
from elrea.data.overlap.held_out import Overlap
from elrea.data.parts import Parts
from elrea.data.readers import hub
from elrea.data.readers.tables import Row, files_of, rows_of
from elrea.data.sources.boxed import last_boxed
from elrea.data.sources.problems import Problem, Problems


@dataclass
class Math(Problems):
    r"""train/<subject>/<n>.json and test/ as published, or JSON lines train.jsonl and test.jsonl.

    The layouts have different orders: problems are sorted by subject and text, and are the same from each.
    """

    overlap: Overlap = "drop"
    """Problems stand in train and in test, spelt otherwise (2x^{2} and 2x^2): "drop" them from train, counted, or
    "refuse"."""

    name: ClassVar[str] = "math"
    title: ClassVar[str] = "MATH"
    public: ClassVar[str] = "EleutherAI/hendrycks_math"
    holds: ClassVar[str] = "MATH's train/ and test/, or train.jsonl and test.jsonl"
    kind: ClassVar[str] = "type"

    def parts(self) -> Parts:
        """Read both splits.

        Raises:
            DataError: anything wrong with the files, with file and line.
        """
        drops = Drops()
        train, test = (
            self.examples(sorted(self._rows(split), key=self._order), split, drops)
            for split in ("train", "test")
        )
        return Parts(train, (), test, drops, "MATH")

    def _rows(self, split: str) -> Iterator[Row]:
        place = self.place()
        if place is None:
            for subject in hub.configs(self.hub_name, holds=self.holds, revision=self.revision):
                yield from self.hub_rows(split, None if subject == "default" else subject)
        elif (place / split).is_dir():
            folders = sorted(folder for folder in (place / split).iterdir() if folder.is_dir())
            for folder in [place / split, *folders]:
                for file in files_of(folder):
                    yield from rows_of(file)
        else:
            yield from self.split_rows(split)

    def _order(self, row: Row) -> tuple[str, str]:
        return str(row.value.get("type", "")), str(row.value.get("problem", ""))

    def question(self, row: Row) -> str:
        """The problem."""
        return self.text(row, "problem").strip()

    def problem(self, row: Row) -> Problem:
        r"""The answer is the row's own, or what the solution's last \boxed{} holds."""
        question, way = self.question(row), self.text(row, "solution")
        given = row.value.get("answer")
        answer = str(given).strip() if given not in (None, "") else last_boxed(way)
        if not answer:
            raise Unparsed(r"no \boxed{} in the solution")
        return Problem(question, way, answer)
