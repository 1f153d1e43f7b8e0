"""MathQA (Amini et al., 2019): word problems with five options, which are not shown to the model here."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar, Literal

from elrea.data.corpus import Split, Splits
from elrea.data.drops import Drops
from elrea.data.overlap.held_out import Overlap
from elrea.data.readers.tables import Row, files_of
from elrea.data.sources.boxed import NO_UNIT, number, written_out
from elrea.data.sources.problems import Problem, Problems, Unparsed
from elrea.errors import DataError

_LETTER = re.compile(
    r"[\s,.;]*\b(?:(?:so|hence|therefore|thus)\W+)?(?:the\s+)?(?:correct\s+)?"
    r"(?:answer|ans|option|choice)\b[\s:=\-]*(?:is\b)?[\s:=\-(\"']*\b[a-e]\b(?:[\s).\"'!]*|\s*\).{0,40})$",
    re.IGNORECASE,
)
"""The end of most rationales: "answer : c .", which has no meaning without the options."""


@dataclass
class Mathqa(Problems):
    r"""A JSON list of Problem, Rationale, options and correct; the right option's text goes into \boxed{}."""

    overlap: Overlap = "drop"
    """Some test problems are also in train or dev with other punctuation (17 in dev): "drop" and count them there, or
    "refuse" the data."""
    train_split: Literal["train", "dev"] = "train"
    """The file to train on: dev if there is no train.json. `dev_size` can then hold dev out of it."""

    name: ClassVar[str] = "mathqa"
    title: ClassVar[str] = "MathQA"
    public: ClassVar[str] = "regisss/math_qa"
    holds: ClassVar[str] = "MathQA's train.json, dev.json and test.json"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("Problem", "options", "correct"),)
    kind: ClassVar[str] = "category"

    def read(self) -> Splits:
        """Read the files. Without a dev file there is no dev split.

        Raises:
            DataError: a problem in the files, with the entry.
        """
        drops = Drops()
        train = self.examples(self._rows(self.train_split), "train", drops)
        has_dev = self.train_split == "train" and self.has("dev")
        dev = self.examples(self._rows("dev"), "dev", drops) if has_dev else ()
        test = self.examples(self._rows("test"), "test", drops) if self.has_test(drops) else ()
        note = "MathQA without options" + (", trained on dev" if self.train_split == "dev" else "")
        return Splits(train, dev, test, drops, note)

    def _rows(self, split: Split) -> list[Row]:
        place = self.place()
        if place is None:
            return list(self.hub_rows("validation" if split == "dev" else split))
        if split == "train" and files_of(place, "dev") and not files_of(place, "train"):
            raise DataError(
                f"{place}: no train.json in here; add it, or set data.train_split=dev to train on dev.json"
            )
        return list(self.split_rows(split))

    def question(self, row: Row) -> str:
        """The problem without its options."""
        return self.text(row, "Problem").strip()

    def problem(self, row: Row) -> Problem:
        """Parse one row; the rationale loses its quotation marks and the option's letter at its end."""
        question = self.question(row)
        answer = tidy(option(self.text(row, "options"), self.text(row, "correct")))
        rationale = str(row.value.get("Rationale") or "").strip().strip("\"'").strip()
        return Problem(question, _LETTER.sub("", rationale), answer)


_OPENING = re.compile(r"(?:^|[,'\"\[]\s*)([a-e])\s*\)")
"""The beginning of an option: at the start, after a comma, or after a quotation mark (a few rows are printed lists)."""

_WORDS = dict(
    zip("zero one two three four five six seven eight nine ten".split(), range(11), strict=True)
)

