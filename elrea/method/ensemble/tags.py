"""Prompts that name their clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elrea.data.examples import Example


def tagged(examples: Iterable[Example], tag: str, clusters: Sequence[int]) -> list[Example]:
    """The examples with their clusters' numbers before the instruction; earlier turns and shots stay.

    Args:
        examples: Any.
        tag: What is written, with {} for the number.
        clusters: Of each example, its cluster.
    """
    pairs = zip(examples, clusters, strict=True)
    return [replace(e, instruction=tag.format(c) + e.instruction) for e, c in pairs]
