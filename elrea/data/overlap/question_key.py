"""What an example asks, in one normal form: equal for two that ask the same, however they are laid out.

A question is collected again and again: in other case, with other marks and white space, under a header, as "Q: ...",
its options as "A. ...", as "(A) ..." or beside it. None of that counts. What has options is asked with them: many
stems are the same.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

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


class QuestionKey:
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
_BESIDE = 12
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
    left = text[max(0, at - _BESIDE) : at].rstrip(" ^")
    if sign == "}":  # brackets in brackets are what some questions are about; all else is LaTeX
        keeps = left.rstrip(" ^}")[-1:] in _BRACKETS
    elif sign == "!":
        keeps = _is_term(left)
    else:
        after = text[at + 1 : at + _BESIDE].lstrip(" ^([{+-*")
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
