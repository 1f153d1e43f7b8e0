r"""Answers of mathematical problems: numbers as one writes them, and \boxed{} around what counts."""

from __future__ import annotations

import re
from decimal import Decimal
from math import prod

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_BARE = re.compile(r"(?:(?!\\[)\]])[^\s$])+")
"""What \\boxed holds without braces: up to white space or the formula's end."""
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d*)?|\.\d+)"
"""Commas stand for thousands alone: "93,75" is no number here, as it may be two."""
_NUMBER = re.compile(rf"[-+−]?\s?\$?\s?{_DIGITS}\s?%?")
_MAGNITUDES = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "lakh": 10**5,
    "lac": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
}
_MAGNITUDE = rf"(?:{'|'.join(_MAGNITUDES)})s?(?![a-z])"
_LARGE = re.compile(
    rf"(?<![\w.,/])(?<!/ )(?P<number>{_DIGITS})(?P<words>(?: ?{_MAGNITUDE})+)", re.IGNORECASE
)

NO_UNIT = (
    rf"(?:{_MAGNITUDE}|(?:pi|theta|sqrt|and|or|to|plus|minus|over|mod|less|fewer|squared|cubed|factorial|per ?cent"
    r"|half|halves|thirds?|quarters?|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths?"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten)(?![a-z]))"
)
"""Words that make another number of the one before them: whoever takes words for units asks here first."""


def last_boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{} of a solution, which is MATH's answer (Hendrycks et al., 2021).

    `\boxed 5`, as some solutions have it, holds what follows up to white space or the formula's end.

    Returns:
        The content without white space around it; None without a box, with an empty one or with one that is not closed.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    if not rest.startswith("{"):
        bare = _BARE.match(rest)
        return bare[0].rstrip(".,") or None if bare else None
    depth = 0
    for place, letter in enumerate(rest):
        escaped = place > 0 and rest[place - 1] == "\\"
        depth += 0 if escaped else (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:place].strip() or None
    return None


def number(text: str) -> str | None:
    """A number without thousands' commas, currency, or zeros behind the point.

    Args:
        text: "1,080", "$51.0", "- 3".

    Returns:
        "1080", "51", "-3"; None where the text is no single number: "93,75" may be two.
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    plain = re.sub(r"[,$+%\s]", "", text).replace("−", "-")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    if plain.startswith((".", "-.")):
        plain = plain.replace(".", "0.", 1)
    return "0" if plain in ("-0", "-", "") else plain


def written_out(text: str) -> str:
    """The text with "1.5 million" as 1500000, and "2 dozen" as 24."""

    def digits(found: re.Match[str]) -> str:
        words = re.findall("|".join(_MAGNITUDES), found["words"].lower())
        value = Decimal(found["number"].replace(",", "")) * prod(_MAGNITUDES[w] for w in words)
        return number(f"{value:f}") or found[0]

    return _LARGE.sub(digits, text)


def concluded(rationale: str, answer: str) -> str:
    r"""A response: the way, and last the answer in its box.

    A way whose last box is \boxed{answer} already stays as it is; another form of it is not what all readers know.
    """
    way = rationale.strip()
    boxes = list(_BOX.finditer(way))
    if boxes and way.startswith(r"\boxed{", boxes[-1].start()) and last_boxed(way) == answer:
        return way
    return f"{way}\nThe answer is \\boxed{{{answer}}}".lstrip("\n")
