r"""Answers of mathematical problems: numbers as one writes them, and \boxed{} around what counts."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_NUMBER = re.compile(r"[-+−]?\$?(?:\d[\d,]*(?:\.\d*)?|\.\d+)%?")


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
        bare = re.match(r"[^\s$]+", rest)
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
        text: "1,080", "$51.0", "-3".

    Returns:
        "1080", "51", "-3"; None where the text is no single number.
    """
    text = text.strip().replace(" ", "")
    if not _NUMBER.fullmatch(text):
        return None
    plain = text.replace(",", "").replace("$", "").replace("−", "-").lstrip("+").rstrip("%")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    if plain.startswith((".", "-.")):
        plain = plain.replace(".", "0.", 1)
    return "0" if plain in ("-0", "-", "") else plain


def concluded(rationale: str, answer: str) -> str:
    r"""A response: the way, and last the answer in its box.

    A way that ends in that box already stays as it is.
    """
    way = rationale.strip()
    if last_boxed(way) == answer and r"\boxed{" in way and not way.endswith(r"\boxed{}"):
        return way
    return f"{way}\nThe answer is \\boxed{{{answer}}}".lstrip("\n")
