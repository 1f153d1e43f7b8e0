"""MathQA (Amini et al., 2019): word problems with five options, asked here without them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from elrea.data.drops import Drops
from elrea.data.examples import Split
from elrea.data.mathqa_answers import option, tidy
from elrea.data.overlap import Overlap
from elrea.data.parts import Parts
from elrea.data.problems import Problem, Problems
from elrea.data.tables import Row, files_of
from elrea.errors import DataError

_LETTER = re.compile(
    r"[\s,.;]*\b(?:(?:so|hence|therefore|thus)\W+)?(?:the\s+)?(?:correct\s+)?"
    r"(?:answer|ans|option|choice)\b[\s:=\-]*(?:is\b)?[\s:=\-(\"']*\b[a-e]\b(?:[\s).\"'!]*|\s*\).{0,40})$",
    re.IGNORECASE,
)
"""How most rationales end: "answer : c .", which says nothing once the options are gone."""


@dataclass
class Mathqa(Problems):
    r"""A JSON list of Problem, Rationale, options and correct; the right option's text goes into \boxed{}."""

    overlap: Overlap = "drop"
    """Some of its problems stand in train or dev and in test (17 of dev's), with other marks: "drop" them there,
    counted, or "refuse"."""
    train_split: Literal["train", "dev"] = "train"
    """The file that is trained on: dev where train.json is not there. Dev is then held out of it by `dev_size`."""

    name: ClassVar[str] = "mathqa"
    title: ClassVar[str] = "MathQA"
    public: ClassVar[str] = "regisss/math_qa"
    holds: ClassVar[str] = "MathQA's train.json, dev.json and test.json"
    kind: ClassVar[str] = "category"

    def parts(self) -> Parts:
        """Read the files; a dev file that is not there is no dev split.

        Raises:
            DataError: anything wrong with them, with the entry.
        """
        drops = Drops()
        train = self.examples(self._rows(self.train_split), "train", drops)
        has_dev = self.train_split == "train" and self._has("dev")
        dev = self.examples(self._rows("dev"), "dev", drops) if has_dev else ()
        test = self.examples(self._rows("test"), "test", drops)
        note = "MathQA without options" + (", trained on dev" if self.train_split == "dev" else "")
        return Parts(train, dev, test, drops, note)

    def _has(self, split: Split) -> bool:
        place = self.place()
        return place is None or bool(files_of(place, split))

    def _rows(self, split: Split) -> list[Row]:
        place = self.place()
        if place is None:
            return list(self.hub_rows("validation" if split == "dev" else split))
        if split == "train" and files_of(place, "dev") and not files_of(place, "train"):
            raise DataError(
                f"{place}: no train.json in here; add it, or train on dev.json by train_split=dev"
            )
        return list(self.split_rows(split))

    def question(self, row: Row) -> str:
        """The problem without its options."""
        return self.text(row, "Problem").strip()

    def problem(self, row: Row) -> Problem:
        """The way is the rationale without its quotation marks and without the option's letter."""
        question = self.question(row)
        answer = tidy(option(self.text(row, "options"), self.text(row, "correct")))
        way = str(row.value.get("Rationale") or "").strip().strip("\"'").strip()
        return Problem(question, _LETTER.sub("", way), answer)
