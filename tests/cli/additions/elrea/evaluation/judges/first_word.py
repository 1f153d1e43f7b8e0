"""Compares the first word of a text with the response."""

from __future__ import annotations

from typing import Any

from elrea.data.examples import Example
from elrea.evaluation.judges import words


def judge(text: str, example: Example) -> Any:
    """Whether the first word is the whole response."""
    return words.judge(" ".join(text.split()[:1]), example)
