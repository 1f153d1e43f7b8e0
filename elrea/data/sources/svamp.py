"""SVAMP (Patel et al., 2021): 1,000 short problems that vary what is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from elrea.data.overlap.dropped import Drops, Unparsed
from elrea.data.parts import Parts
from elrea.data.readers.layouts import looks_like
from elrea.data.readers.tables import Row
from elrea.data.sources.boxed import number
from elrea.data.sources.problems import Problem, Problems
from elrea.errors import DataError


@dataclass
class Svamp(Problems):
    """One JSON list of Body, Question, Equation, Answer and Type, without a split: `test_share` is drawn by `seed`.

    The hub's copy has a split of 700 and 300; both parts are put together, in the file's order, so that a seed draws
    the same test from either.
    """

    test_share: float = 0.3
    """Share of the problems that become test: 300 of them."""

    name: ClassVar[str] = "svamp"
    title: ClassVar[str] = "SVAMP"
    public: ClassVar[str] = "ChilleD/SVAMP"
    holds: ClassVar[str] = "SVAMP.json"
    kind: ClassVar[str] = "Type"

    def parts(self) -> Parts:
        """Read the file; all of it is train until a test is drawn.

        Raises:
            DataError: anything wrong with it, with the entry.
        """
        drops = Drops()
        on_disk = self.place() is not None
        found = self.file_rows() if on_disk else chain(*map(self.hub_rows, ("train", "test")))
        rows = sorted(found, key=self._order)
        return Parts(self.examples(rows, "train", drops), drops=drops, note="SVAMP")

    def _order(self, row: Row) -> tuple[int, str, str]:
        """By the number in the ID, which may have more digits than Python reads as one."""
        name = str(row.value.get("ID", ""))
        digits = re.sub(r"[^0-9]", "", name).lstrip("0")
        return len(digits), digits, name

    def question(self, row: Row) -> str:
        """Body and question as one text; many bodies end without a stop."""
        body, asked = self.text(row, "Body").strip(), self.text(row, "Question").strip()
        return f"{body}{'' if body.endswith(('.', ',', '?', '!')) else ','} {asked}"

    def problem(self, row: Row) -> Problem:
        """The way is the equation: "76 - 25 = 51"."""
        question = self.question(row)
        if "Answer" not in row.value:
            raise DataError(
                f"{row.where}: no field 'Answer', so no file of SVAMP{looks_like(row.value)}"
            )
        answer = number(str(row.value["Answer"]))
        if answer is None:
            raise Unparsed("the answer is no number")
        equation = str(row.value.get("Equation") or "")
        plain = re.sub(r"(\d)\.0\b", r"\1", equation).strip()
        if plain.startswith("(") and plain.endswith(")") and plain.count("(") == 1:
            plain = plain[1:-1].strip()
        way = f"{plain} = {answer}" if plain else ""
        return Problem(question, way, answer)
