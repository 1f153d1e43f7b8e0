"""Test questions that stand in train: refused, or taken out of train and counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from elrea.data.drops import Drops
from elrea.data.examples import Example
from elrea.errors import DataError

Overlap = Literal["refuse", "drop"]

_MARKS = re.compile(r"(?<!\d)\.|\.(?!\d)|[^\w+\-*/^=<>%()\[\]{}|\\!.]")
"""Marks that do not change what a problem asks; a full stop inside a number does."""


def asked(example: Example) -> tuple[str, ...]:
    """What an example asks, to compare by: equal for two that ask the same.

    Mathematical problems are collected again and again with other quotation marks, capitals and thousands' commas (17
    of MathQA's dev problems stand in its test so): there these count as nothing, operators and digits as ever.
    """
    if example.judge != "maths":
        return example.question
    words = " ".join(example.question).casefold()
    return (_MARKS.sub("", words),)


def settle(
    train: Sequence[Example],
    test: Sequence[Example],
    overlap: Overlap,
    drops: Drops,
    name: str,
) -> tuple[Example, ...]:
    """Train without test's questions.

    Args:
        train: what is trained on.
        test: what is scored, all of it: a limit that is raised later is to leave train as it is.
        overlap: what to do where they meet.
        drops: told what was taken out.
        name: the source's, for the message.

    Raises:
        DataError: they meet, and `overlap` is "refuse".
    """
    tested = {asked(example) for example in test}
    shared = {example.id: example for example in train if asked(example) in tested}
    if shared and overlap == "refuse":
        trained = {asked(example): id for id, example in reversed(shared.items())}
        met = [example for example in test if asked(example) in trained]
        raise DataError(
            f"{name}: {len(met):,} of {len(test):,} test questions stand in train, first {met[0].id}"
            f" (train: {trained[asked(met[0])]}); set data.overlap=drop to leave them out of train,"
            " or data.allow_overlap=true"
        )
    for example in shared.values():
        drops.add(example.source, "dropped from train", "stands in test", example.id)
    return tuple(example for example in train if example.id not in shared)
