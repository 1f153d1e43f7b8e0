"""Finds the labels of choices: those that they begin with, and those of a list at the end of a question."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence

_CLOSING = {"": ").:", "(": ")", "[": "]"}
"""What may follow a label, by what is before it."""
_FIRST = re.compile(r"[(\[]?[Aa1][)\].:]")
"""The label of a first choice. Most texts have none, which is far sooner seen than that they have no list."""
_NEXT = r"\.?[\s,;|]+(?:(?:or|and)\s+)?(?:[-*•]\s+)?"
"""Between two items of a list."""
_END = (
    r"(?=[.?!;]?\s*(?i:(?:(?:the|your)\s+)?(?:correct\s+)?(?:answer|choose|select|pick|reply|respond)\b[^\n]*|a\s*:)?"
    r"\s*\Z)"
)
"""Behind the last item: at most a line that asks for the answer."""


def own(texts: Sequence[str]) -> tuple[str, ...]:
    """The labels that choices begin with, as "A) ..." and "B) ...": A, B, ... or a, b, ... or 1, 2, ... in order.

    Returns:
        A label for each choice, without its brackets; empty if the choices have none.
    """
    return next((labels for labels, _ in _own(texts)), ())


def without(texts: Sequence[str]) -> tuple[str, ...]:
    """Choices without the labels that they begin with (`own`)."""
    return next((rest for _, rest in _own(texts)), tuple(texts))


def _own(texts: Sequence[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    if not texts or not _FIRST.match(texts[0]):
        return
    for labels in _orders(len(texts)):
        for before, closings in _CLOSING.items():
            for after in closings:
                # "1: 2" is a ratio, and "A.B" a name.
                if labels[0] == "1" and after == ":":
                    continue
                space = r"\s+" if after in ".:" else r"\s*"
                found = [
                    re.match(rf"{re.escape(before + label + after)}{space}(?=\S)", text)
                    for label, text in zip(labels, texts, strict=True)
                ]
                rest = tuple(
                    text[mark.end() :] for mark, text in zip(found, texts, strict=True) if mark
                )
                if len(rest) == len(texts) > 1:
                    yield labels, rest


def listed(text: str, options: Sequence[str]) -> tuple[str, ...]:
    """The labels that a list at the end of a text gives to these options, of which it has no other.

    The list has the labels A, B, ... or a, b, ... or 1, 2, ... in order; the options may be in any order.

    Returns:
        A label for each option, without its brackets; empty if the text does not end with such a list.
    """
    first = {mark[0].strip("()[].:") for mark in _FIRST.finditer(text)}
    if not first or not all(option in text for option in options):
        return ()
    words = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
    for labels in _orders(len(options)):
        if labels[0] not in first:
            continue
        items = (rf"[(\[]?{label}(?:[)\]]|[.:](?!\d))\s*({words})" for label in labels)
        found = re.search(rf"(?<!\S){_NEXT.join(items)}{_END}", text)
        if found and set(found.groups()) == set(options):
            place = {option: label for label, option in zip(labels, found.groups(), strict=True)}
            return tuple(place[option] for option in options)
    return ()


def _orders(count: int) -> Iterator[tuple[str, ...]]:
    """The first labels of each kind."""
    if count <= len(string.ascii_uppercase):
        yield tuple(string.ascii_uppercase[:count])
        yield tuple(string.ascii_lowercase[:count])
    yield tuple(str(number) for number in range(1, count + 1))
