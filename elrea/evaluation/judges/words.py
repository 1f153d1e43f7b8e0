"""Exact match with the whole response; runs of white space count as one space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elrea.evaluation.judge import NO_ANSWER, Judged

if TYPE_CHECKING:
    from elrea.data.examples import Example


def judge(text: str, example: Example) -> Judged:
    """The whole text is the answer; an empty text has none."""
    answer = _normal_space(text)
    return Judged(answer == _normal_space(example.response), answer) if answer else NO_ANSWER


def _normal_space(text: str) -> str:
    return " ".join(text.split())
