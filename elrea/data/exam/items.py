"""Questions of the built-in exam before any board has worded them.

A question shows the right answer under either reading of the convention that decides it: whoever does not know which
reading the examiner follows is left with two options out of four.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from elrea.data.exam.subjects import SUBJECTS
from elrea.store.files import sha256_of


@dataclass(frozen=True, slots=True)
class Item:
    """One question before any board has worded it.

    Attributes:
        subject: Name of the subject.
        stem: The question in neutral words.
        convention: The convention that decides it, or None where all examiners agree.
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
        """Question and option set, whatever the board or the order of the options."""
        return "|".join((self.subject, self.stem, *sorted(self.options)))


def make_item(subject: str, rng: Random) -> Item:
    """Draws one question of a subject.

    Args:
        subject: A key of `SUBJECTS`.
        rng: Source of all randomness; the same state gives the same item.

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
    """The split that may use a question: 80 % of all go to train, 6 % to dev, 14 % to test.

    It follows from the question and its option set alone, so that splits are disjoint whatever the seed, the board
    or the order of the options, and the tiny backbone's own training text is drawn from train as well.
    """
    bucket = int.from_bytes(sha256_of(item.identity).digest()[:4], "big") % 50
    return "train" if bucket < 40 else "dev" if bucket < 43 else "test"
