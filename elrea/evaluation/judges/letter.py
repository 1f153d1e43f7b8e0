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
            choice = _chosen(found, example.choices)
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
    """What to look for, one after the other; the group c<i> is choice i."""
    letters = all(choice in string.ascii_uppercase and len(choice) == 1 for choice in choices)
    longest = sorted(range(len(choices)), key=lambda i: len(choices[i]), reverse=True)
    alone = f"(?:{'|'.join(f'(?P<c{i}>{_alone(choices[i])})' for i in longest)})"
    if letters:
        # Case counts for the letter, or "the answer is a number" would be A.
        said = rf"(?i:{_PHRASE})[(\[{{\"'`]*(?:\\(?:text|boxed|mathrm)\{{)?[(]?{alone}"
        return [re.compile(said), re.compile(alone)]
    return [
        re.compile(rf"{_PHRASE}\W*{alone}", re.IGNORECASE),
        re.compile(alone, re.IGNORECASE),
    ]


def _alone(choice: str) -> str:
    """A choice that is no part of a longer word or number: "1" stands neither in "-1" nor in "0.1" nor in "1.5"."""
    before = r"(?<![\w−-])(?<!\d[.,/])" if choice[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w|[.,/]\d)" if choice[-1:].isdigit() else r"(?!\w)"
    return before + re.escape(choice) + after


def _chosen(found: re.Match[str], choices: tuple[str, ...]) -> str:
    """The choice that was found; of two that differ in case alone, the one that was written."""
    assert found.lastgroup is not None
    written = found[found.lastgroup]
    return written if written in choices else choices[int(found.lastgroup.removeprefix("c"))]
