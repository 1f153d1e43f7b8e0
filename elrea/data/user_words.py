"""Finds the words of a chat's user turns in the text that a chat template makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

from elrea.errors import DataError

if TYPE_CHECKING:
    from elrea.data.templates import Turn

_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Code points without a meaning of their own."""

Spans = tuple[tuple[int, int], ...]


def user_words(
    said: Sequence[Turn], text: str, render: Callable[[list[Turn]], str], name: str
) -> Spans:
    """Character positions [start, end) of the words of the turns that route, in order.

    The turns are rendered once more with a mark at the beginning and end of each turn's words, inside the white space
    round them, which many templates strip.

    Args:
        said: the turns.
        text: what the template makes of them.
        render: the template.
        name: the example's id, for the error.

    Raises:
        DataError: the template changes the words.
    """
    begin, end = unused("".join(turn.text for turn in said) + text, 2)
    marked = [
        replace(turn, text=_marked(turn.text, begin, end)) if turn.routes else turn for turn in said
    ]
    spans, position, plain = [], 0, []
    for piece in render(marked).split(begin):
        words, has_end, rest = piece.partition(end)
        if has_end:
            spans.append((position, position + len(words)))
        plain += [words, rest]
        position += len(words) + len(rest)
    wanted = sum(turn.routes for turn in said)
    if "".join(plain) == text and len(spans) == wanted:
        return tuple(spans)
    return searched(said, text, name)


def searched(said: Sequence[Turn], text: str, name: str) -> Spans:
    """The same by a search from left to right, for templates that look at how a turn begins.

    It mistakes a word of the template for one of the user's if both are the same.

    Raises:
        DataError: words are not found.
    """
    spans, position = [], 0
    for turn in said:
        words = turn.text.strip()
        found = text.find(words, position)
        if found >= 0:
            position = found + len(words)
        if turn.routes:
            if found < 0:
                raise DataError(
                    f"{name}: the chat template changes the words of a turn; set"
                    " backbone.use_chat_template=false"
                )
            spans.append((found, position))
    return tuple(spans)


def _marked(text: str, begin: str, end: str) -> str:
    words = text.strip()
    if not words:
        return f"{begin}{text}{end}"
    first = text.index(words)
    return f"{text[:first]}{begin}{words}{end}{text[first + len(words) :]}"


def unused(text: str, count: int) -> tuple[str, ...]:
    """Characters of private use that a text does not have, to mark places in it.

    Raises:
        DataError: the text has them all.
    """
    known = set(text)
    marks = tuple(islice((char for char in map(chr, chain(*_PRIVATE)) if char not in known), count))
    if len(marks) < count:
        raise DataError("a text has every code point of private use; remove one of them")
    return marks
