"""Multiple choice by generation: which of the choices a text settles on.

Where the choices are letters, the field's two steps (as MMLU-Pro has them): the letter behind the first "answer is",
"answer:" or the like, in brackets or not; else the first capital letter of a choice that stands alone. So "A man ..."
without such a phrase counts as A.

Where the choices are words, the choice that is named first behind such a phrase, else anywhere; of two that begin at
one place, the longer.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

from elrea.data.examples import Example
from elrea.errors import DataError
from elrea.evaluation.judges import NOBODY, Judged

_PHRASE = r"\b(?:answer|choice|option)\b(?:\s+is\b|\s*:)(?:\s+(?:the\s+)?(?:answer|choice|option))?[\s:*]*"
"""Stands before an answer."""


def judge(text: str, example: Example) -> Judged:
    """The choice that a text settles on; of none, there is no answer."""
    for pattern in _patterns(example.choices):
        if found := pattern.search(text):
            choice = _chosen(found["choice"], example.choices)
            return Judged(choice == example.response, choice)
    return NOBODY


def check(example: Example) -> None:
    """Refuses an example without choices.

    Raises:
        DataError: It has none.
    """
    if not example.choices:
        raise DataError(f"{example.id}: judge 'letter' wants choices, and it has none")


@lru_cache(maxsize=1024)
def _patterns(choices: tuple[str, ...]) -> list[re.Pattern[str]]:
    """What to look for, one after the other."""
    letters = all(choice in string.ascii_uppercase and len(choice) == 1 for choice in choices)
    longest = sorted(choices, key=len, reverse=True)
    one = rf"(?P<choice>{'|'.join(map(re.escape, longest))})"
    alone = rf"(?<!\w){one}(?!\w)"
    if letters:
        # Case counts for the letter, or "the answer is a number" would be A.
        said = rf"(?i:{_PHRASE})[(\[{{\"'`]*(?:\\(?:text|boxed|mathrm)\{{)?[(]?{alone}"
        return [re.compile(said), re.compile(alone)]
    return [
        re.compile(rf"{_PHRASE}\W*{alone}", re.IGNORECASE),
        re.compile(alone, re.IGNORECASE),
    ]


def _chosen(found: str, choices: tuple[str, ...]) -> str:
    """The choice as it is spelt; of two that differ in case alone, the one that was written."""
    if found in choices:
        return found
    return next(choice for choice in choices if choice.lower() == found.lower())
