"""A question's words in one normal form: equal for two texts that differ in case, marks and white space alone.

Digits, operators and brackets stay, for "3 + 4" and "3 - 4" are two questions. What looks like an operator is one where
a number or a variable stands beside it: "5 - 3" and "c - a" have a minus, "5-year-old" and "word - word" have none.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SPACES, _MARKS = bytes([*range(33), 44]), b"\"'`?;:#@~&$^_"
_LOWER = bytes.maketrans(
    _SPACES + _MARKS + bytes(range(65, 91)),
    b" " * len(_SPACES) + b"^" * len(_MARKS) + bytes(range(97, 123)),
)
"""ASCII in lower case, commas as spaces and marks as ^; bytes, as these pass over every letter of all training data."""
_STOP = re.compile(r"\.(?!\d)")
_WORD = r"[^\W\d_]{2}"
_HYPHEN = re.compile(rf"-(?=[ ^]*{_WORD})(?<!\)-)(?<!\) -)")
_STAR = re.compile(rf"\*(?<={_WORD}.)")
_GROUP = re.compile(r"\{(?=[ ^{]*[^ ^()\[\]<>{}|])|\}(?<=\w.)")
_DOUBTFUL = re.compile(r"-(?! *[.0-9])|\*|!|\}")
"""What may be an operator or a mark and needs a closer look than the four above."""
_APART = re.compile(r"[0-9] *[\\^][ \\^]*(?=\.?[0-9])")
_NEAR = 12
"""Characters that are looked at on either side of a sign."""
_BRACKETS = frozenset(["", *"()[]<>{}|"])
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u215e]")
"""Digits above or below the line, and fractions of one letter."""
_BROKEN = re.compile(r"â(?: ?[^\x00-\x7f]){2}|[ãÃÂ] ?[^\x00-\x7f]")
"""UTF-8 that was read as Windows-1252; MathQA has spaces in between: "â ˆ ’" is a minus."""
_SAME = {"−": "-", "×": "*", "∗": "*", "⁄": "/", "÷": "/"}


def plain(text: str) -> str:
    """The text in lower case without marks and white space.

    LaTeX's and Markdown's own signs are marks: 2x^{2} is 2x^2. Marks keep numbers apart, so that 2^10 is not 210;
    commas and spaces do not, for 1,600 is 1600, and copies have "(2,0)", "(2, 0)" and, without its comma, "(20)". A
    text of nothing but marks stays as it is.
    """
    words = text
    if not words.isascii():
        words = unicodedata.normalize("NFKC", _RAISED.sub(r"^\g<0>", _BROKEN.sub(_mended, words)))
        words = words.translate({ord(c): _letter(c) for c in set(words) if not c.isascii()})
        words = words.casefold()
    words = words.encode(errors="replace").translate(_LOWER).decode()
    words = _STAR.sub("^", _HYPHEN.sub("^", _STOP.sub("^", words)))
    if "{" in words:
        words = _GROUP.sub("^", words)
    words = _APART.sub(_apart, _DOUBTFUL.sub(_sign, words))
    words = words.encode().translate(None, b" ^\\").decode()
    return words or " ".join(text.casefold().split())


def _mended(match: re.Match[str]) -> str:
    """What the bytes say in UTF-8; the match itself where they say nothing."""
    letters = match[0].replace(" ", "").replace("ã", "Ã")
    try:
        return b"".join(map(_byte, letters)).decode()
    except UnicodeError:
        return match[0]


def _byte(letter: str) -> bytes:
    try:
        return letter.encode("cp1252")
    except UnicodeEncodeError:  # five bytes that Windows-1252 leaves out
        return letter.encode("latin-1")


@lru_cache(maxsize=4096)
def _letter(letter: str) -> str:
    """A letter that is not ASCII: itself, ^ for a mark, ASCII for an operator."""
    category = unicodedata.category(letter)
    if category == "Pd":
        return "-"
    if category[0] in "CZ":
        return " "
    mark = category[0] == "P" or category in ("So", "Sk", "Sc")
    return _SAME.get(letter, "^" if mark else letter)


def _apart(match: re.Match[str]) -> str:
    """Two numbers without what stood between them."""
    return f"{match[0][0]}\0"


def _sign(match: re.Match[str]) -> str:
    """An operator as it is, a mark as ^, by what stands beside it."""
    text, at, sign = match.string, match.start(), match[0]
    left = text[max(0, at - _NEAR) : at].rstrip(" ^")
    if sign == "}":  # brackets in brackets are what some questions are about; all else is LaTeX
        keeps = left.rstrip(" ^}")[-1:] in _BRACKETS
    elif sign == "!":
        keeps = _is_term(left)
    else:
        after = text[at + 1 : at + _NEAR].lstrip(" ^([{+-*")
        number = after[:1].isdigit() or after[:1] in tuple(".√")
        variable = after[:1] == "\\" or (after[:1].isalpha() and not _is_word(after[:2]))
        function = left[-1:] == ")" or (sign == "*" and left[-1:].isdigit())
        keeps = (sign == "-" and number) or (_is_term(left) and (number or variable or function))
    return sign if keeps else "^"


def _is_word(two: str) -> bool:
    return len(two) == 2 and two.isalpha()


def _is_term(left: str) -> bool:
    """Whether what ends here may be reckoned with: a number, a variable of one letter, a closing bracket."""
    last = left[-1:]
    return (
        last.isdigit() or last in tuple(")]}|%!√") or (last.isalpha() and not _is_word(left[-2:]))
    )
