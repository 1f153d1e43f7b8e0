r"""Whether a mathematical answer equals the one in the response's \boxed{}, by math-verify.

The last box of the response is compared with the last box of the text, because MATH defines the last box as the
answer. Boxes are never joined: the answer of "\boxed{2} and \boxed{3}" is 3, and two values belong in one box,
"\boxed{2, 3}". A text whose last box is empty or not closed has no answer. From a text without a box, math-verify reads
what follows "the final answer is", or else the last formula or number.

`_as_formula` first turns a box into a formula: "18 eggs" becomes 18 and "8 thousand" becomes 8000. math-verify then
normalises the LaTeX as MATH does (Hendrycks et al., 2021: units, \text, \left and \right, bare \frac and \sqrt,
degrees and the like are removed or written out) and compares with sympy: 1/2, 0.5 and \frac12 are equal.

Sympy may never finish on what a model writes (9^{9^{9^9}}), and math-verify's own alarm works in the main thread only.
So the comparison runs in a subprocess that is killed after a time limit; such a text has no answer.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from elrea.data.sources.boxed import NO_UNIT, last_boxed, number, written_out
from elrea.errors import DataError
from elrea.evaluation.judge import Judged, no_answer, quoted
from elrea.evaluation.timed_subprocess import TimedSubprocess, serve

if TYPE_CHECKING:
    from elrea.data.examples import Example

SECONDS = 5
"""Time limit for reading one answer, and again for comparing it."""

_BOX = re.compile(r"\\(?:boxed|fbox)")
_MINUS = re.compile(r"(\bis:?|=|:)([ \t]*\$?)-[ \t]+(?=[\d.])")
"""A minus sign with a space after it, where it is a sign and not a subtraction."""
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\s*\{([^{}]*)\}")
_AMOUNT = re.compile(
    r"(?:\\?\$)? ?(?P<number>-? ?(?:\d[\d,]*(?:\.\d+)?|\.\d+))(?: [a-z]{4,}(?:[ /-][a-z]+)*)?",
    re.IGNORECASE,
)
"""A number and the words after it. A first word of fewer than four letters may be a product of variables; math-verify
knows the short units."""
_OTHER = re.compile(rf"[\d}}][^\d}}]*(?<![a-z\\]){NO_UNIT}", re.IGNORECASE)
"""A number whose value is changed by the words after it."""
_SPACE = r"(?:\\[,;: ]|[ ~\u00a0\u2009\u202f])"
_THOUSANDS = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:{_SPACE}\d{{3}})+(?!\d)")
_RELATION = re.compile(r"\\(?:geq?|leq?|gt|lt|neq?|geqslant|leqslant)(?![a-zA-Z])|[<>≤≥≠]")

_subprocess = TimedSubprocess(__name__, limit=6.0 * SECONDS)


def judge(text: str, example: Example) -> Judged:
    """Compares a text's answer with the response's."""
    check(example)
    box = last_boxed(text)
    if not text.strip():
        return no_answer("the text is empty")
    if box is None and _BOX.search(text):
        return no_answer("the last box is empty or not closed")
    gold = last_boxed(example.response) or ""
    verdict = _subprocess({"gold": gold, "box": box, "text": text})
    if verdict is None:
        return no_answer(f"no comparison within {_subprocess.limit:g} s")
    right, answer = verdict["correct"], verdict["answer"]
    if answer is None:
        return no_answer(
            f"no formula in the box {quoted(box)}" if box else "no number or formula found"
        )
    where = "the last box" if box else "the text"
    return Judged(right, answer, f"{answer} {'=' if right else '≠'} {gold}, read from {where}")


def check(example: Example) -> None:
    r"""Refuses an example whose response has no \boxed{}.

    Raises:
        DataError: It has none.
    """
    if r"\boxed" not in example.response:
        raise DataError(
            rf"{example.id}: judge 'maths' needs the answer in \boxed{{}}, and the response has none"
        )


def compare_texts(request: dict[str, str | None]) -> dict[str, Any]:
    """Math-verify's verdict on one text; runs in the subprocess."""
    gold, box = _as_formula(request["gold"] or ""), request["box"]
    given = _join_signs(request["text"] or "") if box is None else _as_formula(box)
    answer, correct = _compare(gold, given, box is not None)
    if not correct and "%" in gold + given:
        # 50 % equals 0.5, and 50 as well: MATH's normal form drops per cent signs.
        gold, given = (one.replace(r"\%", "").replace("%", "") for one in (gold, given))
        correct = _compare(gold, given, box is not None)[1]
    return {"correct": correct, "answer": answer}


def _join_signs(text: str) -> str:
    """A text without a box, with each minus sign directly before its number."""
    return _MINUS.sub(r"\1\2-", text.replace("−", "-"))


def _as_formula(box: str) -> str:
    r"""A box in a form that math-verify reads correctly: 18 for "18 eggs", 1000 for "1\,000", 8000 for "8 thousand"."""
    box = re.sub(r"^(?:=|≈|\\approx(?![a-z])) *", "", box.replace("−", "-").rstrip(" ."))
    box = re.sub(r"(?<![\d.])(\d+) +(\d+) */ *(\d+)(?![\d.])", r"\1\\frac{\2}{\3}", box)
    box = _THOUSANDS.sub(lambda found: re.sub(_SPACE, "", found[0]), box)
    flat = _WRAPPED.sub(r" \1 ", box).replace("\\ ", " ").replace("~", " ")
    flat = re.sub(r" ?\bper ?cent\b", r"\\%", " ".join(flat.split()), flags=re.IGNORECASE)
    flat = written_out(flat)
    if flat.endswith("%") or _OTHER.search(flat):
        return flat  # math-verify reads any \text after a number as a unit: "8\text{ tenths}"
    amount = _AMOUNT.fullmatch(flat)
    return (amount and number(amount["number"])) or box


def _compare(gold: str, given: str, boxed: bool) -> tuple[str | None, bool]:
    """The answer in a text, or in its box if `boxed`, and whether it equals the right one."""
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
    found = read(given) if boxed else parse(given, free, parsing_timeout=SECONDS)
    if not found:
        return None, False
    # Report the source text, because printing a sympy formula may never finish either.
    has_source = isinstance(found[-1], str) and not (boxed and _exact(given) != given)
    answer = found[-1] if has_source else given
    # Of "19 = 18" math-verify would compare the right side only.
    equations = () if isinstance(found[0], str) else found[0].atoms(Eq)
    false_equation = any(
        not eq.free_symbols and not verify(eq.lhs, eq.rhs, timeout_seconds=SECONDS)
        for eq in equations
    )
    correct = not false_equation and bool(verify(read(gold), found, timeout_seconds=SECONDS))
    return " ".join(answer.split()), correct


def _exact(box: str) -> str:
    r"""A box with a percentage as a fraction, and with a left side for a relation that has none.

    From "\ge 18" math-verify would read 18 only.
    """
    number_part, sign, rest = box.partition("%")
    if sign and not rest:
        return r"\frac{" + number_part.removesuffix("\\") + "}{100}"
    return rf"\Xi {box}" if _RELATION.match(box) else box


if __name__ == "__main__":
    logging.disable()  # the parent process handles time-outs
    serve(compare_texts)
