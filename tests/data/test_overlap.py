"""What counts as the same question."""

from __future__ import annotations

import pytest

from elrea.data.examples import Example
from elrea.data.overlap import asked


def same(one: str, other: str, judge: str = "maths") -> bool:
    first, second = (Example("x", text, "r", "s", judge=judge) for text in (one, other))
    return asked(first) == asked(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Drawing a ` ` queen ' ' from 52 cards ?", "drawing a queen from 52 cards?"),
        ("john has $ 1,600 .", "John has $1600"),
        ("his average by 0.4 . the age :", "his average by 0.4 the age ?"),
    ],
)
def test_marks_and_capitals_do_not_count_in_mathematics(one, other):
    assert same(one, other)
    assert not same(one, other, judge="")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 1.2?", "What is 12?"),
        ("$x+2$", "$x-2$"),
        ("3 < 4", "3 > 4"),
        ("10 trains", "28 trains"),
        ("2/3", "23"),
    ],
)
def test_digits_and_operators_do(one, other):
    assert not same(one, other)
