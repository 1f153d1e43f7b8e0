"""GSM8K (Cobbe et al., 2021): school mathematics in words, 7,473 problems to train on and 1,319 to test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from elrea.data.overlap.dropped import Drops, Unparsed
from elrea.data.parts import Parts
from elrea.data.readers.tables import Row
from elrea.data.sources.boxed import number
from elrea.data.sources.problems import Problem, Problems

_CALCULATOR = re.compile(r"<<[^<>]*>>")


@dataclass
class Gsm8k(Problems):
    """JSON lines of question and answer; the answer's last line is "#### " and a number."""

    calculator: bool = False
    """Keep the annotations <<48/2=24>>, which a calculator that is wired into decoding would read."""

    name: ClassVar[str] = "gsm8k"
    title: ClassVar[str] = "GSM8K"
    public: ClassVar[str] = "openai/gsm8k"
    holds: ClassVar[str] = "GSM8K's train.jsonl and test.jsonl"

    def parts(self) -> Parts:
        """Read both files.

        Raises:
            DataError: anything wrong with them, with file and line.
        """
        drops = Drops()
        on_disk = self.place() is not None
        train, test = (
            self.examples(
                self.split_rows(split) if on_disk else self.hub_rows(split, "main"), split, drops
            )
            for split in ("train", "test")
        )
        return Parts(train, (), test, drops, "GSM8K")

    def question(self, row: Row) -> str:
        """The problem."""
        return self.text(row, "question").strip()

    def problem(self, row: Row) -> Problem:
        """The way is what stands before "####"."""
        question = self.question(row)
        way, _, last = self.text(row, "answer").rpartition("####")
        answer = number(last)
        if answer is None or not way:
            raise Unparsed('no number behind "####"')
        if not self.calculator:
            way = _CALCULATOR.sub("", way)
        return Problem(question, way.strip(), answer)
