"""What an example asks, in one normal form: equal for two that ask the same, however they are laid out.

A question is collected again and again: in other case, with other marks and white space, under a header, as "Q: ...",
its options as "A. ...", as "(A) ..." or beside it. None of that counts. What has options is asked with them: many
stems are the same.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from elrea.data.plain import plain

if TYPE_CHECKING:
    from elrea.data.examples import Example

_OPENING = re.compile(r"\s*(?:question|q)\s*:", re.IGNORECASE)
_STEPS = re.compile(r"let['’]s think step by step\.?$", re.IGNORECASE)
_CLOSING = re.compile(r"(?:^|(?<=\W))(?:the\s+)?(?:answer|a)(?:\s+is)?\s*:$", re.IGNORECASE)
_LISTING = re.compile(r"(?:^|(?<=\W))(?:answer\s+)?(?:options|choices)\s*:?$", re.IGNORECASE)
_NEAR = 40
"""Characters at a text's end in which its last words are looked for."""

_MARKER = r"(?:[-*•][ \t]+)?(\(?)([A-Za-z])([).:])(?=\s|$)"
_LINES = re.compile(rf"^[ \t]*{_MARKER}", re.MULTILINE)
_INLINE = re.compile(rf"(?:^|(?<=\s)){_MARKER}")
_SECOND = ("B.", "B)", "B:", "b.", "b)", "b:")
"""A list that has options has a second one."""
_BULLET = re.compile(r"[ \t]*[-*•][ \t]+(?=\S)")

_TURN, _OPTION = "\x1e", "\x1f"


class Asked:
    """Reads what examples ask.

    Args:
        examples: those whose headers are known, and do not count where they stand in an instruction.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        headers = dict.fromkeys(example.header for example in examples if example.header)
        worded = (r"\s+".join(map(re.escape, header.split())) for header in headers)
        self._header = re.compile(rf"\s*(?:{'|'.join(worded)})(?=\s)", re.IGNORECASE)
        self._has_header = bool(headers)

    def of(self, example: Example) -> str:
        """The example's own question, with the turns before it."""
        *_, last = self._turns(example)
        return last[-1]

    def within(self, example: Example) -> Iterator[str]:
        """All that is asked in an example: its own question and every earlier one of a chat, each of them with the
        turns before it and alone."""
        for found in self._turns(example):
            yield from dict.fromkeys(found)

    def _turns(self, example: Example) -> Iterator[tuple[str, str]]:
        """Each turn of a user: alone, and with the turns before it."""
        before = ""
        for role, text in example.history:
            if role == "user":
                alone = self._question(text, ())
                yield alone, before + alone
            if role != "system":
                before += plain(text) + _TURN
        alone = self._question(example.instruction, example.choices)
        yield alone, before + alone

    def _question(self, text: str, choices: Sequence[str]) -> str:
        stem, options = _listed(self._bare(text))
        letters = list(string.ascii_uppercase[: len(choices)])
        if [choice.strip("().:").upper() for choice in choices] != letters:
            options = [*options, *choices]
        return _OPTION.join([plain(stem), *sorted(set(map(plain, options)))])

    def _bare(self, text: str) -> str:
        """Without a header before it, "Q:", and what asks for the answer."""
        if self._has_header and (header := self._header.match(text)):
            text = text[header.end() :]
        if opening := _OPENING.match(text):
            text = text[opening.end() :]
        return _cut(_cut(text, _STEPS), _CLOSING)


def _cut(text: str, ending: re.Pattern[str]) -> str:
    """Without some last words, where they are there and not all there is."""
    text = text.rstrip()
    found = ending.search(text, max(0, len(text) - _NEAR))
    return (text[: found.start()].rstrip() if found else "") or text


def _listed(text: str) -> tuple[str, list[str]]:
    """A question without the options that its text lists, and these: "A. ...", "(A) ..." and the like anywhere, or
    lines with bullets at its end."""
    if any(second in text for second in _SECOND):
        run = _run(_LINES.finditer(text)) or _run(_INLINE.finditer(text))
        if run:
            last, _, after = text[run[-1].end() :].strip().partition("\n")
            options = [text[one.end() : two.start()] for one, two in pairwise(run)]
            return f"{_cut(text[: run[0].start()], _LISTING)}\n{after}", [*options, last]
    lines, options = text.split("\n"), []
    while lines and (bullet := _BULLET.match(lines[-1])):
        options.append(lines.pop()[bullet.end() :])
        while lines and not lines[-1].strip():
            lines.pop()
    return (_cut("\n".join(lines), _LISTING), options) if len(options) > 1 else (text, [])


def _run(markers: Iterable[re.Match[str]]) -> list[re.Match[str]]:
    """The longest run of one kind, A B C ..., the last of equally long ones; none of fewer than two."""
    runs: dict[tuple[str, str, bool], list[re.Match[str]]] = {}
    best: list[re.Match[str]] = []
    for marker in markers:
        opening, letter, closing = marker.groups()
        run = runs.setdefault((opening, closing, letter.isupper()), [])
        place = string.ascii_uppercase.index(letter.upper())
        if place == 0:
            run = runs[opening, closing, letter.isupper()] = [marker]
        elif place == len(run):
            run.append(marker)
        if len(run) > 1 and len(run) >= len(best):
            best = run
    return best
