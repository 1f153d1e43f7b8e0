"""The key of an example's question: two examples that ask the same have the same key, whatever their layout.

Data sets copy questions from each other and change case, punctuation, white space and layout: under a header, as
"Q: ...", with options as "A. ...", as "(A) ..." or in a field of their own. The key ignores all of these. It contains
the options, because many multiple-choice questions have the same stem.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elrea.data.examples import Example

_OPENING = re.compile(r"\s*(?:question|q)\s*:", re.IGNORECASE)
_STEPS = re.compile(r"let['’]s think step by step\.?$", re.IGNORECASE)
_CLOSING = re.compile(r"(?:^|(?<=\W))(?:the\s+)?(?:answer|a)(?:\s+is)?\s*:$", re.IGNORECASE)
_LISTING = re.compile(r"(?:^|(?<=\W))(?:answer\s+)?(?:options|choices)\s*:?$", re.IGNORECASE)
_NEAR = 40
"""Number of characters at the end of a text that are searched for a closing phrase."""

_MARKER = r"(?:[-*•][ \t]+)?(\(?)([A-Za-z])([).:])(?=\s|$)"
_LINES = re.compile(rf"^[ \t]*{_MARKER}", re.MULTILINE)
_INLINE = re.compile(rf"(?:^|(?<=\s)){_MARKER}")
_SECOND = ("B.", "B)", "B:", "b.", "b)", "b:")
"""Ways to write the second option; a text without any of them has no list of lettered options."""
_BULLET = re.compile(r"[ \t]*[-*•][ \t]+(?=\S)")

_TURN, _OPTION = "\x1e", "\x1f"


class QuestionKey:
    """Computes the keys of questions.

    Args:
        examples: the examples whose headers are removed from the beginning of an instruction.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        headers = dict.fromkeys(example.header for example in examples if example.header)
        patterns = (r"\s+".join(map(re.escape, header.split())) for header in headers)
        self._header = re.compile(rf"\s*(?:{'|'.join(patterns)})(?=\s)", re.IGNORECASE)
        self._has_header = bool(headers)

    def key_of(self, example: Example) -> str:
        """The key of an example's own question together with the earlier turns of its chat."""
        *_, last = self._turns(example)
        return last[-1]

    def keys_in(self, example: Example) -> Iterator[str]:
        """The keys of all questions in an example: its own and those of earlier turns, each with and without the turns
        before it."""
        for keys in self._turns(example):
            yield from dict.fromkeys(keys)

    def _turns(self, example: Example) -> Iterator[tuple[str, str]]:
        """Two keys for each turn of the user: without and with the turns before it."""
        before = ""
        for role, text in example.history:
            if role == "user":
                alone = self._question(text, ())
                yield alone, before + alone
            if role != "system":
                before += plain(text) + _TURN
        alone = self._question(example.stem, example.options or example.choices)
        yield alone, before + alone

    def _question(self, text: str, choices: Sequence[str]) -> str:
        stem, options = _listed(self._bare(text))
        letters = list(string.ascii_uppercase[: len(choices)])
        if [choice.strip("().:").upper() for choice in choices] != letters:
            options = [*options, *choices]
        return _OPTION.join([plain(stem), *sorted(set(map(plain, options)))])

    def _bare(self, text: str) -> str:
        """The text without a header, "Q:" before the question, and "Answer:" and the like after it."""
        if self._has_header and (header := self._header.match(text)):
            text = text[header.end() :]
        if opening := _OPENING.match(text):
            text = text[opening.end() :]
        return _cut(_cut(text, _STEPS), _CLOSING)


def _cut(text: str, ending: re.Pattern[str]) -> str:
    """The text without a closing phrase; the whole text if it is nothing but that phrase."""
    text = text.rstrip()
    match = ending.search(text, max(0, len(text) - _NEAR))
    return (text[: match.start()].rstrip() if match else "") or text


