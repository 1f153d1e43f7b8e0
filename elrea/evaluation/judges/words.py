"""Exact match with the whole response; runs of white space count as one space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elrea.evaluation.judge import Judged, no_answer, quoted

if TYPE_CHECKING:
    from elrea.data.examples import Example


def judge(text: str, example: Example) -> Judged:
    """The whole text is the answer; an empty text has none."""
    answer, right = _normal_space(text), _normal_space(example.response)
    if not answer:
        return no_answer("the text is empty")
    if answer == right:
        return Judged(True, answer, "equal word for word")
    return Judged(False, answer, f"not word for word {quoted(right)}")


def _normal_space(text: str) -> str:
    return " ".join(text.split())
