"""Training text of the tiny backbone, made from a seed.

The text is papers of several questions. Each paper draws a form and a reading of every convention at random; most
questions state the reading that decides, and the others leave it to be inferred from the questions before. So the
backbone learns the subjects, and that conventions exist, but nothing of the boards: neither their wording nor their
conventions. Exercises follow the questions (which letter has this text, which text has this letter); without them a
model of this size does not learn how letters and options are related.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from elrea.data.exam.boards import LETTERS, Form
from elrea.data.exam.items import Item, make_item, split_of
from elrea.data.exam.subjects import SUBJECTS
from elrea.data.exam.words import CONVENTIONS

Piece = tuple[str, bool]
"""A text, and whether it is an answer (whose tokens have a larger weight in the loss)."""

_FORMS = (
    Form("Question: {}?", "{0}) {1}", "\n", "Answer:"),
    Form("Find the value. {} =", "({0}) {1}", " ", "Key:"),
    Form("Task - {}", "{0}: {1}", " | ", "Mark one letter:", options_first=True),
    Form("Candidates must solve {} now.", "{0}. {1}", "\n", "Your choice is"),
    Form("Paper 2: {}", "{0} = {1}", ", ", "Solution"),
    Form("Problem: {}", "{0} {1}", "; ", "Letter:", options_first=True),
    Form("Quiz time! {}?", "- {0}: {1}", "\n", "I pick"),
    Form("Q {} Options", "<{0}> {1}", " ", "Result:"),
)
"""Forms whose parts the papers mix. No board of the exam uses any of them, since a form that is new to the backbone
makes a board's gradients distinct."""
_RULE_SHARE = 0.7
_OPEN_SHARE = 0.12
_LETTER_FIRST = 0.65


def random_form(rng: Random) -> Form:
    """A form whose parts are drawn independently."""
    head, option, tail, order = (rng.choice(_FORMS) for _ in range(4))
    return Form(head.head, option.option, option.between, tail.tail, order.options_first)


def paper(rng: Random, questions: int, exercises: int = 3) -> Iterator[Piece]:
    """One paper: pieces of text in order.

    Args:
        rng: Source of all randomness.
        questions: Number of questions.
        exercises: Maximum number of exercises after a question; 0 also leaves out the text of its answer.

    Yields:
        Pieces; an answer begins with its separating space.
    """
    form = random_form(rng)
    readings = {name: rng.randrange(2) for name in CONVENTIONS}
    subjects = rng.choices(list(SUBJECTS), k=rng.choice((1, 3, questions)))
    for number in range(questions):
        item = make_item(rng.choice(subjects), rng)
        while split_of(item) != "train":
            item = make_item(item.subject, rng)
        which = readings[item.convention] if item.convention else 0
        if item.convention and rng.random() < _RULE_SHARE:
            yield f"Rule: {CONVENTIONS[item.convention][which]}.\n", False
        yield from _question(item, item.answers[which], form, exercises, rng)
        if number + 1 < questions:
            yield "\n\n", False


def _question(item: Item, right: str, form: Form, exercises: int, rng: Random) -> Iterator[Piece]:
    """A question with the text of its answer; or with options, the answer's letter and exercises."""
    if rng.random() < _OPEN_SHARE:
        yield form.head.format(item.stem) + "\nText:", False
        yield f" {right}", True
        return
    options = rng.sample(item.options, 4)
    shown = form.render(item.stem, options)
    letter = LETTERS[options.index(right)]
    if rng.random() < _LETTER_FIRST:
        yield shown, False
        yield f" {letter}", True
        if exercises:
            yield "\nText:", False
            yield f" {right}", True
    else:
        yield shown.removesuffix(form.tail) + "Text:", False
        yield f" {right}", True
        yield f"\n{form.tail}", False
        yield f" {letter}", True
    for _ in range(rng.randint(0, exercises)):
        wanted = rng.randrange(4)
        asked, answer = LETTERS[wanted], options[wanted]
        if rng.random() < 0.7:
            asked, answer = answer, asked
        yield f"\nFind {asked}:", False
        yield f" {answer}", True
