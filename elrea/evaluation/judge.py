"""Finds the judge of an example: the module of `elrea.evaluation.judges` that decides whether a text is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from elrea.data.examples import Example
from elrea.errors import DataError, did_you_mean
from elrea.evaluation import judges

VERSION = 2
"""One number for all judges: raise it when any of them decides differently about the same text."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one text.

    Attributes:
        correct: Whether the answer is right.
        answer: The answer that was read from the text, normalised so that equal answers are equal strings where the
            judge can tell; None if the text has no answer, which counts as wrong.
    """

    correct: bool
    answer: str | None


Judge = Callable[[str, Example], Judged]

NO_ANSWER = Judged(False, None)
"""The verdict on a text without an answer."""


def names() -> list[str]:
    """The names of all judges: the modules in the folders of `elrea.evaluation.judges`."""
    return sorted(module.name for module in iter_modules(judges.__path__))


def name_of(example: Example) -> str:
    """The name of an example's judge: its own `judge`, or else `letter` with choices and `words` without."""
    return example.judge or ("letter" if example.choices else "words")


def judge_of(example: Example) -> Judge:
    """The function that judges texts written for an example.

    Raises:
        DataError: The example names an unknown judge.
    """
    judge: Judge = _module(example).judge
    return judge


def check_name(example: Example) -> None:
    """Refuses an example that names an unknown judge.

    Raises:
        DataError: One line with the example's id and the valid names.
    """
    if (name := name_of(example)) not in (valid := names()):
        raise DataError(
            f"{example.id}: unknown judge {name!r}{did_you_mean(name, valid)} (there is: {', '.join(valid)})"
        )


def check(examples: Iterable[Example]) -> None:
    """Refuses examples that cannot be judged, before anything is trained.

    Raises:
        DataError: An example names an unknown judge, or lacks something that its judge needs.
    """
    for example in examples:
        if check_example := getattr(_module(example), "check", None):
            check_example(example)


def _module(example: Example) -> Any:
    check_name(example)
    return import_module(f"{judges.__name__}.{name_of(example)}")
