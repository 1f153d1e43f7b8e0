"""Seeded draws that every source shares: subsets, a train/test split, few-shot examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from elrea.data.examples import Example
from elrea.errors import ConfigError


def subset(
    examples: Sequence[Example], limit: int | None, seed: int, name: str
) -> tuple[Example, ...]:
    """Draw at most `limit` examples, in their old order.

    Args:
        examples: what to draw from.
        limit: how many; None keeps all.
        seed: the source's seed.
        name: what is drawn, "train" say: two draws of one seed differ by it.

    Raises:
        ConfigError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"data.limit_{name}={limit} must be at least 1; null takes everything")
    if limit is None or limit >= len(examples):
        return tuple(examples)
    drawn = random.Random(f"subset/{name}/{seed}").sample(range(len(examples)), limit)
    return tuple(examples[index] for index in sorted(drawn))


def split(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split into train and test by question, so that no question stands on both sides.

    Args:
        examples: what to split; order is kept on both sides.
        share: of the questions that go to test, in (0, 1); at least one goes.
        seed: the source's seed.

    Returns:
        Train and test examples.

    Raises:
        ConfigError: `share` is not inside (0, 1).
    """
    if not 0 < share < 1:
        raise ConfigError(f"data.test_share={share} must lie between 0 and 1")
    questions = list(dict.fromkeys(example.question for example in examples))
    random.Random(f"split/{seed}").shuffle(questions)
    held = set(questions[: max(1, round(share * len(questions)))])
    train = tuple(example for example in examples if example.question not in held)
    return train, tuple(example for example in examples if example.question in held)


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
    """
    questions = list(dict.fromkeys(example.question for example in examples))
    if not 0 <= count < max(1, len(questions)):
        raise ConfigError(
            f"data.{name}={count} must be 0 or more, and fewer than the {len(questions):,} questions"
        )
    held = set(random.Random(f"hold/{name}/{seed}").sample(questions, count))
    train = tuple(example for example in examples if example.question not in held)
    return train, tuple(example for example in examples if example.question in held)


def with_shots(example: Example, pool: Sequence[Example], shots: int) -> Example:
    """Give an example the first `shots` of a pool, passing over those that ask its own question.

    Real exams repeat themselves (one of MMLU's dev files holds a question twice): a shot that
    would give the answer away is left out.
    """
    own = example.question
    others = [other for other in pool if other.question != own]
    return replace(example, shots=tuple((o.instruction, o.response) for o in others[:shots]))
