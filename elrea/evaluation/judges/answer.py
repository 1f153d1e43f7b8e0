"""Exact match of what follows "the answer is", as BIG-Bench Hard scores a chain of thought (Suzgun et al., 2022).

The first such phrase counts, in upper or lower case, because a model that continues with a new question repeats it.
The answer ends at the end of its line, or at the end of its sentence if another sentence follows; the full stop is
dropped. Only the text is cut at a sentence, never the response: "St. Louis" is one answer. A text of one line without
the phrase is the answer itself, since prompts without a chain of thought ask for it; a longer text has no answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from elrea.evaluation.judge import NO_ANSWER, Judged

if TYPE_CHECKING:
    from elrea.data.examples import Example

_PHRASE = re.compile(r"\bthe answer is:?[ \t]*(?P<answer>[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.\s+(?=[A-Z])")


def judge(text: str, example: Example) -> Judged:
    """Compares the answer with the response, character by character; only another sentence may follow it."""
    found = _PHRASE.search(text)
    lines = text.strip().splitlines()
    if not found and len(lines) != 1:
        return NO_ANSWER
    line, right = _bare(found["answer"] if found else lines[0]), _bare(example.response)
    correct = line.startswith(right) and (
        line == right or _SENTENCE_END.match(line, len(right)) is not None
    )
    answer = right if correct else _bare(_SENTENCE_END.split(line, maxsplit=1)[0])
    return Judged(answer == right, answer) if answer else NO_ANSWER


def _bare(text: str) -> str:
    return text.strip().removesuffix(".").strip()
