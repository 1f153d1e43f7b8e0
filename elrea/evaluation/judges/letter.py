"""Multiple choice by generation: reads which of the choices a text picks.

If the choices are letters, two patterns are tried, as in MMLU-Pro's evaluation: first the letter after the first
"answer is", "answer:" or similar, with or without brackets; then the first capital letter of a choice that is a word
of its own. So "A man ..." without such a phrase counts as A.

If they are lower-case letters, "a" and "i" may be words. After such a phrase they count unless a word follows, so that
"the answer is a metal" has no answer. Else the first letter counts that is in brackets, in quotes or emphasised, before
")" or ".", before "," or ":" at the beginning of the text, alone on its line, or last; and if there is none, the first
one but "a" and "i" that is a word of its own. Capitals in the text count as well.

If the choices are words, the choice that appears first after such a phrase counts, or else the first one anywhere in
the text. If two choices begin at the same place, the longer one counts.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING

from elrea.errors import DataError
from elrea.evaluation.judge import Judged, no_answer, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elrea.data.examples import Example

_PHRASE = r"\b(?:answer|choice|option)\b(?:\s+is\b|\s*:)(?:\s+(?:the\s+)?(?:answer|choice|option))?[\s:*]*"
"""Introduces an answer."""

_OPENED = r"[(\[{\"'`]*(?:\\(?:text|boxed|mathrm)\{)?[(]?"
"""Brackets and quotes before a letter."""

_WORDS = "ai"
"""Letters that are words."""

_GOES_ON = r"(?![^\S\n]+[\"'*`$]*(?!(?:and|as|because|but|is|or|since)\b)\w)"
"""Not before a word that an article may stand before."""

_SET_APART = (
    r"(?:(?<=[(\[{\"'“‘*`])(?=\w[)\]}\"'”’*`])"
    r"|(?=\w\s?\)|\w\.|\w\W*\Z)"
    r"|\A\W*(?=\w\s?[,:;])"
    r"|(?m:^[^\w\n]*(?=\w[^\w\n]*$)))"
)
"""Before a letter that is no word of a sentence: in brackets, before ")" or ".", last, first, alone on its line."""


def judge(text: str, example: Example) -> Judged:
    """Compares the choice that the text picks with the response; a text that picks none has no answer."""
    for pattern in _patterns(example.choices):
        if match := pattern.search(text):
            choice = _choice(match, example.choices)
            right = choice == example.response
            kind = "letter" if _labels(example.choices) else "choice"
            why = f"{kind} {choice} read from {quoted(match[0])}"
            return Judged(right, choice, why if right else f"{why}, not {example.response}")
    return no_answer(f"none of the {'letters' if _labels(example.choices) else 'choices'} found")


def check(example: Example) -> None:
    """Refuses an example without choices.

    Raises:
        DataError: It has none.
    """
    if not example.choices:
        raise DataError(f"{example.id}: judge 'letter' needs choices, and this example has none")


@lru_cache(maxsize=1024)
def _patterns(choices: tuple[str, ...]) -> list[re.Pattern[str]]:
    """The patterns to try in this order; the group c<i> is choice i."""
    longest = sorted(range(len(choices)), key=lambda i: len(choices[i]), reverse=True)
    any_choice = f"(?:{'|'.join(f'(?P<c{i}>{_whole_word(choices[i])})' for i in longest)})"
    if _letters(choices):
        # The letter has to be a capital, or "the answer is a number" would be A.
        introduced = rf"(?i:{_PHRASE}){_OPENED}{any_choice}"
        return [re.compile(introduced), re.compile(any_choice)]
    if lower_case(choices):
        return _of_small_letters(choices)
    return [
        re.compile(rf"{_PHRASE}\W*{any_choice}", re.IGNORECASE),
        re.compile(any_choice, re.IGNORECASE),
    ]


def _of_small_letters(choices: tuple[str, ...]) -> list[re.Pattern[str]]:
    """The patterns for lower-case letters, which are no part of a word: "e.g.", "I'd" and "e-mail" have none."""

    def any_of(letters: Iterable[int], words_only: str = "") -> str:
        each = (
            rf"(?P<c{i}>{choices[i]}){words_only if choices[i] in _WORDS else ''}" for i in letters
        )
        return rf"(?<!\w)(?<!\w['’.−-])(?:{'|'.join(each)})(?!\w|['’.−-]\w)"

    everything = range(len(choices))
    found = [f"{_PHRASE}{_OPENED}{any_of(everything, _GOES_ON)}", _SET_APART + any_of(everything)]
    if others := [i for i in everything if choices[i] not in _WORDS]:
        found.append(any_of(others))
    return [re.compile(pattern, re.IGNORECASE) for pattern in found]


def _labels(choices: tuple[str, ...]) -> bool:
    return _letters(choices) or lower_case(choices)


def _letters(choices: tuple[str, ...]) -> bool:
    return all(choice in string.ascii_uppercase and len(choice) == 1 for choice in choices)


def lower_case(choices: tuple[str, ...]) -> bool:
    """Whether all choices are lower-case letters, of which some may be words."""
    each = (choice in string.ascii_lowercase and len(choice) == 1 for choice in choices)
    return bool(choices) and all(each)


def _whole_word(choice: str) -> str:
    """Matches a choice that is not part of a longer word or number: "1" is not found in "-1", "0.1" or "1.5"."""
    before = r"(?<![\w−-])(?<!\d[.,/])" if choice[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w|[.,/]\d)" if choice[-1:].isdigit() else r"(?!\w)"
    return before + re.escape(choice) + after


def _choice(match: re.Match[str], choices: tuple[str, ...]) -> str:
    """The choice that was matched; of two that differ in case only, the one with the text's spelling."""
    assert match.lastgroup is not None
    written = match[match.lastgroup]
    return written if written in choices else choices[int(match.lastgroup.removeprefix("c"))]
