"""Finds the judge of an example: the module, ours or a plugin's, that decides whether a text is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from elrea import plugins
from elrea.data.examples import Example
from elrea.errors import ConfigError, DataError, did_you_mean
from elrea.evaluation import judges

VERSION = 3
"""One number for all judges: raise it when any of them decides differently about the same text."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one text.

    Attributes:
        correct: Whether the answer is right.
        answer: The answer that was read from the text, normalised so that equal answers are equal strings where the
            judge can tell; None if the text has no answer, which counts as wrong.
        why: How the answer was found and why it counts as it does, in a few words; "" if the judge does not say.
    """

    correct: bool
    answer: str | None
    why: str = field(default="", compare=False)


def no_answer(why: str) -> Judged:
    """The verdict on a text without an answer, and why it has none."""
    return Judged(False, None, why)


Judge = Callable[[str, Example], Judged]

QUOTED = 60
"""Letters of a text that a reason quotes at most."""


def names() -> list[str]:
    """The names of all judges: the modules in the folders of `elrea.evaluation.judges`."""
    return sorted(module.name for module in iter_modules(judges.__path__))


def reason(verdict: Judged, example: Example) -> str:
    """Why a verdict is what it is, on one line: the judge's own words, or else what can be told without them."""
    if verdict.why:
        return " ".join(verdict.why.split())
    if verdict.answer is None:
        return f"{name_of(example)}: no answer found"
    return f"{name_of(example)}: {verdict.answer!r} counts as {'right' if verdict.correct else 'wrong'}"


def quoted(text: str) -> str:
    """A part of a text for a reason: on one line, in quotes, its beginning if it is long."""
    line = " ".join(text.split())
    return f"'{line}'" if len(line) <= QUOTED else f"'{line[: QUOTED - 3]}...'"


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
    if "." in name_of(example):
        _of_plugin(example)
        return
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


def plugin_sources(examples: Iterable[Example]) -> dict[str, str]:
    """The judges that are modules of plugins, with the SHA-256 of their code: a part of the key of what they judge."""
    names = {name for example in examples if "." in (name := name_of(example))}
    return {name: plugins.source_of(name) for name in sorted(names)}


def _module(example: Example) -> Any:
    if "." in name_of(example):
        return _of_plugin(example)
    check_name(example)
    return import_module(f"{judges.__name__}.{name_of(example)}")


def _of_plugin(example: Example) -> Any:
    """The module `mypkg.first_word` that an example's `judge` names: imported from an allowed plugin alone."""
    name = name_of(example)
    try:
        plugins.check(name, f"{example.id}: the judge {name!r}")
        module = plugins.load(name, f"{example.id}: judge {name!r}")
    except ConfigError as error:
        raise DataError(str(error)) from error
    if not callable(getattr(module, "judge", None)):
        raise DataError(
            f"{example.id}: judge {name!r}: {name} has no function judge(text, example)"
        )
    return module
