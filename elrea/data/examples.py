"""An example: one instruction and the response that is wanted."""

from __future__ import annotations

import string
from dataclasses import dataclass

from elrea.errors import DataError


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction and the response that is wanted, (x_instr, x_resp) of D_ft.

    Raises:
        DataError: where `choices` are given and `response` is none of them, or two read the same.
    """

    id: str
    """Unique in the corpus: "mmlu/test/astronomy/17", "t0/ag_news_classify.jsonl:12"."""
    instruction: str
    """The question as the source words it, without shots, earlier turns or header."""
    response: str
    """What is to be produced; for multiple choice one of `choices`."""
    source: str
    """Where it comes from: a dataset, a board of the exam, a file's stem."""
    category: str = ""
    """Subject or task; empty where the source has none."""
    choices: tuple[str, ...] = ()
    """Answers to choose from, as the model would write them; empty for a free response."""
    shots: tuple[tuple[str, str], ...] = ()
    """Solved examples (instruction, response) to stand before the instruction."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns (role, text) of a chat; roles are system, user and assistant."""
    header: str = ""
    """A line before everything, such as MMLU's about the subject. Routing prompts include it."""
    judge: str = ""
    """Who says whether a generated response is right (`elrea.evaluation.judges`): "maths", "letter", "answer";
    empty: it is compared word for word."""

    def __post_init__(self) -> None:
        if len(set(self.choices)) < len(self.choices):
            raise DataError(f"{self.id}: two choices read the same: {list(self.choices)}")
        if self.choices and self.response not in self.choices:
            raise DataError(
                f"{self.id}: the answer {self.response!r} is none of {list(self.choices)}"
            )

    @property
    def answer(self) -> int | None:
        """Index of the response in `choices`; None for a free response."""
        return self.choices.index(self.response) if self.choices else None

    @property
    def question(self) -> tuple[str, ...]:
        """What is asked word for word, blind to white space alone; `elrea.data.overlap.question_key` sees more.

        Choices count in any order; mere letters say nothing that the instruction does not.
        """
        letters = tuple(string.ascii_uppercase[: len(self.choices)])
        choices = () if self.choices == letters else sorted(self.choices)
        words = (self.instruction, *choices, *(text for _, text in self.history))
        return tuple(" ".join(text.split()) for text in words)
