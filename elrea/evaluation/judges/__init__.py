"""Who says whether a generated text is right. A judge is one file here, named as `Example.judge` names it.

Such a file has `judge(text, example) -> Judged`, and may have `check(example)`, which refuses an example that it could
not judge. A judge reads the answer out of the text without looking at the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from elrea.data.examples import Example
from elrea.errors import DataError, did_you_mean

VERSION = 2
"""Of all judges together: raised when one of them says something else of the same text."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one text.

    Attributes:
        correct: Whether the answer is right.
        answer: What was read out of the text, spelt so that equal answers are equal texts as far as that is known;
            None where there was nothing to read, which is wrong.
    """

    correct: bool
    answer: str | None


Judge = Callable[[str, Example], Judged]

NOBODY = Judged(False, None)
"""Of a text without an answer."""


def name_of(example: Example) -> str:
    """The judge of an example: the one that it names; else the letter of a choice, or the response word for word."""
    return example.judge or ("letter" if example.choices else "words")


def judge_of(example: Example) -> Judge:
    """Who judges texts that were written for an example.

    Raises:
        DataError: There is no such judge.
    """
    judge: Judge = _module(example).judge
    return judge


def check(examples: Iterable[Example]) -> None:
    """Refuses examples that could not be judged, before anything is trained.

    Raises:
        DataError: An example names no judge that there is, or lacks what its judge needs.
    """
    for example in examples:
        if checks := getattr(_module(example), "check", None):
            checks(example)


def _module(example: Example) -> Any:
    name = name_of(example)
    there = [module.name for module in iter_modules(__path__)]
    if name not in there:
        raise DataError(
            f"{example.id}: no judge {name!r}{did_you_mean(name, there)} (there is: {', '.join(there)})"
        )
    return import_module(f"{__name__}.{name}")
