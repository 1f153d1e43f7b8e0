"""SVAMP (Patel et al., 2021): 1,000 short word problems, many of which vary the question of another one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from elrea.data.corpus import Splits
from elrea.data.drops import Drops
from elrea.data.readers.layouts import looks_like
from elrea.data.sources.boxed import number
from elrea.data.sources.problems import Problem, Problems, Unparsed
from elrea.errors import DataError

if TYPE_CHECKING:
    from elrea.data.readers.tables import Row


@dataclass
class Svamp(Problems):
    """One JSON list of Body, Question, Equation, Answer and Type, without splits: `test_share` is drawn by `seed`.

    The hub's copy has splits of 700 and 300. They are joined in the order of the file, so that one seed draws the same
    test from both.
    """

    test_share: float = 0.3
    """Share of the problems that become test: 300 of them."""

    name: ClassVar[str] = "svamp"
    title: ClassVar[str] = "SVAMP"
    public: ClassVar[str] = "ChilleD/SVAMP"
    holds: ClassVar[str] = "SVAMP.json"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("Body", "Question", "Answer"),)
    kind: ClassVar[str] = "Type"

    def read(self) -> Splits:
        """Read the file as train.

        Raises:
            DataError: a problem in the file, with the entry.
        """
        drops = Drops()
        on_disk = self.place() is not None
        rows = self.file_rows() if on_disk else chain(*map(self.hub_rows, ("train", "test")))
        ordered = sorted(rows, key=self._order)
        return Splits(self.examples(ordered, "train", drops), drops=drops, note="SVAMP")

    def _order(self, row: Row) -> tuple[int, str, str]:
        """Order by the number in the ID, compared as text because Python limits the digits of an int."""
        name = str(row.value.get("ID", ""))
        digits = re.sub(r"[^0-9]", "", name).lstrip("0")
        return len(digits), digits, name

    def question(self, row: Row) -> str:
        """Body and question as one text, with a comma between them if the body ends without punctuation."""
        body, question = self.text(row, "Body").strip(), self.text(row, "Question").strip()
        return f"{body}{'' if body.endswith(('.', ',', '?', '!')) else ','} {question}"

    def problem(self, row: Row) -> Problem:
        """Parse one row; the rationale is the equation: "76 - 25 = 51"."""
        question = self.question(row)
        if "Answer" not in row.value:
            raise DataError(
                f"{row.where}: no field 'Answer', so not a file of SVAMP{looks_like(row.value)}"
            )
        answer = number(str(row.value["Answer"]))
        if answer is None:
            raise Unparsed("the answer is not a number")
        equation = str(row.value.get("Equation") or "")
        left = re.sub(r"(\d)\.0\b", r"\1", equation).strip()
        if left.startswith("(") and left.endswith(")") and left.count("(") == 1:
            left = left[1:-1].strip()
        return Problem(question, f"{left} = {answer}" if left else "", answer)
