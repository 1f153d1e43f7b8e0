r"""What the sources of mathematical problems share: a way, and the answer in \boxed{} behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from elrea.data.boxed import concluded, last_boxed
from elrea.data.drops import Drops, Unparsed
from elrea.data.examples import Example, Split
from elrea.data.source import Source
from elrea.data.tables import Row


class Problem(NamedTuple):
    """One row as its reader understands it."""

    question: str
    rationale: str
    """The way to the answer; may be empty."""
    answer: str
    category: str = ""


@dataclass
class Problems(Source):
    r"""Problems with one answer each, which the response ends in: \boxed{answer}."""

    header: str = ""
    r"""A line before every problem, for a model that does not know what is wanted of it: "Put the answer in \boxed{}."
    It takes part in routing."""

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
            category = ""
            try:
                question, rationale, answer, category = self.problem(row)
                response = concluded(rationale, answer)
                if last_boxed(response) != answer:  # braces that are not in pairs
                    raise Unparsed(r"\boxed{} cannot hold the answer")
            except Unparsed as unparsed:
                fate = "in test, scored wrong" if split == "test" else f"dropped from {split}"
                drops.add(self.name, fate, str(unparsed), row.where)
                if split != "test":
                    continue
                question, response = self.question(row), concluded("", "")
            made.append(
                Example(
                    id=f"{self.name}/{split}/{index}",
                    instruction=question,
                    response=response,
                    source=self.name,
                    category=category,
                    header=self.header,
                    judge="maths",
                )
            )
        return tuple(made)
