"""Exact match of what follows "the answer is", as BIG-Bench Hard scores a chain of thought (Suzgun et al., 2022).

The first such phrase counts, in upper or lower case, because a model that continues with a new question repeats it.
The answer ends at the end of its line, or at the end of its sentence if another sentence follows; the full stop is
dropped. Only the text is cut at a sentence, never the response: "St. Louis" is one answer. A text of one line without
the phrase is the answer itself, since prompts without a chain of thought ask for it; a longer text has no answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from elrea.evaluation.judge import Judged, no_answer, quoted

if TYPE_CHECKING:
    from elrea.data.examples import Example

_PHRASE = re.compile(r"\bthe answer is:?[ \t]*(?P<answer>[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.\s+(?=[A-Z])")


def judge(text: str, example: Example) -> Judged:
    """Compares the answer with the response, character by character; only another sentence may follow it."""
    found = _PHRASE.search(text)
    lines = text.strip().splitlines()
    if not found and len(lines) != 1:
        several = len(lines) > 1
        return no_answer(
            "several lines without 'the answer is'" if several else "the text is empty"
        )
    line, right = _bare(found["answer"] if found else lines[0]), _bare(example.response)
    correct = line.startswith(right) and (
        line == right or _SENTENCE_END.match(line, len(right)) is not None
    )
    answer = right if correct else _bare(_SENTENCE_END.split(line, maxsplit=1)[0])
    if not answer:
        return no_answer("nothing follows 'the answer is'" if found else "the text is empty")
    read = f"read from {quoted(found[0])}" if found else "the text's only line"
    is_right = answer == right
    return Judged(is_right, answer, f"{read}{'' if is_right else f', not {quoted(right)}'}")


def _bare(text: str) -> str:
    return text.strip().removesuffix(".").strip()
