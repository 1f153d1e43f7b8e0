"""Shows the choices of a multiple-choice question in its prompt, with letters: the form in which MMLU is asked."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from elrea.data import labels
from elrea.data.examples import Example, listing
from elrea.errors import DataError

Options = Literal["letters", "text"]
"""How the model is asked: the choices stand in the prompt and it answers with a letter, or it answers with the text of
a choice that it has not seen."""

MOST = len(string.ascii_uppercase)
ANSWER_WORDS = frozenset(["yes", "no", "true", "false", "maybe", "neither"])
"""Choices of these words only are asked for by the question itself, as in BoolQ, RTE or ANLI. They keep their words in
lm-eval and HELM, and so here."""

_CUE = re.compile(r"\n[ \t]*(?:answer|a)[ \t]*:\s*$", re.IGNORECASE)
"""A last line that asks for the answer: it comes after the options."""


def with_options(example: Example, options: Options = "letters") -> Example:
    """The example with its choices listed in the instruction and their letters as choices; some are left as they are.

    These do not change, whatever `options` is:

    - examples without choices;
    - choices that are letters or other labels of a list in the instruction;
    - choices of `ANSWER_WORDS` only;
    - examples of another judge than `letter`, which reads an answer's text.

    If the instruction lists just these choices with the letters A, B, ..., it does not change either, but the letters
    become the choices; so do the labels of such a list at its end in another order, or with a, b, ... or 1, 2, ...
    Choices that begin with such labels themselves are listed as they are. The last user turn of a chat is its
    instruction.

    Args:
        example: an example whose choices may be texts.
        options: "letters", or "text" for no change.

    Raises:
        DataError: there are more choices than letters.
    """
    texts = example.choices
    if options == "text" or not texts or example.options or example.judge not in ("", "letter"):
        return example
    if len(texts) > MOST:
        raise DataError(
            f"{example.id}: {len(texts)} choices are more than the {MOST} letters; set data.options=text"
        )
    own = labels.own(texts)
    if not own and _are_labels(example.instruction, texts):
        return example
    if {text.lower() for text in texts} <= ANSWER_WORDS:
        return example
    scored = tuple(string.ascii_uppercase[: len(texts)])
    instruction = example.instruction
    if not _lists(instruction, texts):
        listed = labels.listed(instruction, labels.without(texts))
        scored = listed or own or scored
        if not listed:
            instruction = f"{_CUE.sub('', instruction).rstrip()}\n{listing(texts)}"
    return replace(
        example,
        instruction=instruction,
        response=scored[texts.index(example.response)],
        choices=scored,
        options=texts,
    )


def _are_labels(instruction: str, choices: Sequence[str]) -> bool:
    """Whether the choices are letters A, B, ... in order, or all are labels in the instruction, as "(i)"."""
    letters = list(string.ascii_uppercase[: len(choices)])
    if [choice.strip("().:").upper() for choice in choices] == letters:
        return True
    lower = instruction.lower()
    if not all(choice.lower() in lower for choice in choices):  # far faster than the patterns
        return False
    marks = (
        rf"(?:(?<!\S){re.escape(choice)}\s?[:)]|\({re.escape(choice)}\)|^[^\S\n]*{re.escape(choice)}\.)(?=\s)"
        for choice in choices
    )
    return all(re.search(mark, instruction, re.IGNORECASE | re.MULTILINE) for mark in marks)


def _lists(instruction: str, choices: Sequence[str]) -> bool:
    """Whether the instruction lists these choices in this order as "A. ...", "(A) ..." or the like."""
    if not all(choice in instruction for choice in choices):
        return False
    items = (
        rf"\(?{letter}[).:]\s*{re.escape(choice)}"
        for letter, choice in zip(string.ascii_uppercase, choices, strict=False)
    )
    run = r"[\s,;]+".join(items)
    return re.search(rf"(?<!\S){run}(?!\w)", instruction) is not None
