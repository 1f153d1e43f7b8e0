r"""Reads and writes answers of mathematical problems: plain numbers, and the answer in \boxed{}."""

from __future__ import annotations

import re
from decimal import Decimal
from math import prod

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_BARE = re.compile(r"(?:(?!\\[)\]])[^\s$])+")
"""The content of a \\boxed without braces: up to white space or the formula's end."""
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d*)?|\.\d+)"
"""Commas may only separate thousands: "93,75" is not a number here, because it may be two."""
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
"""Words that change the value of the number before them, so they must not be removed as units."""


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{} of a solution, which is the answer in MATH (Hendrycks et al., 2021).

    Some solutions write `\boxed 5`: the content then ends at white space or the formula's end.

    Returns:
        The content without surrounding white space; None if there is no box, or if it is empty or not closed.
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
    """A number in its normal form: without thousands' commas, currency, or trailing zeros after the point.

    Args:
        text: "1,080", "$51.0", "- 3".

    Returns:
        "1080", "51", "-3"; None if the text is not a single number: "93,75" may be two.
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
    """The text with magnitudes in digits: "1.5 million" is 1500000, and "2 dozen" is 24."""

    def digits(found: re.Match[str]) -> str:
        words = re.findall("|".join(_MAGNITUDES), found["words"].lower())
        value = Decimal(found["number"].replace(",", "")) * prod(_MAGNITUDES[w] for w in words)
        return number(f"{value:f}") or found[0]

    return _LARGE.sub(digits, text)


def concluded(rationale: str, answer: str) -> str:
    r"""A response: the rationale, and then the answer in a box.

    A rationale whose last box is \boxed{answer} is returned unchanged. Another form of the box, as `\boxed 5`, is not
    enough, because not all graders can read it.
    """
    steps = rationale.strip()
    boxes = list(_BOX.finditer(steps))
    if boxes and steps.startswith(r"\boxed{", boxes[-1].start()) and last_boxed(steps) == answer:
        return steps
    return f"{steps}\nThe answer is \\boxed{{{answer}}}".lstrip("\n")
