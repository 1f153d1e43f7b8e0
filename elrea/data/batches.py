"""Batches: padding sequences of token ids, and the order in which examples are batched."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

POOL = 50
"""Batches in a pool, within which examples are sorted by length: large enough to reduce padding, small enough to keep
the order random."""

PADDING = 0.1
"""Maximum share of padding in a batch of `by_tokens`: with more, a further batch would be cheaper."""


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad on the right to the longest sequence.

    Args:
        sequences: b sequences of token ids; one may be empty.
        pad_id: id of the padding; any id is fine, because the mask excludes it.

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
    """Batches of examples of similar length, longest first, so that running out of memory shows at once.

    Args:
        lengths: number of tokens of each of the n examples.
        batch_size: examples in a batch; the last batch may have fewer.

    Returns:
        Batches of indices, each of 0 … n-1 once; equal lengths keep their order.
    """
    return _cut(sorted(range(len(lengths)), key=lambda index: -lengths[index]), batch_size)


def by_tokens(lengths: Sequence[int], batch_size: int, tokens: int) -> list[list[int]]:
    """Batches of examples of similar length, longest first, with less than a tenth of padding.

    A batch depends only on its first example and the shorter ones after it. Any run of consecutive batches is therefore
    the same if its examples are batched alone.

    Args:
        lengths: number of tokens of each of the n examples.
        batch_size: maximum number of examples in a batch.
        tokens: maximum number of tokens in a batch, with padding; a longer example is a batch of its own.

    Returns:
        Batches of indices, each of 0 … n-1 once; equal lengths keep their order.
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


def cheapest_cut(lengths: Sequence[int], most: int, cost: float) -> list[list[int]]:
    """Cuts examples into passes so that the places of all passes, padding included, and the passes' own cost are least.

    Short examples that share a pass with a long one are padded to its length; a pass of their own saves that. Sorted by
    length, the best cut is found exactly, by dynamic programming.

    Args:
        lengths: number of tokens of each of the n examples.
        most: maximum number of examples in a pass.
        cost: of a pass beside its tokens, in tokens; infinite: as few passes as possible, in the given order.

    Returns:
        Passes of indices, each of 0 … n-1 once; longest first.
    """
    if cost == float("inf"):
        return _cut(list(range(len(lengths))), most)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    # Of the first n examples: their least cost, and where their last pass begins.
    best, starts = [0.0], [0]
    for end in range(1, len(order) + 1):
        found = [
            (best[start] + (end - start) * lengths[order[start]] + cost, start)
            for start in range(max(0, end - most), end)
        ]
        least, start = min(found)
        best.append(least)
        starts.append(start)
    passes: list[list[int]] = []
    end = len(order)
    while end:
        passes.append(order[starts[end] : end])
        end = starts[end]
    return passes[::-1]


def epoch_order(
    n: int,
    batch_size: int,
    seed: int,
    stage: str,
    epoch: int,
    lengths: Sequence[int] | None = None,
) -> list[list[int]]:
    """The training batches of one epoch, which depend on the arguments only.

    Every epoch has its own random generator, so a resumed run has the same batches as an uninterrupted one.

    Args:
        n: number of examples.
        batch_size: examples in a batch; one batch may have fewer.
        seed: the run's seed.
        stage: name of the adapter that is trained, e.g. "base" or "expert-3".
        epoch: number of the epoch, from 0.
        lengths: number of tokens of each example. If given, examples are sorted by length within random pools of 50
            batches, which reduces padding; the order of the batches is random.

    Returns:
        Batches of indices, each of 0 … n-1 once, in ceil(n / batch_size) batches.
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
