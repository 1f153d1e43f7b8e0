"""The boards that set the built-in exam: each has its own form of paper and follows its own conventions.

A board never states its conventions: they have to be learnt from its questions, and at test time the form of the
prompt is the only sign of whose paper it is. The built-in backbone's text has none of these wordings
(`elrea/backbone/corpus.py`), as a real backbone has not seen a new source's. A form has seven parts of two kinds each,
and any two boards share three of them, as real papers borrow from each other: no part alone tells who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from elrea.data.exam_words import CONVENTIONS

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


_PARTS = (
    ("Paper 2.", "Part I."),
    ("Hi friends!", "Read, then answer."),
    ("Who knows {}?", "Find {} ="),
    ("(10 marks)", "Section B."),
    ("({0}) {1}", "{0}. {1}"),
    ("No notes please.", "Take your time."),
    (False, True),
)
"""Two kinds of each part: opening, greeting, question, marks, option, note, and whether options come first."""


def _form(board: int) -> Form:
    opener, greeting, ask, marks, option, note, first = (
        kinds[_parity(board & mask)] for mask, kinds in enumerate(_PARTS, 1)
    )
    return Form(f"{opener} {greeting} {marks} {ask}", option, " ", f"{note} Answer:", first)


def _parity(bits: int) -> int:
    return bits.bit_count() % 2


_NAMES = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Linden", "Maple", "Rowan")

BOARDS: dict[str, Form] = {name: _form(board) for board, name in enumerate(_NAMES)}
"""Board -> form, in the order in which `boards=N` takes them."""


def _splits() -> list[frozenset[int]]:
    """The 28 splits of eight boards, four to four, that no part of the form makes; in an order that stays.

    Each is given by the four boards that follow a convention's second reading.
    """
    boards = range(len(BOARDS))
    of_parts = {
        frozenset(board for board in boards if _parity(board & mask) == side)
        for mask in range(1, 8)
        for side in (0, 1)
    }
    halves = [half for four in combinations(boards, 4) if (half := frozenset(four)) not in of_parts]
    Random(5).shuffle(halves)
    splits: list[frozenset[int]] = []
    for half in halves:
        if frozenset(boards) - half not in splits:
            splits.append(half)
    return splits


_SPLITS = _splits()


def reading(board: int, convention: str, conflict: float) -> int:
    """Which of a convention's two readings a board follows.

    With conflict 1 every convention splits the eight boards four to four, so that no average gets it right; and no
    split is that of a part of the form, so that no single part tells which reading a board follows. With conflict 0
    every board follows the first reading of each.

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
    return int(board in _SPLITS[j])
