"""Seeded draws that every source shares: subsets, a train/test split, few-shot examples."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from elrea.data.examples import Example
from elrea.data.overlap.question_key import QuestionKey
from elrea.errors import ConfigError, DataError


def subset(
    examples: Sequence[Example], limit: int | None, seed: int, name: str, setting: str = ""
) -> tuple[Example, ...]:
    """Draw at most `limit` examples, in their old order.

    Args:
        examples: what to draw from.
        limit: how many; None keeps all.
        seed: the source's seed.
        name: what is drawn, "train" say: two draws of one seed differ by it.
        setting: what sets the limit; "limit_<name>" if it is not said.

    Raises:
        ConfigError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(
            f"data.{setting or f'limit_{name}'}={limit} must be at least 1; null takes everything"
        )
    if limit is None or limit >= len(examples):
        return tuple(examples)
    drawn = random.Random(f"subset/{name}/{seed}").sample(range(len(examples)), limit)
    return tuple(examples[index] for index in sorted(drawn))


def split(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split into train and test by question, so that no question stands on both sides (see `QuestionKey`).

    Args:
        examples: what to split; order is kept on both sides.
        share: of the questions that go to test, in (0, 1); at least one goes.
        seed: the source's seed.

    Returns:
        Train and test examples.

    Raises:
        ConfigError: `share` is not inside (0, 1).
        DataError: all questions are turns of the same chats: there is nothing to split.
    """
    if not 0 < share < 1:
        raise ConfigError(f"data.test_share={share} must lie between 0 and 1")
    asked, joined = _questions(examples)
    questions = list(dict.fromkeys(asked))
    random.Random(f"split/{seed}").shuffle(questions)
    count = max(1, round(share * len(questions)))
    return _parted(examples, asked, _first(questions, joined, count, "test"))


def held_out(
    examples: Sequence[Example], count: int, seed: int, name: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Hold out so many questions, all examples that ask them included.

    Args:
        examples: what to hold out of; order is kept on both sides.
        count: questions, fewer than there are.
        seed: the source's seed.
        name: what they become, "dev": a setting's name too.

    Returns:
        What is left, and what was held out.

    Raises:
        ConfigError: `count` is below 0, or nothing would be left.
        DataError: as `split`.
    """
    asked, joined = _questions(examples)
    questions = list(dict.fromkeys(asked))
    if not 0 <= count < max(1, len(questions)):
        raise ConfigError(
            f"data.{name}={count} must be 0 or more, and fewer than the {len(questions):,} questions"
        )
    rng = random.Random(f"hold/{name}/{seed}")
    drawn = rng.sample(questions, count)
    rest = [question for question in questions if question not in set(drawn)] if joined else []
    rng.shuffle(rest)
    return _parted(examples, asked, _first([*drawn, *rest], joined, count, "dev"))


def _questions(examples: Sequence[Example]) -> tuple[list[str], dict[str, list[str]]]:
    """What each example asks, and by question those that have to stay on its side: chats that it is a turn of."""
    reader = QuestionKey(examples)
    asked = [reader.of(example) for example in examples]
    known = set(asked)
    joined: dict[str, list[str]] = {}
    for own, example in zip(asked, examples, strict=True):
        for other in known.intersection(reader.within(example)) if example.history else ():
            one, two = (joined.setdefault(question, [question]) for question in (own, other))
            if one is not two:
                few, many = sorted((one, two), key=len)
                many += few
                joined |= dict.fromkeys(few, many)
    return asked, joined


def _first(
    questions: Sequence[str], joined: Mapping[str, list[str]], count: int, name: str
) -> set[str]:
    """The first `count` questions with those that stay on their side; fewer where these are too many.

    Raises:
        DataError: nothing would be left.
    """
    held: set[str] = set()
    for question in questions:
        group = joined.get(question, [question])
        if question not in held and len(held) + len(group) <= count:
            held.update(group)
    if count and not held:
        groups = [joined.get(question, [question]) for question in questions]
        least = min(groups, key=len)
        held.update(least)
        if len(held) == len(set(questions)):
            raise DataError(
                f"all {len(held):,} questions are turns of the same chats, so that none can be held out as {name}; give"
                " more data"
            )
    return held


def _parted(
    examples: Sequence[Example], asked: Sequence[str], held: Collection[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    pairs = list(zip(examples, asked, strict=True))
    train = tuple(example for example, question in pairs if question not in held)
    return train, tuple(example for example, question in pairs if question in held)


def with_shots(example: Example, pool: Sequence[Example], shots: int) -> Example:
    """Give an example the first `shots` of a pool, passing over those that ask its own question.

    Real exams repeat themselves (one of MMLU's dev files holds a question twice): a shot that
    would give the answer away is left out.
    """
    own = example.question
    others = [other for other in pool if other.question != own]
    return replace(example, shots=tuple((o.instruction, o.response) for o in others[:shots]))
