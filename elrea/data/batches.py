"""From sequences of token ids to batches: padding, and which example goes where."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

POOL = 50
"""Batches to a pool: large enough to cut padding, small enough to leave the order random."""

PADDING = 0.1
"""Share of a batch's places that padding may take: more costs more than another batch does."""


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad on the right to the longest sequence.

    Args:
        sequences: b sequences of token ids; one may be empty.
        pad_id: fills up; any id will do, the mask covers it.

    Returns:
        ids: int64, `[b, t]`, t the longest length.
        mask: bool, `[b, t]`, True on real tokens.
    """
    import torch

    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.long)
    longest = int(lengths.max()) if len(sequences) else 0
    mask = torch.arange(longest)[None, :] < lengths[:, None]
    ids = torch.full(mask.shape, pad_id, dtype=torch.long)
    ids[mask] = torch.tensor(list(chain.from_iterable(sequences)), dtype=torch.long)
    return ids, mask


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of examples of like length, longest first: a lack of memory shows at once.

    Args:
        lengths: tokens of each of the n examples.
        batch_size: examples to a batch; the last batch may hold fewer.

    Returns:
        Indices, each of 0 … n-1 once; equal lengths keep their order.
    """
    return _cut(sorted(range(len(lengths)), key=lambda index: -lengths[index]), batch_size)


def by_tokens(lengths: Sequence[int], batch_size: int, tokens: int) -> list[list[int]]:
    """Batches of examples of like length, longest first, that padding wastes less than a tenth of.

    What is in a batch depends on the examples after its first one alone: any run of batches,
    asked for again by itself, comes out the same.

    Args:
        lengths: tokens of each of the n examples.
        batch_size: examples to a batch at most.
        tokens: places of a batch, padding included, at most; a longer example stands alone.

    Returns:
        Indices, each of 0 … n-1 once; equal lengths keep their order.
    """
    batches: list[list[int]] = []
    real = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batches and len(batches[-1]) < batch_size:
            places = (len(batches[-1]) + 1) * lengths[batches[-1][0]]
            wasted = places - real - lengths[index]
            if places <= tokens and (wasted == 0 or wasted < PADDING * places):
                batches[-1].append(index)
                real += lengths[index]
                continue
        batches.append([index])
        real = lengths[index]
    return batches


def epoch_order(
    n: int,
    batch_size: int,
    seed: int,
    stage: str,
    epoch: int,
    lengths: Sequence[int] | None = None,
) -> list[list[int]]:
    """One epoch's training batches, a function of the arguments alone.

    No generator is carried from epoch to epoch: a resumed run draws what the unbroken one drew.

    Args:
        n: how many examples there are.
        batch_size: examples to a batch; one batch may hold fewer.
        seed: the run's seed.
        stage: name of what is trained, e.g. "base" or "expert_03".
        epoch: counted from 0.
        lengths: tokens of each example. Given, examples of like length share a batch within
            shuffled pools of 50 batches, which cuts padding; the batches' order is random still.

    Returns:
        Indices, each of 0 … n-1 once, in ceil(n / batch_size) batches.
    """
    generator = random.Random(f"order/{seed}/{stage}/{epoch}")
    order = list(range(n))
    generator.shuffle(order)
    if lengths is None:
        return _cut(order, batch_size)
    pools = _cut(order, POOL * batch_size)
    batches = [
        batch
        for pool in pools
        for batch in _cut(sorted(pool, key=lambda index: lengths[index]), batch_size)
    ]
    generator.shuffle(batches)
    return batches


def _cut(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
