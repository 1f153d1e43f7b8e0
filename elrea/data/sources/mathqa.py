"""MathQA (Amini et al., 2019): word problems with five options, asked here without them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar, Literal

from elrea.data.corpus import Split
from elrea.data.overlap.dropped import Drops, Unparsed
from elrea.data.overlap.held_out import Overlap
from elrea.data.parts import Parts
from elrea.data.readers.tables import Row, files_of
from elrea.data.sources.boxed import NO_UNIT, number, written_out
from elrea.data.sources.problems import Problem, Problems
from elrea.errors import DataError

_LETTER = re.compile(
    r"[\s,.;]*\b(?:(?:so|hence|therefore|thus)\W+)?(?:the\s+)?(?:correct\s+)?"
    r"(?:answer|ans|option|choice)\b[\s:=\-]*(?:is\b)?[\s:=\-(\"']*\b[a-e]\b(?:[\s).\"'!]*|\s*\).{0,40})$",
    re.IGNORECASE,
)
"""How most rationales end: "answer : c .", which says nothing once the options are gone."""


@dataclass
class Mathqa(Problems):
    r"""A JSON list of Problem, Rationale, options and correct; the right option's text goes into \boxed{}."""

    overlap: Overlap = "drop"
    """Some of its problems stand in train or dev and in test (17 of dev's), with other marks: "drop" them there,
    counted, or "refuse"."""
    train_split: Literal["train", "dev"] = "train"
    """The file that is trained on: dev where train.json is not there. Dev is then held out of it by `dev_size`."""

    name: ClassVar[str] = "mathqa"
    title: ClassVar[str] = "MathQA"
    public: ClassVar[str] = "regisss/math_qa"
    holds: ClassVar[str] = "MathQA's train.json, dev.json and test.json"
    kind: ClassVar[str] = "category"

    def parts(self) -> Parts:
        """Read the files; a dev file that is not there is no dev split.

        Raises:
            DataError: anything wrong with them, with the entry.
        """
        drops = Drops()
        train = self.examples(self._rows(self.train_split), "train", drops)
        has_dev = self.train_split == "train" and self._has("dev")
        dev = self.examples(self._rows("dev"), "dev", drops) if has_dev else ()
        test = self.examples(self._rows("test"), "test", drops)
        note = "MathQA without options" + (", trained on dev" if self.train_split == "dev" else "")
        return Parts(train, dev, test, drops, note)

    def _has(self, split: Split) -> bool:
        place = self.place()
        return place is None or bool(files_of(place, split))

    def _rows(self, split: Split) -> list[Row]:
        place = self.place()
        if place is None:
            return list(self.hub_rows("validation" if split == "dev" else split))
        if split == "train" and files_of(place, "dev") and not files_of(place, "train"):
            raise DataError(
                f"{place}: no train.json in here; add it, or train on dev.json by train_split=dev"
            )
        return list(self.split_rows(split))

    def question(self, row: Row) -> str:
        """The problem without its options."""
        return self.text(row, "Problem").strip()

    def problem(self, row: Row) -> Problem:
        """The way is the rationale without its quotation marks and without the option's letter."""
        question = self.question(row)
        answer = tidy(option(self.text(row, "options"), self.text(row, "correct")))
        way = str(row.value.get("Rationale") or "").strip().strip("\"'").strip()
        return Problem(question, _LETTER.sub("", way), answer)


_OPENING = re.compile(r"(?:^|[,'\"\[]\s*)([a-e])\s*\)")
"""Where an option begins: at the start, or behind a comma or the quotation marks of a few that are printed as lists."""

_WORDS = dict(
    zip("zero one two three four five six seven eight nine ten".split(), range(11), strict=True)
)

