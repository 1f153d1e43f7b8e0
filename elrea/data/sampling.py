"""Seeded draws for all sources: subsets, held-out test and dev questions, and few-shot examples."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from elrea.data.overlap.question_key import QuestionKey
from elrea.errors import ConfigError, DataError

if TYPE_CHECKING:
    from elrea.data.examples import Example


def subset(
    examples: Sequence[Example], limit: int | None, seed: int, name: str, setting: str = ""
) -> tuple[Example, ...]:
    """Draw at most `limit` examples, whatever their source; they keep their order.

    Args:
        examples: the examples to draw from.
        limit: maximum number of examples; None keeps all.
        seed: the source's seed.
        name: name of the draw, "train": draws with different names are independent.
        setting: the setting of the limit, for the message; empty for "limit_<name>".

    Raises:
        ConfigError: `limit` is below 1.
    """
    _check_limit(limit, setting or f"limit_{name}")
    if limit is None or limit >= len(examples):
        return tuple(examples)
    drawn = random.Random(f"subset/{name}/{seed}").sample(range(len(examples)), limit)
    return tuple(examples[index] for index in sorted(drawn))


def stratified(
    examples: Sequence[Example], limit: int | None, seed: int, name: str
) -> tuple[Example, ...]:
    """Draw at most `limit` examples, from each source in proportion to its size; they keep their order.

    The numbers are Sainte-Laguë's: seat after seat goes to the source with the least (q + 1/2) / n, where n is its
    size and q its number so far. So a higher limit never takes an example from a source. A source has at least one
    example if the limit is not below the number of sources. Examples of one source are drawn as by `subset`.

    Args:
        examples: the examples to draw from.
        limit: maximum number of examples; None keeps all.
        seed: the source's seed.
        name: name of the draw, "train" for the setting limit_train.

    Raises:
        ConfigError: `limit` is below 1.
    """
    _check_limit(limit, f"limit_{name}")
    sizes = Counter(example.source for example in examples)
    if limit is None or limit >= len(examples) or len(sizes) == 1:
        return subset(examples, limit, seed, name)
    drawn: list[int] = []
    for source, count in _seats(sizes, limit).items():
        members = [index for index, example in enumerate(examples) if example.source == source]
        drawn += random.Random(f"subset/{name}/{seed}/{source}").sample(members, count)
    return tuple(examples[index] for index in sorted(drawn))


def nested(examples: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Draw `count` examples, of each source in proportion; a smaller draw with the same seed is a part of a larger one.

    Each source's examples are put in a drawn order, the q-th of n (from 0) at (q + 1/2) / n, and the first `count` of
    all places are taken, ties by the sources' order (Sainte-Laguë's numbers, as in `stratified`, which are not nested:
    `random.sample` may draw others for another number).

    Args:
        examples: the examples to draw from; those that are drawn keep their order.
        count: number of examples to draw, 1 to all.
        seed: of the order.

    Raises:
        ConfigError: `count` is out of range.
    """
    if not 1 <= count <= len(examples):
        raise ConfigError(
            f"data.rows={count} must be 1 to {len(examples):,}, the training examples"
        )
    members: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        members.setdefault(example.source, []).append(index)
    places = []
    for number, (source, indices) in enumerate(members.items()):
        order = random.Random(f"nested/{seed}/{source}").sample(indices, len(indices))
        places += [((q + 0.5) / len(order), number, index) for q, index in enumerate(order)]
    drawn = sorted(index for _, _, index in sorted(places)[:count])
    return tuple(examples[index] for index in drawn)


