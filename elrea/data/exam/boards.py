"""The boards that set the built-in exam: each has its own form of paper and follows its own conventions.

A board never states its conventions: they have to be learnt from its questions, and at test time the form of the
prompt is the only sign of whose paper it is. The built-in backbone's text has none of these wordings
(`elrea/models/tiny/corpus.py`), as a real backbone has not seen a new source's. Four wordings and two orders of
question and options make eight forms, as real papers borrow from each other: wording alone, or order alone, does not
tell who asks, and forms end alike, so that nothing tells it at the answer itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elrea.data.exam.words import CONVENTIONS

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Form:
    """Wording, order and layout of a paper.

    Attributes:
        head: What stands before the question; `{}` is the question's place.
        option: One option; `{0}` is its letter, `{1}` its text.
        between: What stands between two options.
        tail: The last words before the answer's letter.
        options_first: Whether the options stand before the question.
    """

    head: str
    option: str
    between: str
    tail: str
    options_first: bool = False

    def render(self, stem: str, options: Sequence[str]) -> str:
        """Words one question; the answer's letter is to follow after one space."""
        question = self.head.format(stem)
        listed = self.between.join(
            self.option.format(letter, text) for letter, text in zip(LETTERS, options, strict=True)
        )
        first, second = (listed, question) if self.options_first else (question, listed)
        return f"{first}\n{second}\n{self.tail}"


BOARDS: dict[str, Form] = {
    "Alder": Form("Read, then answer. {}?", "({0}) {1}", " ", "Answer:"),
    "Birch": Form("Hi friends! Who knows {}?", "({0}) {1}", " ", "Answer:"),
    "Cedar": Form("Part I (10 marks). Find {} =", "({0}) {1}", " ", "Answer:"),
    "Elm": Form("Paper 2, please: {}", "({0}) {1}", " ", "Answer:"),
    "Hazel": Form("Read, then answer. {}?", "({0}) {1}", " ", "Answer:", options_first=True),
    "Linden": Form("Hi friends! Who knows {}?", "({0}) {1}", " ", "Answer:", options_first=True),
    "Maple": Form("Part I (10 marks). Find {} =", "({0}) {1}", " ", "Answer:", options_first=True),
    "Rowan": Form("Paper 2, please: {}", "({0}) {1}", " ", "Answer:", options_first=True),
}
"""Board -> form, in the order in which `boards=N` takes them."""


def reading(board: int, convention: str, conflict: float) -> int:
    """Which of a convention's two readings a board follows.

    With conflict 1 every convention splits the eight boards four to four, and two boards differ in about half of
    the conventions (the parities of a board's three bits: no adapter gets them all right by an average). With
    conflict 0 every board follows the first reading of each.

    Args:
        board: Index of the board, 0 to 7.
        convention: A key of `CONVENTIONS`.
        conflict: Share of the conventions, 0 to 1, on which boards are free to differ.

    Returns:
        0 or 1.
    """
    j = list(CONVENTIONS).index(convention)
    count = len(CONVENTIONS)
    if (j * 5) % count >= round(conflict * count):
        return 0
    return ((board & (j % 7 + 1)).bit_count() + j // 7) % 2
