"""GSM8K (Cobbe et al., 2021): school mathematics in words, 7,473 problems for training and 1,319 for test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from elrea.data.corpus import Splits
from elrea.data.drops import Drops
from elrea.data.sources.boxed import number
from elrea.data.sources.problems import Problem, Problems, Unparsed

if TYPE_CHECKING:
    from elrea.data.corpus import Split
    from elrea.data.readers.tables import Row

_CALCULATOR = re.compile(r"<<[^<>]*>>")


@dataclass
class Gsm8k(Problems):
    """JSON lines of question and answer; the last line of the answer is "#### " and a number.

    A folder without test.jsonl has `test_share` of the questions of train.jsonl held out as test.
    """

    calculator: bool = False
    """Keep the annotations <<48/2=24>>, which are for a calculator that runs during decoding."""

    name: ClassVar[str] = "gsm8k"
    title: ClassVar[str] = "GSM8K"
    public: ClassVar[str] = "openai/gsm8k"
    holds: ClassVar[str] = "GSM8K's train.jsonl and test.jsonl"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("question", "answer"),)

    @classmethod
    def matching_columns(cls, row: Mapping[str, object]) -> int:
        """As `Layout.matching_columns`, but the answer must have "####": many data sets have these two columns."""
        return super().matching_columns(row) if "####" in str(row.get("answer")) else 0

    def read(self) -> Splits:
        """Read both files, or train alone if there is no file of test.

        Raises:
            DataError: a problem in the files, with file and line.
        """
        drops = Drops()
        train = self.examples(self._rows("train"), "train", drops)
        test = self.examples(self._rows("test"), "test", drops) if self.has_test(drops) else ()
        return Splits(train, (), test, drops, "GSM8K")

    def _rows(self, split: Split) -> Iterator[Row]:
        return self.split_rows(split) if self.place() else self.hub_rows(split, "main")

    def question(self, row: Row) -> str:
        """The problem."""
        return self.text(row, "question").strip()

    def problem(self, row: Row) -> Problem:
        """Parse one row; the rationale is the text before "####"."""
        question = self.question(row)
        rationale, _, last = self.text(row, "answer").rpartition("####")
        answer = number(last)
        if answer is None or not rationale:
            raise Unparsed('no number after "####"')
        if not self.calculator:
            rationale = _CALCULATOR.sub("", rationale)
        return Problem(question, rationale.strip(), answer)
