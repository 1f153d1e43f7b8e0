"""Finds questions of test or dev in a split that is used earlier, and refuses or drops the examples that ask them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from elrea.data.overlap.question_key import QuestionKey
from elrea.errors import DataError

if TYPE_CHECKING:
    from elrea.data.corpus import Splits
    from elrea.data.drops import Drops
    from elrea.data.examples import Example

Overlap = Literal["refuse", "drop"]


class HeldOut:
    """The held-out questions: those of dev must not be in train, and those of test must not be in train or dev.

    Questions are compared by `elrea.data.overlap.question_key`, which ignores their layout.

    Args:
        dev: the examples that settings are chosen by.
        test: all examples for scoring, before any limit: if `limit_test` is raised later, train stays the same.
    """

    def __init__(self, dev: Sequence[Example], test: Sequence[Example]) -> None:
        self._keys = QuestionKey([*dev, *test])
        self._questions = {
            "test": [(self._keys.key_of(example), example.id) for example in test],
            "dev": [(self._keys.key_of(example), example.id) for example in dev],
        }

    def remove_from(
        self, split: str, examples: Sequence[Example], overlap: Overlap, drops: Drops, name: str
    ) -> tuple[Example, ...]:
        """The examples of a split that ask no held-out question, not even in an earlier turn of a chat.

        Args:
            split: "train", which must not have questions of test or dev, or "dev", which must not have any of test.
            examples: the examples of that split.
            overlap: "drop" the examples that ask a held-out question, or "refuse" the data.
            drops: every dropped example is added to it.
            name: the source's name, for the message.

        Raises:
            DataError: an example asks a held-out question and `overlap` is "refuse".
        """
        held_out = {other: self._questions[other] for other in ("test", "dev") if other != split}
        split_of = {key: other for other in ("dev", "test") for key, _ in held_out.get(other, ())}
        kept: list[Example] = []
        asked_by: dict[str, str] = {}
        for example in examples:
            keys = (
                [key for key in self._keys.keys_in(example) if key in split_of] if split_of else []
            )
            if not keys:
                kept.append(example)
                continue
            for key in keys:
                asked_by.setdefault(key, example.id)
            other = "test" if "test" in map(split_of.get, keys) else "dev"
            if overlap == "drop":
                drops.add(example.source, f"dropped from {split}", f"also in {other}", example.id)
        if asked_by and overlap == "refuse":
            raise DataError(f"{name}: {_message(split, held_out, asked_by)}")
        return tuple(kept)


def resolve_overlap(
    splits: Splits, overlap: Overlap, name: str, held_out: HeldOut | None = None
) -> Splits:
    """Remove the questions of test from train and dev, and those of dev from train.

    Args:
        splits: what a source has read and held out.
        overlap: "drop" the examples that ask a held-out question, or "refuse" the data.
        name: the source's name, for the message.
        held_out: held-out questions of several sources; None takes those of `splits`.

    Raises:
        DataError: there is overlap and `overlap` is "refuse".
    """
    held_out = held_out or HeldOut(splits.dev, splits.test)
    train = held_out.remove_from("train", splits.train, overlap, splits.drops, name)
    dev = held_out.remove_from("dev", splits.dev, overlap, splits.drops, name)
    return replace(splits, train=train, dev=dev)


def _message(
    split: str, held_out: dict[str, list[tuple[str, str]]], asked_by: dict[str, str]
) -> str:
    """How many held-out questions a split asks, and the first of them: of test, or of dev if none is of test."""
    for other, questions in held_out.items():
        found = [(key, id) for key, id in questions if key in asked_by]
        if found:
            key, first = found[0]
            return (
                f"{len(found):,} of {len(questions):,} {other} questions are also in {split}, first {first} ({split}:"
                f" {asked_by[key]}); set data.overlap=drop to drop them from {split}, or data.allow_overlap=true"
            )
    raise AssertionError("every question that was found is of test or dev")
