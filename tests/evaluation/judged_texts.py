"""An example for a judge, and its judgement of a text."""

from __future__ import annotations

from elrea.data.examples import Example
from elrea.evaluation.judge import Judged, judge_of


def asked(judge: str, response: str, choices: tuple[str, ...] = ()) -> Example:
    return Example("here:1", "Why?", response, "source", choices=choices, judge=judge)


def judged(text: str, example: Example) -> Judged:
    return judge_of(example)(text, example)