def _seats(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """The number of examples of each source: `limit` in all, less than the sum of `sizes`."""
    seats = dict.fromkeys(sizes, 1 if limit >= len(sizes) else 0)
    queue = [
        ((seats[source] + 0.5) / size, place, source)
        for place, (source, size) in enumerate(sizes.items())
    ]
    heapq.heapify(queue)
    for _ in range(limit - sum(seats.values())):
        _, place, source = queue[0]
        seats[source] += 1
        heapq.heapreplace(queue, ((seats[source] + 0.5) / sizes[source], place, source))
    return seats


def _check_limit(limit: int | None, setting: str) -> None:
    if limit is not None and limit < 1:
        raise ConfigError(f"data.{setting}={limit} must be at least 1, or null for all examples")


def split(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Split examples into train and test by question, so that no question is in both (see `QuestionKey`).

    Args:
        examples: the examples to split; both parts keep their order.
        share: share of the questions that become test, in (0, 1); at least one question does.
        seed: the source's seed.

    Returns:
        Train and test examples.

    Raises:
        ConfigError: `share` is not in (0, 1).
        DataError: chats connect all questions, so they cannot be split.
    """
    if not 0 < share < 1:
        raise ConfigError(f"data.test_share={share} must be between 0 and 1")
    keys, groups = _questions(examples)
    questions = list(dict.fromkeys(keys))
    random.Random(f"split/{seed}").shuffle(questions)
    count = max(1, round(share * len(questions)))
    return _divided(examples, keys, _take(questions, groups, count, "test"))


def hold_out(
    examples: Sequence[Example], count: int, seed: int, name: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Hold out a number of questions for dev, with all examples that ask them.

    Args:
        examples: the examples to hold out of; both parts keep their order.
        count: number of questions to hold out.
        seed: the source's seed.
        name: the setting that gives `count`, "dev_size"; draws with different names are independent.

    Returns:
        The remaining and the held-out examples.

    Raises:
        ConfigError: `count` is below 0, or no question would remain.
        DataError: as `split`.
    """
    keys, groups = _questions(examples)
    questions = list(dict.fromkeys(keys))
    if not 0 <= count < max(1, len(questions)):
        raise ConfigError(
            f"data.{name}={count} must be at least 0 and less than the number of questions, {len(questions):,}"
        )
    rng = random.Random(f"hold/{name}/{seed}")
    drawn = rng.sample(questions, count)
    chosen = set(drawn)
    rest = [question for question in questions if question not in chosen] if groups else []
    rng.shuffle(rest)
    return _divided(examples, keys, _take([*drawn, *rest], groups, count, "dev"))


def _questions(examples: Sequence[Example]) -> tuple[list[str], dict[str, list[str]]]:
    """The question keys of examples, and the groups of questions that a chat connects.

    Returns:
        The key of each example, and key -> all keys that must be in the same split, because one chat asks them in
        several turns. Questions that no chat connects are not in it.
    """
    reader = QuestionKey(examples)
    keys = [reader.key_of(example) for example in examples]
    known = set(keys)
    groups: dict[str, list[str]] = {}
    for key, example in zip(keys, examples, strict=True):
        for other in known.intersection(reader.keys_in(example)) if example.history else ():
            one, two = (groups.setdefault(question, [question]) for question in (key, other))
            if one is not two:
                few, many = sorted((one, two), key=len)
                many += few
                groups |= dict.fromkeys(few, many)
    return keys, groups


def _take(
    questions: Sequence[str], groups: Mapping[str, list[str]], count: int, split: str
) -> set[str]:
    """Take `count` questions in the given order, each with its group; fewer if a group would exceed `count`.

    Raises:
        DataError: the smallest group has all questions.
    """
    taken: set[str] = set()
    for question in questions:
        group = groups.get(question, [question])
        if question not in taken and len(taken) + len(group) <= count:
            taken.update(group)
    if count and not taken:
        all_groups = [groups.get(question, [question]) for question in questions]
        smallest: list[str] = min(all_groups, key=len)
        taken.update(smallest)
        if len(taken) == len(set(questions)):
            raise DataError(
                f"all {len(taken):,} questions are turns of the same chats, so none can be held out as {split}; add"
                " more data"
            )
    return taken


def _divided(
    examples: Sequence[Example], keys: Sequence[str], taken: Collection[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples whose question is not taken, and those whose question is."""
    pairs = list(zip(examples, keys, strict=True))
    rest = tuple(example for example, key in pairs if key not in taken)
    return rest, tuple(example for example, key in pairs if key in taken)


def with_shots(example: Example, pool: Sequence[Example], shots: int) -> Example:
    """Give an example the first `shots` examples of a pool that do not ask its own question.

    Such a shot would show the answer. It happens in published data: one of MMLU's dev files has a question twice.
    """
    others = [other for other in pool if other.question != example.question]
    return replace(example, shots=tuple((o.instruction, o.response) for o in others[:shots]))
