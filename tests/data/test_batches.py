"""Batches: every index appears once, the result depends on the arguments only, and padding is on the right."""

from __future__ import annotations

from itertools import chain, pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elrea.data.batches import PADDING, POOL, by_length, by_tokens, epoch_order, pad

lengths_of = st.lists(st.integers(0, 30), max_size=200)
sizes = st.integers(1, 17)


@given(st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=7))
@settings(deadline=None)
def test_padding_keeps_every_token_and_marks_the_rest(sequences: list[list[int]]):
    ids, mask = pad(sequences, pad_id=7)
    longest = max(map(len, sequences), default=0)
    assert ids.shape == mask.shape == (len(sequences), longest)
    assert ids.dtype == torch.long and mask.dtype == torch.bool
    assert bool((ids[~mask] == 7).all())
    for row, flags, sequence in zip(ids, mask, sequences, strict=True):
        assert row[flags].tolist() == sequence
        assert flags.tolist() == [True] * len(sequence) + [False] * (longest - len(sequence))


@given(lengths_of, sizes)
@settings(deadline=None)
def test_by_length_has_every_index_once_longest_first(lengths: list[int], size: int):
    batches = by_length(lengths, size)
    order = list(chain.from_iterable(batches))
    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    assert all(len(batch) == size for batch in batches[:-1])


@given(lengths_of, sizes, st.integers(1, 300))
@settings(deadline=None)
def test_by_tokens_keeps_its_limits_with_less_than_a_tenth_of_padding(
    lengths: list[int], size: int, tokens: int
):
    batches = by_tokens(lengths, size, tokens)
    order = list(chain.from_iterable(batches))
    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for batch in batches:
        places, real = len(batch) * lengths[batch[0]], sum(lengths[i] for i in batch)
        assert len(batch) == 1 or (len(batch) <= size and places <= tokens)
        assert places == real or places - real < PADDING * places
    # A batch ends only if the next example would break a limit.
    for batch, after in pairwise(batches):
        more = (len(batch) + 1) * lengths[batch[0]]
        real = sum(lengths[i] for i in batch) + lengths[after[0]]
        assert len(batch) == size or more > tokens or more - real >= PADDING * more


@given(lengths_of, sizes, st.integers(1, 300), st.data())
@settings(deadline=None)
def test_by_tokens_batches_any_later_part_in_the_same_way(
    lengths: list[int], size: int, tokens: int, data
):
    ordered = sorted(lengths, reverse=True)
    batches = by_tokens(ordered, size, tokens)
    first = data.draw(st.integers(0, len(batches)))
    start = sum(map(len, batches[:first]))
    again = by_tokens(ordered[start:], size, tokens)
    assert [[start + i for i in batch] for batch in again] == batches[first:]


@given(lengths_of, sizes, st.integers(0, 3), st.integers(0, 3), st.booleans())
@settings(deadline=None)
def test_an_epoch_has_every_index_once(
    lengths: list[int], size: int, seed: int, epoch: int, grouped: bool
):
    n = len(lengths)
    batches = epoch_order(n, size, seed, "base", epoch, lengths if grouped else None)
    assert sorted(chain.from_iterable(batches)) == list(range(n))
    assert len(batches) == -(-n // size)
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)
    assert batches == epoch_order(n, size, seed, "base", epoch, lengths if grouped else None)


def test_seed_stage_and_epoch_each_change_the_order():
    lengths = [index % 13 for index in range(100)]
    for given_lengths in (None, lengths):
        orders = [
            epoch_order(100, 8, seed, stage, epoch, given_lengths)
            for seed in (0, 1)
            for stage in ("base", "expert_00")
            for epoch in (0, 1)
        ]
        assert all(orders.count(order) == 1 for order in orders)


def test_the_order_is_the_recorded_one():
    """Every trained adapter depends on it: a change needs new versions of the training stages."""
    assert epoch_order(7, 3, 0, "base", 0) == [[3, 2, 4], [5, 1, 0], [6]]


def test_grouping_by_length_reduces_padding_and_keeps_batches_in_random_order():
    n, size = 4000, 8
    lengths = [(index * 7919) % 997 for index in range(n)]

    def waste(batches: list[list[int]]) -> int:
        return sum(
            max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches
        )

    grouped = epoch_order(n, size, 0, "base", 0, lengths)
    assert waste(grouped) < waste(epoch_order(n, size, 0, "base", 0)) / 10
    longest = [max(lengths[index] for index in batch) for batch in grouped]
    climbs = sum(a < b for a, b in pairwise(longest))
    assert 0.4 < climbs / len(longest) < 0.6
    assert n > 2 * POOL * size  # there is more than one pool
