"""Test questions that stand in train or dev, and dev's in train: refused, or taken out there and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from elrea.data.examples import Example
from elrea.data.overlap.dropped import Drops
from elrea.data.overlap.question_key import QuestionKey
from elrea.data.parts import Parts
from elrea.errors import DataError

Overlap = Literal["refuse", "drop"]


class HeldOut:
    """Questions that are held out, by what is asked (`elrea.data.overlap.question_key`).

    Args:
        dev: what settings are chosen by; leaves train.
        test: what is scored, all of it: a limit that is raised later is to leave train as it is. Leaves train and dev.
    """

    def __init__(self, dev: Sequence[Example], test: Sequence[Example]) -> None:
        self._asked = QuestionKey([*dev, *test])
        self._of = {
            "test": [(self._asked.of(example), example.id) for example in test],
            "dev": [(self._asked.of(example), example.id) for example in dev],
        }

    def leave(
        self, split: str, examples: Sequence[Example], overlap: Overlap, drops: Drops, name: str
    ) -> tuple[Example, ...]:
        """Examples without those that ask what is held out, be it as an earlier turn of a chat.

        Args:
            split: "train", which test and dev leave, or "dev", which test leaves.
            examples: of the split.
            overlap: what to do where they meet.
            drops: told what was taken out.
            name: the source's, for the message.

        Raises:
            DataError: they meet, and `overlap` is "refuse".
        """
        held = {other: self._of[other] for other in ("test", "dev") if other != split}
        where = {key: other for other in ("dev", "test") for key, _ in held.get(other, ())}
        kept: list[Example] = []
        met: dict[str, str] = {}
        for example in examples:
            found = [key for key in self._asked.within(example) if key in where] if where else []
            if not found:
                kept.append(example)
                continue
            met |= {key: example.id for key in found if key not in met}
            reason = "stands in test" if "test" in map(where.get, found) else "stands in dev"
            if overlap == "drop":
                drops.add(example.source, f"dropped from {split}", reason, example.id)
        if met and overlap == "refuse":
            raise DataError(f"{name}: {_said(split, held, met)}")
        return tuple(kept)


def resolve_overlap(
    parts: Parts, overlap: Overlap, name: str, held: HeldOut | None = None
) -> Parts:
    """A source's parts without the test's questions in train and dev, and without dev's in train.

    Args:
        parts: what a source read and held out.
        overlap: what to do where they meet.
        name: the source's, for the message.
        held: other sources' dev and test too; None: its own alone.

    Raises:
        DataError: they meet, and `overlap` is "refuse".
    """
    held = held or HeldOut(parts.dev, parts.test)
    train = held.leave("train", parts.train, overlap, parts.drops, name)
    dev = held.leave("dev", parts.dev, overlap, parts.drops, name)
    return replace(parts, train=train, dev=dev)


def _said(split: str, held: dict[str, list[tuple[str, str]]], met: dict[str, str]) -> str:
    """What met, of the first of the held out splits that has any of it."""
    for other, asked in held.items():
        stand = [(key, id) for key, id in asked if key in met]
        if stand:
            key, first = stand[0]
            return (
                f"{len(stand):,} of {len(asked):,} {other} questions stand in {split}, first {first} ({split}:"
                f" {met[key]}); set data.overlap=drop to leave them out of {split}, or data.allow_overlap=true"
            )
    raise AssertionError("what met is of one of them")
