r"""MATH (Hendrycks et al., 2021): 12,500 competition problems with the answer in the solution's \boxed{}."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from elrea.data.corpus import Splits
from elrea.data.drops import Drops
from elrea.data.overlap.held_out import Overlap
from elrea.data.readers import hub
from elrea.data.readers.tables import Row, files_of, rows_of
from elrea.data.sources.boxed import last_boxed
from elrea.data.sources.problems import Problem, Problems, Unparsed

if TYPE_CHECKING:
    from elrea.data.corpus import Split
    from elrea.data.examples import Example


@dataclass
class Math(Problems):
    r"""train/<subject>/<n>.json and test/ as published, or JSON lines in train.jsonl and test.jsonl.

    The layouts have different orders. Problems are sorted by subject and text, so that both give the same examples.
    """

    overlap: Overlap = "drop"
    """Some test problems are also in train in another spelling (2x^{2} and 2x^2): "drop" and count them in train, or
    "refuse" the data."""

    name: ClassVar[str] = "math"
    title: ClassVar[str] = "MATH"
    public: ClassVar[str] = "EleutherAI/hendrycks_math"
    holds: ClassVar[str] = "MATH's train/ and test/, or train.jsonl and test.jsonl"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("problem", "solution"),)
    kind: ClassVar[str] = "type"

    def read(self) -> Splits:
        """Read both splits.

        Raises:
            DataError: a problem in the files, with file and line.
        """
        drops = Drops()
        train = self._split("train", drops)
        test = self._split("test", drops) if self.has_test(drops) else ()
        return Splits(train, (), test, drops, "MATH")

    def has(self, split: str) -> bool:
        """Whether there is a folder or a file of a split in `root`; the hub has every split."""
        place = self.place()
        return super().has(split) or (place is not None and (place / split).is_dir())

    def _split(self, split: Split, drops: Drops) -> tuple[Example, ...]:
        return self.examples(sorted(self._rows(split), key=self._order), split, drops)

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
        r"""Parse one row; the answer is the row's answer field if it has one, else the solution's last \boxed{}."""
        question, solution = self.question(row), self.text(row, "solution")
        given = row.value.get("answer")
        answer = str(given).strip() if given not in (None, "") else last_boxed(solution)
        if not answer:
            raise Unparsed(r"no \boxed{} in the solution")
        return Problem(question, solution, answer)