_MARKS = str.maketrans(
    {"−": "-", "–": "-", "⁄": "/", "∶": ":", "º": "°", "²": "^2", "³": "^3"}
    | {"π": " pi ", "∏": " pi ", "√": " sqrt "}
    | {c: f" {unicodedata.normalize('NFKC', c).replace('⁄', '/')} " for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)
"""Maps signs that have several spellings to one spelling."""

_CURRENCY = re.compile(r"^(- ?)?(?:rs|re|s|usd|euros?|\$|₹|£|€)\s*[.:]?\s*(?=-? ?\d)")
_LENGTH = r"(?:mm|cm|m|km|ft|feet|inch|inches|meters?|metres?|units?)"
_SHORT = r"(?:mm|cm|dm|km|kg|gm|mg|ml|cc|lb|oz|ft|sq|cu|rs|hr|am|pm|[ap] \. m|th|st|nd|rd)"
_UNIT = (
    rf"(?:(?<![a-z]){_LENGTH}\s*\^?\s*[23](?!\d)|(?<![a-z])(?:{_SHORT}|[mglsh])(?![a-z])"
    rf"|(?<![a-z])(?!{NO_UNIT})[a-z]{{3,}}(?![a-z])|(?:°|degrees?) ?[cf](?![a-z])|[%°$]|/ ?-|/(?= [a-z]))"
)
"""A length to the power of 2 or 3, a word of three or more letters, a known shorter unit, "/" before a unit, or "/ -"
after rupees. Other letters may be variables."""
_UNITS = re.compile(rf"(?:(?<=[\d)}}])|(?<=\\pi))(?:\s*{_UNIT}(?:\s*\.)?)+$")

_SPACED = re.compile(r"(?<![\d.,])(?<!\d ,)(?<!\d , )\d{1,3}(?: ?, ?\d{3})+(?!\d)")
"""A number with optional spaces around its thousands' commas: "1,000 , 000,000"."""
_VALUE = re.compile(
    r"(?:\\(?:pi|sqrt|frac)"
    r"|(?<![a-z\\])(?:and|(?!by|or|to|of|is|no|am|pm)[a-z]{1,2}(?! ?\d))(?![a-z])"
    r"|(?<![\d.])(?<![\d)}] )\d+(?:\.\d+)?(?![\d.])"
    r"|[:/](?! ?0+(?![\d.]))|[-+*^=,!(){} ])+(?<![-+*/^=:, ])"
)
"""A value that can be compared: numbers, \\pi, roots, fractions and variables with operators between them; no other
words, and no number directly after another one or after a variable."""


def option(options: str, letter: str) -> str:
    """The text of an option.

    Args:
        options: all options as published, in one text.
        letter: the letter of the option, "c".

    Raises:
        Unparsed: the letters are not a, b, c, ... in order, `letter` is not among them, or the option is empty.
    """
    letter = letter.strip()
    found = list(_OPENING.finditer(options))
    letters = [match[1] for match in found]
    if letters != list("abcde")[: len(letters)] or letter not in letters:
        raise Unparsed("the options cannot be separated")
    index = letters.index(letter)
    end = found[index + 1].start() if index + 1 < len(found) else len(options)
    text = options[found[index].end() : end].strip(" ,'\"[]")
    # Some letters are doubled: "a ) a ) 3", "a ) a . 3", "a ) a : 3".
    text = re.sub(rf"^(?:[a-e]\s*[).]|{letter}\s*:)\s*", "", text).strip()
    if not text:
        raise Unparsed("the right option is empty")
    return text


def tidy(text: str) -> str:
    r"""An option's text in LaTeX's usual form: "rs . 400" is 400, "2 1 / 2 days" 2\frac{1}{2}, "8 pi feet" 8 \pi.

    Currency and units are removed if the rest is one value, as in MATH's own normal form; "q = 35" becomes 35, and
    "1 million" 1000000. Ratios, sets, pairs and formulas ("2 : 3", "3 and 6", "n - 1") are kept.

    Raises:
        Unparsed: the text is not one value that can be compared with an answer: "1 hr 8 min", "10.5 by 3.5".
    """
    text = _one_spelling(text)
    if text in _WORDS:
        return str(_WORDS[text])
    if not re.search(r"\d|\\pi", text):
        raise Unparsed("the answer has no number")
    text = _CURRENCY.sub(r"\1", text)
    text = re.sub(r"^[a-z] = (?=[^=]*$)", "", text)
    bare = _UNITS.sub("", text).strip()
    if plain := number(bare):
        return plain
    mixed_units = bare != text and re.search(r"(?<![a-z\\])[a-z]|,", bare)
    if (
        mixed_units
        or bare.count("(") != bare.count(")")
        or not _VALUE.fullmatch(bare := _fractions(bare))
    ):
        raise Unparsed("the answer is not one value")
    return bare


def _one_spelling(text: str) -> str:
    """The text with one spelling for signs, roots, thousands and magnitudes."""
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
    """The number without commas. "30 , 500" is refused, because it may be two numbers: only a comma without spaces or
    decimals after the number show that it is one."""
    sure = re.search(r"\d,\d", found[0]) or re.match(r"\.\d", found.string[found.end() :])
    if not sure:
        raise Unparsed("the answer is not one value")
    return re.sub(r"[ ,]", "", found[0])


def _fractions(text: str) -> str:
    r"""The text with mixed numbers, and a fraction that is the whole text, as \frac."""
    text = re.sub(r"^- (?=[\d\\(])", "-", text)
    text = re.sub(
        r"(?<![\d.)}^/])(?<![)}^/] )\b(\d+) (\d+) ?/ ?(\d+)(?![\d.])", r"\1\\frac{\2}{\3}", text
    )
    return re.sub(r"^(-?)(\d+) ?/ ?(\d+)$", r"\1\\frac{\2}{\3}", text)