def _listed(text: str) -> tuple[str, list[str]]:
    """The stem of a question and the options that its text lists.

    Options are "A. ...", "(A) ..." and the like anywhere in the text, or lines with bullets at its end.
    """
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
    """The longest run of markers A, B, C, ... of one kind, or the last of equal length; empty if none has two."""
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
"""Maps upper case to lower case, commas to spaces and punctuation to ^; on bytes for speed, as it reads all data."""
_STOP = re.compile(r"\.(?!\d)")
_WORD = r"[^\W\d_]{2}"
_HYPHEN = re.compile(rf"-(?=[ ^]*{_WORD})(?<!\)-)(?<!\) -)")
_STAR = re.compile(rf"\*(?<={_WORD}.)")
_GROUP = re.compile(r"\{(?=[ ^{]*[^ ^()\[\]<>{}|])|\}(?<=\w.)")
_DOUBTFUL = re.compile(r"-(?! *[.0-9])|\*|!|\}")
"""Characters that may be operators or punctuation, which the four patterns above do not decide."""
_APART = re.compile(r"[0-9] *[\\^][ \\^]*(?=\.?[0-9])")
_BESIDE = 12
"""Number of characters on each side of a sign that are looked at."""
_BRACKETS = frozenset(["", *"()[]<>{}|"])
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u215e]")
"""Superscript and subscript digits, and fractions in one character."""
_BROKEN = re.compile(r"â(?: ?[^\x00-\x7f]){2}|[ãÃÂ] ?[^\x00-\x7f]")
"""UTF-8 that was decoded as Windows-1252. In MathQA, spaces separate the characters: "â ˆ ’" is a minus."""
_SHARP = re.compile(r"(?<=[^\W_])#(?![#\w])")
"""# that belongs to the word before it, as in C#; elsewhere it is layout (a heading, #5)."""
_MARK = re.compile(r"^[ \t]*[■□▪▫●○◦◆◇▶►➤➢★☆]+(?=[ \t])", re.MULTILINE)
"""Shapes that open a line, as word processors mark the items of a list."""
_LAYOUT = frozenset("\ufffc\ufffd©®℗™℠°✓✔✗✘☐☑☒")
"""Symbols that copies of one text have or lack: of rights, check boxes, degrees, and what stands for lost ones."""
_SAME = {"−": "-", "×": "*", "∗": "*", "⁄": "/", "÷": "/"}


def plain(text: str) -> str:
    """The text in lower case without punctuation and white space, and then its symbols (currencies, emoji, shapes).

    The symbols stand at the end, in their order, so that the words round them are compared as without them. The signs
    of LaTeX and Markdown count as punctuation: 2x^{2} is 2x^2. Punctuation separates numbers, so 2^10 is not 210.
    Commas and spaces do not, because 1,600 is 1600, and copies of one question have "(2,0)", "(2, 0)" and "(20)". A
    text that is only punctuation keeps it.
    """
    words, symbols = text, ""
    if not words.isascii():
        words = unicodedata.normalize("NFKC", _RAISED.sub(r"^\g<0>", _BROKEN.sub(_repaired, words)))
        if any(map(_is_symbol, set(words))):
            symbols = "".join(filter(_is_symbol, _MARK.sub("", words)))
        words = words.translate({ord(c): _letter(c) for c in set(words) if not c.isascii()})
        words = words.casefold()
    if "#" in words:
        symbols += "#" * len(_SHARP.findall(words))
    words = words.encode(errors="replace").translate(_LOWER).decode()
    words = _STAR.sub("^", _HYPHEN.sub("^", _STOP.sub("^", words)))
    if "{" in words:
        words = _GROUP.sub("^", words)
    words = _APART.sub(_apart, _DOUBTFUL.sub(_sign, words))
    words = words.encode().translate(None, b" ^\\").decode() + symbols
    return words or " ".join(text.casefold().split())


def _repaired(match: re.Match[str]) -> str:
    """The match decoded as UTF-8; unchanged if its bytes are not UTF-8."""
    letters = match[0].replace(" ", "").replace("ã", "Ã")
    try:
        return b"".join(map(_byte, letters)).decode()
    except UnicodeError:
        return match[0]


def _byte(letter: str) -> bytes:
    try:
        return letter.encode("cp1252")
    except UnicodeEncodeError:  # Windows-1252 does not define five bytes
        return letter.encode("latin-1")


@lru_cache(maxsize=4096)
def _letter(letter: str) -> str:
    """The replacement of a character that is not ASCII: ASCII for an operator, ^ for punctuation, else itself."""
    category = unicodedata.category(letter)
    if category == "Pd":
        return "-"
    if category[0] in "CZ":
        return " "
    punctuation = category[0] == "P" or category in ("So", "Sk", "Sc")
    return _SAME.get(letter, "^" if punctuation else letter)


@lru_cache(maxsize=4096)
def _is_symbol(letter: str) -> bool:
    """Whether a character that is not ASCII says something by itself: a currency's, an emoji or a shape."""
    is_symbol = not letter.isascii() and unicodedata.category(letter) in ("So", "Sc")
    return is_symbol and letter not in _LAYOUT


def _apart(match: re.Match[str]) -> str:
    """Keep two numbers separate although the signs between them are removed."""
    return f"{match[0][0]}\0"


def _sign(match: re.Match[str]) -> str:
    """The sign itself if the characters next to it show that it is an operator, else ^."""
    text, at, sign = match.string, match.start(), match[0]
    left = text[max(0, at - _BESIDE) : at].rstrip(" ^")
    if sign == "}":  # kept next to other brackets (questions about nesting); elsewhere it is LaTeX
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
    """Whether the text ends with an operand: a number, a variable of one letter, or a closing bracket."""
    last = left[-1:]
    return (
        last.isdigit() or last in tuple(")]}|%!√") or (last.isalpha() and not _is_word(left[-2:]))
    )
