r"""Whether a mathematical answer equals the one in the response's \boxed{}, by math-verify.

math-verify finds the answer (the last \boxed{}; else behind "the final answer is"; else the last formula or number),
brings its LaTeX to MATH's normal form (Hendrycks et al., 2021: units, \text, \left and \right, bare \frac and \sqrt,
per cent, degrees and the like go or are spelt out), and compares with sympy: 1/2, 0.5 and \frac12 are one.

Sympy may take for ever over what a model writes (9^{9^{9^9}}), and math-verify's own alarm works in a main thread
alone: so it works in a process of its own, which is ended where an answer takes too long. That one could not be read.
"""

from __future__ import annotations

import logging
from typing import Any

from elrea.data.examples import Example
from elrea.errors import DataError
from elrea.evaluation.aside import Aside, serve
from elrea.evaluation.judges import NOBODY, Judged

SECONDS = 5
"""For reading one answer, and again for comparing it."""

_aside = Aside(__name__, limit=6.0 * SECONDS)


def judge(text: str, example: Example) -> Judged:
    """Whether a text's answer equals the response's."""
    check(example)
    if not text.strip():
        return NOBODY
    found = _aside({"gold": example.response, "text": text})
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


def compared(asked: dict[str, str]) -> dict[str, Any]:
    """What math-verify says of one text, in the process of its own."""
    answer, correct = _compare(asked["gold"], asked["text"])
    if not correct and "%" in asked["gold"] + asked["text"]:
        # math-verify takes 50 % for 0.5 as well; MATH's normal form has no signs of per cent.
        gold, text = (asked[name].replace(r"\%", "").replace("%", "") for name in ("gold", "text"))
        correct = _compare(gold, text)[1]
    return {"correct": correct, "answer": answer}


def _compare(gold: str, text: str) -> tuple[str | None, bool]:
    """The answer in a text, and whether it equals the one in another."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    normal = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="last"
    )
    latex = LatexExtractionConfig(boxed_match_priority=0, normalization_config=normal)
    wanted = parse(gold, [latex], parsing_timeout=SECONDS)
    found = parse(text, [latex, ExprExtractionConfig()], parsing_timeout=SECONDS)
    if not found:
        return None, False
    # The text it was read from: to spell a formula out may take for ever too.
    answer = found[-1] if isinstance(found[-1], str) else text
    return " ".join(answer.split()), bool(verify(wanted, found, timeout_seconds=SECONDS))


if __name__ == "__main__":
    logging.disable()  # a time-out is no news to who asks
    serve(compared)
