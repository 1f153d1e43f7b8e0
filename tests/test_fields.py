"""Which values fit which annotations, and how they are converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from elrea.config import Misfit, fit, spell


@dataclass
class Rank:
    """Pydantic alone would make one from a mapping."""

    rank: int


class Speaks(Protocol):
    def speak(self) -> str: ...


@pytest.mark.parametrize(
    ("value", "hint", "made"),
    [
        (3, float, 3.0),
        (3, int | float, 3),
        (3, float | int, 3),  # unchanged rather than converted
        (3, float | None, 3.0),
        (True, int | bool, True),
        ("x", Path | str, "x"),
        ("x", Path | None, Path("x")),
        (None, Path | None, None),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ([1, "a"], tuple, (1, "a")),
        ([], tuple[int, ...], ()),
        ([1], Sequence[float], (1.0,)),
        ([[1], []], list[list[float]], [[1.0], []]),
        ({"a": 1}, Mapping[str, float], {"a": 1.0}),
        ({"a": [1]}, dict[str, Any], {"a": [1]}),
        (len, Callable[[Any], int], len),
        (len, Speaks, len),  # isinstance does not work with a plain protocol
        (1, Literal[1, "1"], 1),
    ],
)
def test_fits(value: Any, hint: Any, made: Any) -> None:
    fitted = fit(value, hint)
    assert fitted == made and type(fitted) is type(made)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, float | int),
        (1, bool),
        (1, Literal[True]),
        (True, Literal[1]),
        (1, Path),
        ("abc", list[str]),
        ("abc", Sequence[str]),
        ([1, 2, 3], tuple[int, int]),
        ([1], dict),
        ({"a": "b"}, dict[str, int]),
        (0, None),
        ({"a": True}, dict[str, float]),
        ("1e-4", float | None),
        ({"rank": 2}, Rank),
        (3, Callable[[], int]),
    ],
)
def test_does_not_fit(value: Any, hint: Any) -> None:
    with pytest.raises(Misfit):
        fit(value, hint)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "int or null"),
        (list[str] | Literal["all", "none"], "list[str] or 'all' or 'none'"),
        (tuple[float, ...], "tuple[float, ...]"),
        (dict[str, Path], "dict[str, Path]"),
        (Any, "Any"),
    ],
)
def test_spelling(hint: Any, words: str) -> None:
    assert spell(hint) == words
