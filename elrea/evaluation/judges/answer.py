"""Exact match behind "the answer is", as BIG-Bench Hard's chains of thought end (Suzgun et al., 2022).

The first such phrase counts, in any case: a model that goes on with a question of its own says it again. The answer
ends with its line, or with its sentence where another one follows, without the full stop. Only a text is cut so, never
the response: "St. Louis" is one answer. A text of one line without the phrase is the answer itself, as prompts without
a chain of thought want it; a longer one has no answer.
"""

from __future__ import annotations

import re

from elrea.data.examples import Example
from elrea.evaluation.judges import NOBODY, Judged

_SAID = re.compile(r"\bthe answer is:?[ \t]*(?P<answer>[^\n]*)", re.IGNORECASE)
_NEXT = re.compile(r"\.\s+(?=[A-Z])")
"""Where a sentence ends and another begins."""


def judge(text: str, example: Example) -> Judged:
    """Whether the answer is the response, letter by letter, with nothing behind it but another sentence."""
    found = _SAID.search(text)
    lines = text.strip().splitlines()
    if not found and len(lines) != 1:
        return NOBODY
    line, right = _bare(found["answer"] if found else lines[0]), _bare(example.response)
    whole = line.startswith(right) and (line == right or _NEXT.match(line, len(right)))
    answer = right if whole else _bare(_NEXT.split(line, maxsplit=1)[0])
    return Judged(answer == right, answer) if answer else NOBODY


def _bare(text: str) -> str:
    return text.strip().removesuffix(".").strip()
