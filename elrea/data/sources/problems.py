r"""What the sources of mathematical problems share: a way, and the answer in \boxed{} behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from elrea.data.corpus import Split
from elrea.data.examples import Example
from elrea.data.overlap.dropped import Drops, Unparsed
from elrea.data.readers.tables import Row
from elrea.data.sources.base import Source
from elrea.data.sources.boxed import concluded, last_boxed
from elrea.errors import DataError
from elrea.store.files import is_text


class Problem(NamedTuple):
    """One row as its reader understands it."""

    question: str
    rationale: str
    """The way to the answer; may be empty."""
    answer: str


@dataclass
class Problems(Source):
    r"""Problems with one answer each, which the response ends in: \boxed{answer}."""

    header: str = ""
    r"""A line before every problem, for a model that does not know what is wanted of it: "Put the answer in \boxed{}."
    It takes part in routing."""

    kind: ClassVar[str] = ""
    """The field of a row that says its category; it need not be there."""

    def problem(self, row: Row) -> Problem:
        """Read one row.

        Raises:
            Unparsed: its answer cannot be read.
            DataError: it is no row of this data set.
        """
        raise NotImplementedError

    def question(self, row: Row) -> str:
        """The problem alone, for a row whose answer cannot be read."""
        raise NotImplementedError

    def examples(self, rows: Iterable[Row], split: Split, drops: Drops) -> tuple[Example, ...]:
        """Examples of a split's rows. Ids are "<name>/<split>/<row, counted from 0>".

        A row whose answer cannot be read is dropped from train and dev. In test it stays, with an empty box, so that
        no answer to it is right: scores stay comparable with others' on the same file.
        """
        made = []
        for index, row in enumerate(rows):
            name = f"{self.name}/{split}/{index}"
            # Not with the answer: a row whose answer cannot be read is of its category all the same.
            category = self.optional(row, self.kind)
            try:
                problem = self.problem(row)
                response = concluded(problem.rationale, problem.answer)
                if last_boxed(response) != problem.answer:  # braces that are not in pairs
                    raise Unparsed(r"\boxed{} cannot hold the answer")
            except Unparsed as unparsed:
                if split != "test":
                    drops.add(self.name, f"dropped from {split}", str(unparsed), row.where)
                    continue
                drops.add(self.name, "in test, scored wrong", str(unparsed), row.where, name)
                problem, response = Problem(self.question(row), "", ""), concluded("", "")
            for field, text in problem._asdict().items():
                if not is_text(text):
                    raise DataError(f"{row.where}: the {field} is not UTF-8: half a surrogate pair")
            made.append(
                Example(
                    id=name,
                    instruction=problem.question,
                    response=response,
                    source=self.name,
                    category=category,
                    header=self.header,
                    judge="maths",
                )
            )
        return tuple(made)
