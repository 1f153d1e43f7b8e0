r"""Base class of the sources of mathematical problems: a rationale, and then the answer in \boxed{}."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from elrea.data.examples import Example
from elrea.data.sources.base import Source
from elrea.data.sources.boxed import concluded, last_boxed
from elrea.errors import DataError
from elrea.store.files import is_text

if TYPE_CHECKING:
    from elrea.data.corpus import Split
    from elrea.data.drops import Drops
    from elrea.data.readers.tables import Row


class Unparsed(Exception):
    """The answer of a row cannot be parsed; `args[0]` is the reason. `Problems.examples` catches and counts it."""


class Problem(NamedTuple):
    """The parsed fields of one row."""

    question: str
    rationale: str
    """The steps to the answer; may be empty."""
    answer: str


@dataclass
class Problems(Source):
    r"""Problems with one answer each; the response ends with \boxed{answer}.

    A subclass implements `problem`, `question` and `read`.
    """

    header: str = ""
    r"""A line before every problem that tells the model what to do: "Put the answer in \boxed{}." Routing prompts
    include it."""

    kind: ClassVar[str] = ""
    """Name of the optional field with a row's category."""

    def problem(self, row: Row) -> Problem:
        """Parse one row.

        Raises:
            Unparsed: the answer cannot be parsed.
            DataError: the row is not of this data set.
        """
        raise NotImplementedError

    def question(self, row: Row) -> str:
        """The problem only, for a row whose answer cannot be parsed."""
        raise NotImplementedError

    def has_test(self, drops: Drops) -> bool:
        """Whether there is a test split. If not, `drops` says so, because a mix does not show the sources' notes."""
        found = self.has("test")
        if not found:
            place = str(self.place())
            drops.add(self.name, "file(s) of test missing", "only train was read", place)
        return found

    def examples(self, rows: Iterable[Row], split: Split, drops: Drops) -> tuple[Example, ...]:
        """Examples of a split's rows, with ids "<name>/<split>/<row, counted from 0>".

        A row whose answer cannot be parsed is dropped from train and dev. In test it is kept with an empty box, so that
        every response to it is wrong and scores can be compared with others' on the same file.
        """
        examples = []
        for index, row in enumerate(rows):
            name = f"{self.name}/{split}/{index}"
            # Read before the answer, because a row whose answer cannot be parsed keeps its category.
            category = self.optional(row, self.kind)
            try:
                problem = self.problem(row)
                response = concluded(problem.rationale, problem.answer)
                if last_boxed(response) != problem.answer:  # unbalanced braces
                    raise Unparsed(r"\boxed{} cannot contain the answer")
            except Unparsed as unparsed:
                if split != "test":
                    drops.add(self.name, f"dropped from {split}", str(unparsed), row.where)
                    continue
                drops.add(self.name, "in test, scored wrong", str(unparsed), row.where, name)
                problem, response = Problem(self.question(row), "", ""), concluded("", "")
            for field, text in problem._asdict().items():
                if not is_text(text):
                    raise DataError(f"{row.where}: the {field} is not UTF-8: half a surrogate pair")
            examples.append(
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
        return tuple(examples)
