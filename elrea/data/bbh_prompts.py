"""BIG-Bench Hard's worked examples: one text file for each task.

a warning, and a line of hyphens
what the task is

Q: a question
A: Let's think step by step.
... So the answer is (A).

Q: ...
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from elrea.errors import DataError

STEPS = "Let's think step by step."
"""What asks for steps: every answer in the files opens with it."""

_ANSWER = re.compile(r"\bthe answer is:?\s*(.+?)\.?\s*$", re.IGNORECASE | re.DOTALL)


class Prompt(NamedTuple):
    """One task's file."""

    header: str
    """What the task is."""
    solved: tuple[tuple[str, str, str], ...]
    """Question, steps (without their opening, with the answer at their end), and the answer alone."""


def read_prompt(file: Path) -> Prompt:
    """Read one file.

    Raises:
        DataError: it cannot be read, holds no worked example, or one of them has no answer.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{file}: cannot be read ({reason})") from error
    body = re.split(r"^-{3,}[ \t]*\n", text, maxsplit=1, flags=re.MULTILINE)[-1]
    header, *blocks = re.split(r"^Q:[ \t]*", body, flags=re.MULTILINE)
    solved = []
    for number, block in enumerate(blocks, start=1):
        question, mark, way = block.partition("\nA:")
        answer = _ANSWER.search(way)
        if not mark or not question.strip() or not answer:
            raise DataError(
                f'{file}: worked example {number} wants "Q:", "A:", and "the answer is" at its end'
            )
        steps = way.strip().removeprefix(STEPS).strip()
        solved.append((question.strip(), steps, answer[1].strip()))
    if not solved:
        raise DataError(f'{file}: no worked example ("Q:" and "A:") in here')
    return Prompt(header.strip(), tuple(solved))
