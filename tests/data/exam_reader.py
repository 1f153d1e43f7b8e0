"""Parses printed questions of the built-in exam and solves them without the exam's own code."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from elrea.data.exam.boards import BOARDS, LETTERS
from elrea.data.examples import Example

MONTHS = (
    "January February March April May June July August September October November December"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
OUNCES = {"gills": (5, 4), "pints": (20, 16), "quarts": (40, 32)}  # Imperial, US customary


@dataclass(frozen=True)
class Read:
    """A parsed question: its stem, its options in printed order, and the right one."""

    stem: str
    options: tuple[str, ...]
    marked: str

    @property
    def identity(self) -> tuple[str, frozenset[str]]:
        return self.stem, frozenset(self.options)


@lru_cache
def pattern(board: str) -> re.Pattern[str]:
    """A pattern of all questions in this board's form."""
    form = BOARDS[board]
    before, after = map(re.escape, form.head.split("{}"))
    question = f"{before}(?P<stem>[^\\n]+){after}"
    options = re.escape(form.between).join(
        re.escape(form.option.format(letter, "\0")).replace(re.escape("\0"), f"(?P<{letter}>.+?)")
        for letter in LETTERS
    )
    parts = (options, question) if form.options_first else (question, options)
    return re.compile("\n".join([*parts, re.escape(form.tail)]))


def read(example: Example) -> Read:
    """Parse one question in its own board's form."""
    found = pattern(example.source).fullmatch(example.instruction)
    assert found, f"{example.source} does not print {example.instruction!r}"
    return Read(found["stem"], tuple(found[x] for x in LETTERS), found[example.response])


def numbers(stem: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", stem)]


def _arithmetic(stem: str) -> tuple[object, object]:
    a, b, c = numbers(stem)
    return a + b * c, (a + b) * c


def _division(stem: str) -> tuple[object, object]:
    n, d = numbers(stem)
    return int(n / d + 0.5), int(n / d)


def _decimals(stem: str) -> tuple[object, object]:
    value = float(stem.split()[0])
    return round(value), int(value)


def _dates(stem: str) -> tuple[object, object]:
    one, two, _ = numbers(stem)
    return MONTHS[two - 1], MONTHS[one - 1]


def _weekdays(stem: str) -> tuple[object, object]:
    number = numbers(stem)[0]
    return DAYS[number - 1], [DAYS[-1], *DAYS][number - 1]


def _lists(stem: str) -> tuple[object, object]:
    words = stem.split()[3:]
    return words[numbers(stem)[0] - 1], words[numbers(stem)[0]]


def _floors(stem: str) -> tuple[object, object]:
    return numbers(stem)[0] + 1, numbers(stem)[0]


def _digits(stem: str) -> tuple[object, object]:
    place, digits = stem.partition(" of ")[0], re.findall(r"\d", stem.partition(" of ")[2])
    n = int(place.split()[1])
    return digits[n - 1], digits[::-1][n - 1]


def _ranges(stem: str) -> tuple[object, object]:
    low, high = numbers(stem)
    return len(range(low, high + 1)), len(range(low + 1, high))


def _sorting(stem: str) -> tuple[object, object]:
    return min(numbers(stem)), max(numbers(stem))


def _scores(stem: str) -> tuple[object, object]:
    low, high = sorted(re.findall(r"(\w+) (\d+)", stem), key=lambda pair: int(pair[1]))
    return low[0], high[0]


def _units(stem: str) -> tuple[object, object]:
    n, name = stem.split()[:2]
    british, american = OUNCES[name]
    return int(n) * british, int(n) * american


def _logic(stem: str) -> tuple[object, object]:
    listed = re.fullmatch(r"take (.+), at most how many", stem)[1]  # type: ignore[index]
    return len(re.split(r", | or ", listed)), 1


def _statistics(stem: str) -> tuple[object, object]:
    ordered = sorted(numbers(stem))
    return ordered[1], ordered[2]


def _remainders(stem: str) -> tuple[object, object]:
    n, d = numbers(stem)
    return -n % d, -(n % d)


def _names(stem: str) -> tuple[object, object]:
    first, last = stem.split()[-2:]
    return last, first


def _marks(stem: str) -> tuple[object, object]:
    return max(numbers(stem)), min(numbers(stem))


def _sequences(stem: str) -> tuple[object, object]:
    first, second, *_, last = numbers(stem)
    return last + second - first, last + second - first


SOLVERS: dict[str, Callable[[str], tuple[object, object]]] = {
    name[1:]: solver
    for name, solver in list(globals().items())
    if name.startswith("_") and getattr(solver, "__annotations__", {}).keys() == {"stem", "return"}
}
"""Subject -> a function that gives the answers under both readings of its convention (equal if it has none)."""
