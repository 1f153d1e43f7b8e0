"""Questions of the built-in exam in neutral words, before a board prints them.

The options contain the right answer under both readings of the convention that decides the question. Without the
board's reading, two of the four options remain possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from elrea.data.exam.subjects import SUBJECTS
from elrea.store.files import sha256_of


@dataclass(frozen=True, slots=True)
class Item:
    """One question in neutral words.

    Attributes:
        subject: Name of the subject.
        stem: The question in neutral words.
        convention: The convention that decides the answer, or None if all boards agree.
        answers: The right option under the first and under the second reading (equal without a convention).
        options: Four different options in no meaningful order; both answers are among them.
    """

    subject: str
    stem: str
    convention: str | None
    answers: tuple[str, str]
    options: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Subject, stem and set of options as one text, independent of the board and the order of the options."""
        return "|".join((self.subject, self.stem, *sorted(self.options)))


def make_item(subject: str, rng: Random) -> Item:
    """Draws one question of a subject.

    Args:
        subject: A key of `SUBJECTS`.
        rng: The random generator; the same state gives the same item.

    Returns:
        An item with four different options, both answers among them.
    """
    stem, convention, first, second, wrong = SUBJECTS[subject](rng)
    options = [str(first)]
    for value in (second, *wrong):
        if str(value) not in options and len(options) < 4:
            options.append(str(value))
    if len(options) != 4:
        raise AssertionError(f"{subject}: fewer than four options for {stem!r}")
    return Item(subject, stem, convention, (str(first), str(second)), tuple(options))


def split_of(item: Item) -> str:
    """The split that a question belongs to: 80 % of all are in train, 6 % in dev, 14 % in test.

    It depends only on the question and its set of options. Splits are therefore disjoint for all seeds, boards and
    orders of options. The tiny backbone's own training text uses questions of train only.
    """
    bucket = int.from_bytes(sha256_of(item.identity).digest()[:4], "big") % 50
    return "train" if bucket < 40 else "dev" if bucket < 43 else "test"
