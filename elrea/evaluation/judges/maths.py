r"""Whether a mathematical answer equals the one in the response's \boxed{}, by math-verify.

Compared are the response's last box and the text's, as MATH's own answer is the last one: several boxes are never
joined, and of "\boxed{2} and \boxed{3}" the answer is 3 (two values stand in one box: "\boxed{2, 3}"). A text whose
last box is empty or not closed has no answer. Out of a text without any box math-verify reads what stands behind "the
final answer is", else the last formula or number.

Before math-verify reads it, `_plain` writes a box as a formula: "18 eggs" is 18 and "8 thousand" 8000. math-verify then
brings its LaTeX to MATH's normal form (Hendrycks et al., 2021: units, \text, \left and \right, bare \frac and \sqrt,
degrees and the like go or are spelt out), and compares with sympy: 1/2, 0.5 and \frac12 are one.

Sympy may take for ever over what a model writes (9^{9^{9^9}}), and math-verify's own alarm works in a main thread
alone: so it works in a process of its own, which is ended where an answer takes too long. That one could not be read.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from elrea.data.examples import Example
from elrea.data.sources.boxed import NO_UNIT, last_boxed, number, written_out
from elrea.errors import DataError
from elrea.evaluation.judges import NOBODY, Judged
from elrea.evaluation.timed import TimedSubprocess, serve

SECONDS = 5
"""For reading one answer, and again for comparing it."""

_BOX = re.compile(r"\\(?:boxed|fbox)")
_MINUS = re.compile(r"(\bis:?|=|:)([ \t]*\$?)-[ \t]+(?=[\d.])")
"""A sign apart from its number, where no other number stands before it."""
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\s*\{([^{}]*)\}")
_AMOUNT = re.compile(
    r"(?:\\?\$)? ?(?P<number>-? ?(?:\d[\d,]*(?:\.\d+)?|\.\d+))(?: [a-z]{4,}(?:[ /-][a-z]+)*)?",
    re.IGNORECASE,
)
"""A number and words. A first word of fewer than four letters may be a product of variables; math-verify knows the
short units."""
_OTHER = re.compile(rf"[\d}}][^\d}}]*(?<![a-z\\]){NO_UNIT}", re.IGNORECASE)
"""A number that the words behind it make another one."""
_SPACE = r"(?:\\[,;: ]|[ ~\u00a0\u2009\u202f])"
_THOUSANDS = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:{_SPACE}\d{{3}})+(?!\d)")
_RELATION = re.compile(r"\\(?:geq?|leq?|gt|lt|neq?|geqslant|leqslant)(?![a-zA-Z])|[<>≤≥≠]")

_aside = TimedSubprocess(__name__, limit=6.0 * SECONDS)


def judge(text: str, example: Example) -> Judged:
    """Whether a text's answer equals the response's."""
    check(example)
    box = last_boxed(text)
    if not text.strip() or (box is None and _BOX.search(text)):
        return NOBODY
    found = _aside({"gold": last_boxed(example.response), "box": box, "text": text})
    return NOBODY if found is None else Judged(found["correct"], found["answer"])


def check(example: Example) -> None:
    r"""Refuses an example whose response has no \boxed{}.

    Raises:
        DataError: It has none.
    """
    if r"\boxed" not in example.response:
        raise DataError(
            rf"{example.id}: judge 'maths' wants the answer in \boxed{{}}, and the response has none"
        )


def compared(asked: dict[str, str | None]) -> dict[str, Any]:
    """What math-verify says of one text, in the process of its own."""
    gold, box = _plain(asked["gold"] or ""), asked["box"]
    said = _signed(asked["text"] or "") if box is None else _plain(box)
    answer, correct = _compare(gold, said, box is not None)
    if not correct and "%" in gold + said:
        # 50 % is 0.5, and 50 as well: MATH's normal form has no signs of per cent.
        gold, said = (one.replace(r"\%", "").replace("%", "") for one in (gold, said))
        correct = _compare(gold, said, box is not None)[1]
    return {"correct": correct, "answer": answer}


def _signed(text: str) -> str:
    """A text without a box, its signs straight before their numbers."""
    return _MINUS.sub(r"\1\2-", text.replace("−", "-"))


def _plain(box: str) -> str:
    r"""A box as math-verify reads it rightly: 18 for "18 eggs", 1000 for "1\,000", 8000 for "8 thousand"."""
    box = re.sub(r"^(?:=|≈|\\approx(?![a-z])) *", "", box.replace("−", "-").rstrip(" ."))
    box = re.sub(r"(?<![\d.])(\d+) +(\d+) */ *(\d+)(?![\d.])", r"\1\\frac{\2}{\3}", box)
    box = _THOUSANDS.sub(lambda found: re.sub(_SPACE, "", found[0]), box)
    flat = _WRAPPED.sub(r" \1 ", box).replace("\\ ", " ").replace("~", " ")
    flat = re.sub(r" ?\bper ?cent\b", r"\\%", " ".join(flat.split()), flags=re.IGNORECASE)
    flat = written_out(flat)
    if flat.endswith("%") or _OTHER.search(flat):
        return flat  # math-verify takes every \text behind a number for a unit: "8\text{ tenths}"
    amount = _AMOUNT.fullmatch(flat)
    return (amount and number(amount["number"])) or box


def _compare(gold: str, said: str, boxed: bool) -> tuple[str | None, bool]:
    """The answer in a text or of its box, and whether it equals the right one."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
    from sympy import Eq

    normal = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="last"
    )
    latex = LatexExtractionConfig(boxed_match_priority=0, normalization_config=normal)

    def read(box: str) -> list[Any]:
        whole = rf"\boxed{{{_exact(box)}}}"
        parsed: list[Any] = parse(
            whole, [latex], extraction_mode="first_match", parsing_timeout=SECONDS
        )
        return parsed

    free = [latex, ExprExtractionConfig()]
    found = read(said) if boxed else parse(said, free, parsing_timeout=SECONDS)
    if not found:
        return None, False
    # The text it was read from: to spell a formula out may take for ever too.
    spelt = isinstance(found[-1], str) and not (boxed and _exact(said) != said)
    answer = found[-1] if spelt else said
    # Of "19 = 18" math-verify would compare the right side alone.
    claims = () if isinstance(found[0], str) else found[0].atoms(Eq)
    untrue = any(
        not eq.free_symbols and not verify(eq.lhs, eq.rhs, timeout_seconds=SECONDS) for eq in claims
    )
    correct = not untrue and bool(verify(read(gold), found, timeout_seconds=SECONDS))
    return " ".join(answer.split()), correct


def _exact(box: str) -> str:
    r"""A box with per cent as hundredths, and a left side for a relation that has none.

    Of "\ge 18" math-verify reads 18 alone.
    """
    top, sign, more = box.partition("%")
    if sign and not more:
        return r"\frac{" + top.removesuffix("\\") + "}{100}"
    return rf"\Xi {box}" if _RELATION.match(box) else box


if __name__ == "__main__":
    logging.disable()  # a time-out is no news to who asks
    serve(compared)
