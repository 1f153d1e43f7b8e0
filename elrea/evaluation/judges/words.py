"""The response, word for word: white space counts as one space, and nothing else is forgiven."""

from __future__ import annotations

from elrea.data.examples import Example
from elrea.evaluation.judges import NOBODY, Judged


def judge(text: str, example: Example) -> Judged:
    """The whole text is the answer; an empty one is none."""
    answer = _plain(text)
    return Judged(answer == _plain(example.response), answer) if answer else NOBODY


def _plain(text: str) -> str:
    return " ".join(text.split())
