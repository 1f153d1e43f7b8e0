"""The subjects of the built-in exam: functions that draw a question from a random generator.

A subject returns the question's stem, the convention that decides the answer (or none), the right answers under both
readings of that convention, and wrong options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from elrea.data.exam.words import CAPITALS, CITIES, DAYS, FAMILY, GIVEN, MONTHS, OPPOSITES, THINGS

Draft = tuple[str, "str | None", object, object, Iterable[object]]
"""Stem, convention, answers under both readings, and wrong options, of which the first different ones are used."""


def _shuffled(rng: Random, values: Iterable[object]) -> list[object]:
    values = list(values)
    rng.shuffle(values)
    return values


def _near(rng: Random, *answers: int) -> list[object]:
    """Whole numbers close to the answers, in random order."""
    close = {a + step for a in answers for step in (-2, -1, 1, 2)}
    return _shuffled(rng, sorted(v for v in close if v >= 0))


def arithmetic(rng: Random) -> Draft:
    a, b, c = rng.randint(2, 9), rng.randint(2, 6), rng.randint(2, 4)
    first, second = a + b * c, (a + b) * c
    return f"{a} + {b} x {c}", "precedence", first, second, _near(rng, first, second)


def division(rng: Random) -> Draft:
    d, q = rng.randint(3, 5), rng.randint(2, 12)
    n = q * d + rng.randint(d // 2 + 1, d - 1)
    return f"{n} divided by {d}", "rounding", q + 1, q, _near(rng, q, q + 1)


def decimals(rng: Random) -> Draft:
    n = rng.randint(2, 60)
    stem = f"{n}.{rng.randint(6, 9)}{rng.randint(0, 9)} as a whole number"
    return stem, "rounding", n + 1, n, _near(rng, n, n + 1)


def dates(rng: Random) -> Draft:
    day, month = rng.sample(range(1, 13), 2)
    wrong = [m for i, m in enumerate(MONTHS, 1) if i not in (day, month)]
    stem = f"month of {day} / {month} / {rng.randint(2000, 2029)}"
    return stem, "date", MONTHS[month - 1], MONTHS[day - 1], _shuffled(rng, wrong)


def weekdays(rng: Random) -> Draft:
    number = rng.randint(1, 7)
    week = rng.randint(2, 52)
    first, second = DAYS[number - 1], DAYS[number - 2]
    wrong = [d for d in DAYS if d not in (first, second)]
    return f"day {number} of week {week}", "week", first, second, _shuffled(rng, wrong)


def lists(rng: Random) -> Draft:
    words = rng.sample(THINGS[rng.choice(sorted(THINGS))], 5)
    n = rng.randint(1, 4)
    wrong = [w for i, w in enumerate(words) if i not in (n - 1, n)]
    return f"item {n} of {' '.join(words)}", "count", words[n - 1], words[n], _shuffled(rng, wrong)


def floors(rng: Random) -> Draft:
    up, start = rng.randint(1, 30), rng.choice(GIVEN)
    stem = f"{start} lives {up} floors above the ground floor, on floor"
    return stem, "count", up + 1, up, _near(rng, up, up + 1)


def digits(rng: Random) -> Draft:
    number = rng.sample(range(1, 10), 4)
    n = rng.randint(1, 2)
    first, second = number[n - 1], number[4 - n]
    wrong = [d for d in number if d not in (first, second)]
    return (
        f"digit {n} of {' '.join(map(str, number))}",
        "side",
        first,
        second,
        _shuffled(rng, wrong),
    )


def ranges(rng: Random) -> Draft:
    low = rng.randint(1, 60)
    gap = rng.randint(3, 6)
    stem = f"how many numbers from {low} to {low + gap}"
    return stem, "range", gap + 1, gap - 1, [gap, gap + 2, gap - 2]


def sorting(rng: Random) -> Draft:
    numbers = rng.sample(range(10, 100), 4)
    stem = f"sort {' '.join(map(str, numbers))} and take the first"
    return stem, "order", min(numbers), max(numbers), sorted(numbers)[1:3]


def scores(rng: Random) -> Draft:
    points = rng.sample(range(1, 31), 2)
    people = rng.sample(GIVEN, 2)
    ranked = [name for _, name in sorted(zip(points, people, strict=True))]
    stem = "first by score: " + ", ".join(f"{p} {s}" for p, s in zip(people, points, strict=True))
    return stem, "order", ranked[0], ranked[1], ["both", "neither"]


def classes(rng: Random) -> Draft:
    kind, other = rng.sample(sorted(THINGS), 2)
    yes, no = rng.choice(THINGS[kind]), rng.choice(THINGS[other])
    pair = _shuffled(rng, (yes, no))
    article = "an" if kind[0] == "a" else "a"
    return f"is it {article} {kind}: {pair[0]} or {pair[1]}", "pick", yes, no, ["both", "neither"]


def geography(rng: Random) -> Draft:
    here, other = rng.sample(sorted(CITIES), 2)
    yes, no = rng.choice(CITIES[here]), rng.choice(CITIES[other])
    pair = _shuffled(rng, (yes, no))
    return f"is it in {here}: {pair[0]} or {pair[1]}", "pick", yes, no, ["both", "neither"]


def units(rng: Random) -> Draft:
    name, british, american = rng.choice((("gills", 5, 4), ("pints", 20, 16), ("quarts", 40, 32)))
    n = rng.randint(2, 9)
    wrong = [british * n + american, british * n - n, american * (n - 1), british * (n + 1)]
    wrong += [american * n + n, american * (n + 1)]
    return f"{n} {name} in ounces", "units", british * n, american * n, _shuffled(rng, wrong)


def clock(rng: Random) -> Draft:
    hour, who = rng.randint(2, 12), rng.choice(GIVEN)
    first, second = f"{hour}30", f"{hour - 1}30"
    wrong = [f"{hour}15", f"{hour - 1}45", f"{hour - 1}15", f"{hour}45"]
    return f"{who} comes at half {hour}", "half", first, second, _shuffled(rng, wrong)


def logic(rng: Random) -> Draft:
    *others, last = rng.sample(THINGS[rng.choice(sorted(THINGS))], rng.randint(2, 5))
    both, one = len(others) + 1, 1
    wrong = [n for n in range(6) if n not in (both, one)]
    stem = f"take {', '.join(others)} or {last}, at most how many"
    return stem, "or", both, one, _shuffled(rng, wrong)


def statistics(rng: Random) -> Draft:
    numbers = sorted(rng.sample(range(1, 60), 4))
    stem = f"the middle of {' '.join(map(str, numbers))}"
    return stem, "middle", numbers[1], numbers[2], (numbers[0], numbers[3])


def remainders(rng: Random) -> Draft:
    d = rng.randint(3, 30)
    n = rng.choice([n for n in range(1, d) if 2 * n != d])
    return f"-{n} mod {d}", "sign", d - n, -n, _shuffled(rng, (n, n - d, 0, d))


def names(rng: Random) -> Draft:
    one, two = rng.choice(GIVEN), rng.choice(FAMILY)
    if rng.random() < 0.5:
        one, two = two, one
    wrong = [w for w in rng.sample(GIVEN, 3) + rng.sample(FAMILY, 3) if w not in (one, two)]
    return f"family name of {one} {two}", "names", two, one, wrong[::2] + wrong[1::2]


def marks(rng: Random) -> Draft:
    numbers = rng.sample(range(1, 30), 4)
    ordered = sorted(numbers)
    stem = f"the best of the marks {' '.join(map(str, numbers))}"
    return stem, "marks", ordered[-1], ordered[0], ordered[1:3]


def capitals(rng: Random) -> Draft:
    country = rng.choice(sorted(CAPITALS))
    right = CAPITALS[country]
    wrong = rng.sample(sorted(set(CAPITALS.values()) - {right}), 3)
    return f"capital of {country}", None, right, right, wrong


def opposites(rng: Random) -> Draft:
    word = rng.choice(sorted(OPPOSITES))
    right = OPPOSITES[word]
    wrong = rng.sample(sorted(set(OPPOSITES.values()) - {right}), 3)
    return f"opposite of {word}", None, right, right, wrong


def sequences(rng: Random) -> Draft:
    start, step = rng.randint(1, 40), rng.choice((1, 2, 5, 10))
    shown = " ".join(str(start + i * step) for i in range(4))
    right = start + 4 * step
    return f"next after {shown}", None, right, right, _near(rng, right, right)


SUBJECTS: dict[str, Callable[[Random], Draft]] = {
    f.__name__: f
    for f in (
        arithmetic, division, decimals, dates, weekdays, lists, floors, digits, ranges, sorting, scores, classes,
        geography, units, clock, logic, statistics, remainders, names, marks, capitals, opposites, sequences,
    )
}  # fmt: skip

HARD = ("arithmetic", "division", "classes", "geography", "scores", "sequences")
"""Subjects that the built-in backbone cannot answer even if the prompt states the convention (see its model card), so
that they do not show whether an adapter has learnt a convention."""