_MARKS = str.maketrans(
    {"−": "-", "–": "-", "⁄": "/", "∶": ":", "º": "°", "²": "^2", "³": "^3"}
    | {"π": " pi ", "∏": " pi ", "√": " sqrt "}
    | {c: f" {unicodedata.normalize('NFKC', c).replace('⁄', '/')} " for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
"""Marks of several spellings to one."""

_CURRENCY = re.compile(r"^(- ?)?(?:rs|re|s|usd|euros?|\$|₹|£|€)\s*[.:]?\s*(?=-? ?\d)")
_LENGTH = r"(?:mm|cm|m|km|ft|feet|inch|inches|meters?|metres?|units?)"
_SHORT = r"(?:mm|cm|dm|km|kg|gm|mg|ml|cc|lb|oz|ft|sq|cu|rs|hr|am|pm|[ap] \. m|th|st|nd|rd)"
_UNIT = (
    rf"(?:(?<![a-z]){_LENGTH}\s*\^?\s*[23](?!\d)|(?<![a-z])(?:{_SHORT}|[mglsh])(?![a-z])"
    rf"|(?<![a-z])(?!{NO_UNIT})[a-z]{{3,}}(?![a-z])|(?:°|degrees?) ?[cf](?![a-z])|[%°$]|/ ?-|/(?= [a-z]))"
)
"""A length to the power of 2 or 3, a word of three letters or more, a shorter unit, "per" or the rupees' "/ -"; other
letters may be variables."""
_UNITS = re.compile(rf"(?:(?<=[\d)}}])|(?<=\\pi))(?:\s*{_UNIT}(?:\s*\.)?)+$")

_SPACED = re.compile(r"(?<![\d.,])(?<!\d ,)(?<!\d , )\d{1,3}(?: ?, ?\d{3})+(?!\d)")
"""A number whose thousands may be apart: "1,000 , 000,000"."""
_VALUE = re.compile(
    r"(?:\\(?:pi|sqrt|frac)"
    r"|(?<![a-z\\])(?:and|(?!by|or|to|of|is|no|am|pm)[a-z]{1,2}(?! ?\d))(?![a-z])"
    r"|(?<![\d.])(?<![\d)}] )\d+(?:\.\d+)?(?![\d.])"
    r"|[:/](?! ?0+(?![\d.]))|[-+*^=,!(){} ])+(?<![-+*/^=:, ])"
)
"""What can be compared: numbers, \\pi, roots, fractions and variables with marks between them; no other words, and no
number straight behind another or behind a variable."""


def option(options: str, letter: str) -> str:
    """The text of an option.

    Args:
        options: all of them as published.
        letter: of the right one, "c".

    Raises:
        Unparsed: the letters are not each there once in order, or the text is empty.
    """
    letter = letter.strip()
    found = list(_OPENING.finditer(options))
    letters = [match[1] for match in found]
    if letters != list("abcde")[: len(letters)] or letter not in letters:
        raise Unparsed("the options cannot be told apart")
    index = letters.index(letter)
    end = found[index + 1].start() if index + 1 < len(found) else len(options)
    text = options[found[index].end() : end].strip(" ,'\"[]")
    # A letter that stands twice: "a ) a ) 3", "a ) a . 3", "a ) a : 3".
    text = re.sub(rf"^(?:[a-e]\s*[).]|{letter}\s*:)\s*", "", text).strip()
    if not text:
        raise Unparsed("the right option is empty")
    return text


def tidy(text: str) -> str:
    r"""An option's text as one writes it: "rs . 400" is 400, "2 1 / 2 days" 2\frac{1}{2}, "8 pi feet" 8 \pi.

    Currency and units go where the rest is one value, as they do in MATH's own normal form; "q = 35" is 35, and
    "1 million" 1000000. Ratios, sets, pairs and formulas ("2 : 3", "3 and 6", "n - 1") stay.

    Raises:
        Unparsed: the text comes to no value that an answer could be compared with: "1 hr 8 min", "10.5 by 3.5".
    """
    text = _spelt(text)
    if text in _WORDS:
        return str(_WORDS[text])
    if not re.search(r"\d|\\pi", text):
        raise Unparsed("no number in the answer")
    text = _CURRENCY.sub(r"\1", text)
    text = re.sub(r"^[a-z] = (?=[^=]*$)", "", text)
    bare = _UNITS.sub("", text).strip()
    if plain := number(bare):
        return plain
    several = bare != text and re.search(r"(?<![a-z\\])[a-z]|,", bare)
    if (
        several
        or bare.count("(") != bare.count(")")
        or not _VALUE.fullmatch(bare := _fractions(bare))
    ):
        raise Unparsed("no one value in the answer")
    return bare


def _spelt(text: str) -> str:
    """Marks, roots, thousands and magnitudes in one spelling."""
    text = " ".join(text.translate(_MARKS).split()).rstrip(" .")
    text = re.sub(r"(^|[-+$(] ?)\. ?(?=\d)", r"\g<1>0.", text)
    text = written_out(_SPACED.sub(_joined, text))
    text = re.sub(
        r"(?<![a-z\\])sqrt ?(\d+(?:\.\d+)?|\( ?[^()]*\))",
        lambda root: rf"\sqrt{{{root[1].strip('() ')}}}",
        text,
    )
    return re.sub(r"(?<![a-z\\])pi(?![a-z])", r"\\pi", text)


def _joined(found: re.Match[str]) -> str:
    """Thousands without commas; "30 , 500" may as well be two numbers, without a third group or decimals behind it."""
    sure = re.search(r"\d,\d", found[0]) or re.match(r"\.\d", found.string[found.end() :])
    if not sure:
        raise Unparsed("no one value in the answer")
    return re.sub(r"[ ,]", "", found[0])


def _fractions(text: str) -> str:
    r"""Mixed numbers, and a fraction that is all, with \frac."""
    text = re.sub(r"^- (?=[\d\\(])", "-", text)
    text = re.sub(
        r"(?<![\d.)}^/])(?<![)}^/] )\b(\d+) (\d+) ?/ ?(\d+)(?![\d.])", r"\1\\frac{\2}{\3}", text
    )
    return re.sub(r"^(-?)(\d+) ?/ ?(\d+)$", r"\1\\frac{\2}{\3}", text)
