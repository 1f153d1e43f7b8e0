"""The boards of the built-in exam: each prints its questions in its own form and follows its own conventions.

A board never states its conventions. They must be learnt from its training questions, and at test time only the form of
the prompt shows which board it is. The text that the built-in backbone is trained on has none of these wordings
(`elrea/models/tiny/corpus.py`), just as a real backbone has not seen a new source. All forms end with the same word, so
the last tokens of the prompt do not identify a board.

There are two sets of forms. In the standard one, four wordings and two orders of question and options give eight forms;
neither the wording alone nor the order alone identifies a board. In the blended one, all boards print the same words,
each as often, and three orders tell the boards apart: options before or after the question, the note before or after
both, and which of the note's two verbs comes first. A count of words then says nothing of the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elrea.data.exam.words import CONVENTIONS

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Form:
    """Wording, order and layout of a board's questions.

    Attributes:
        head: The words of the question; `{}` is replaced by its stem.
        option: One option; `{0}` is its letter, `{1}` its text.
        between: The text between two options.
        tail: The last words before the answer's letter.
        options_first: Whether the options come before the question.
        note: A line of its own; empty for none.
        note_last: Whether the note comes after question and options instead of before them.
    """

    head: str
    option: str
    between: str
    tail: str
    options_first: bool = False
    note: str = ""
    note_last: bool = False

    def render(self, stem: str, options: Sequence[str]) -> str:
        """The text of one question. The answer's letter follows it after one space."""
        question = self.head.format(stem)
        listed = self.between.join(
            self.option.format(letter, text) for letter, text in zip(LETTERS, options, strict=True)
        )
        lines = [listed, question] if self.options_first else [question, listed]
        if self.note:
            lines.insert(2 if self.note_last else 0, self.note)
        return "\n".join([*lines, self.tail])


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
"""Board -> form. `data.boards=N` uses the first N."""

_NOTES = ("Note: look then think", "Note: think then look")

BLENDED: dict[str, Form] = {
    board: Form(
        "Give {}.", "({0}) {1}", " ", "Answer:",
        options_first=bool(number & 4), note=_NOTES[number & 1], note_last=bool(number & 2),
    )
    for number, board in enumerate(BOARDS)
}  # fmt: skip
"""The same boards in forms of the same words."""

FORMS = {"standard": BOARDS, "blended": BLENDED}
"""`data.form` -> the form of each board."""


def reading(board: int, convention: str, conflict: float) -> int:
    """Which of a convention's two readings a board follows.

    With conflict 1 every convention divides the eight boards into four and four, and two boards differ in about half of
    the conventions. A board's readings are parities of subsets of its three bits, so that an average of the boards does
    not answer all of them. With conflict 0 every board follows the first reading of every convention.

    Args:
        board: Index of the board, 0 to 7.
        convention: A key of `CONVENTIONS`.
        conflict: Share of the conventions, 0 to 1, on which boards may differ.

    Returns:
        0 or 1.
    """
    j = list(CONVENTIONS).index(convention)
    count = len(CONVENTIONS)
    if (j * 5) % count >= round(conflict * count):
        return 0
    return ((board & (j % 7 + 1)).bit_count() + j // 7) % 2
