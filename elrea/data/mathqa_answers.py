"""MathQA's options: the right one's text, and its number without currency and units.

The published options are lower case with spaces between all marks: "a ) rs . 400 , b ) 31 / 36 , …".
"""

from __future__ import annotations

import re

from elrea.data.boxed import number
from elrea.data.drops import Unparsed

_OPENING = re.compile(r"(?:^|[,'\"\[]\s*)([a-e])\s*\)")
"""Where an option begins: at the start, or behind a comma or the quotation marks of a few that are printed as lists."""

_AGAIN = re.compile(r"^[a-e]\s*\)\s*")
"""A letter that stands twice: "a ) a ) 3"."""

_WORDS = dict(
    zip("zero one two three four five six seven eight nine ten".split(), range(11), strict=True)
)

_LENGTH = r"(?:mm|cm|m|km|ft|feet|inch|inches|meters?|metres?|units?)"
_UNIT = rf"(?:{_LENGTH}\s*\^?\s*[23]|[a-z]{{2,}}|[mglsh%°$]|/(?= [a-z]))"
"""A length to the power of 2 or 3, a word of two letters or more, a unit of one, or "per"; a single letter else may
be a variable."""

_AMOUNT = re.compile(
    rf"(?:(?:rs|re|s|usd|\$|₹|£|€)\s*\.?\s*)?(?P<number>-?\s?\d[\d,]*(?:\.\d+)?|-?\s?\.\d+)"
    rf"\s*(?:{_UNIT}\s*\.?\s*)*",
)


def option(options: str, letter: str) -> str:
    """The text of an option.

    Args:
        options: all of them as published.
        letter: of the right one, "c".

    Raises:
        Unparsed: the letters are not each there once in order, or the text is empty.
    """
    found = list(_OPENING.finditer(options))
    letters = [match[1] for match in found]
    if letters != list("abcde")[: len(letters)] or letter.strip() not in letters:
        raise Unparsed("the options cannot be told apart")
    index = letters.index(letter.strip())
    end = found[index + 1].start() if index + 1 < len(found) else len(options)
    text = options[found[index].end() : end].strip(" ,'\"[]")
    text = _AGAIN.sub("", text).strip()
    if not text:
        raise Unparsed("the right option is empty")
    return text


def tidy(text: str) -> str:
    r"""An option's text as one writes it: "rs . 400" is 400, "2 1 / 2 days" is 2\frac{1}{2}.

    Currency and units go where the rest is one number, as they do in MATH's own normal form. Whatever else the text
    holds ("2 : 3", "x = 3") stays.
    """
    text = " ".join(text.replace("−", "-").replace("–", "-").replace("⁄", "/").split())
    text = text.rstrip(" .")
    if text in _WORDS:
        return str(_WORDS[text])
    if amount := _AMOUNT.fullmatch(text):
        return number(amount["number"]) or text
    mixed = re.fullmatch(rf"(?:(-?\s?\d+) )?(-?\s?\d+) ?/ ?(\d+)\s*(?:{_UNIT}\s*\.?\s*)*", text)
    if mixed:
        whole, top, bottom = (part.replace(" ", "") if part else "" for part in mixed.groups())
        sign = "-" if top.startswith("-") and not whole else ""
        return f"{whole}{sign}\\frac{{{top.lstrip('-')}}}{{{bottom}}}"
    text = re.sub(r"√ ?(\d+|\( ?[^()]*\))", lambda m: f"\\sqrt{{{m[1].strip('() ')}}}", text)
    return text.replace("π", "\\pi ").replace("%", "\\%").strip()
