"""Optimiser steps from token sequences: padded batches and the positions that carry loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from elrea.data.batches import pad
from elrea.errors import TrainingError

if TYPE_CHECKING:
    from elrea.data.prompts import Encoded
    from elrea.models.training.schedule import Schedule


class Item(NamedTuple):
    """One training example."""

    id: str
    tokens: tuple[int, ...]
    first: int  # index of the first token that carries loss; all later ones do too


class Batch(NamedTuple):
    """One forward pass. n is the number of positions that carry loss."""

    ids: Tensor  # LongTensor [batch, time], padded on the right
    places: Tensor  # LongTensor [n], positions in ids.flatten() that predict a target
    targets: Tensor  # LongTensor [n], the tokens to predict
    weights: Tensor  # FloatTensor [n], 1 / (tokens of the example · examples of the step)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(*(tensor.to(device) for tensor in self))


class Step(NamedTuple):
    """One optimiser step: the batches whose gradients are summed."""

    number: int
    names: tuple[str, ...]  # ids of all its examples, other processes' too
    batches: tuple[Batch, ...]


def items(encoded: Sequence[Encoded], loss_on: str) -> list[Item]:
    """Training examples, with the tokens that carry loss.

    Args:
        encoded: Prompts and responses as token ids.
        loss_on: "response", or "all": every token except the first, which nothing predicts.

    Raises:
        TrainingError: No examples, or an example without a token that carries loss.
    """
    if not encoded:
        raise TrainingError("no training examples: 0 examples were given")
    made = []
    for example in encoded:
        tokens = (*example.prompt, *example.response)
        first = max(1, len(example.prompt)) if loss_on == "response" else 1
        if first >= len(tokens):
            raise TrainingError(f"example {example.id} has no {loss_on} token that carries loss")
        made.append(Item(example.id, tokens, first))
    return made


def collate(chosen: Sequence[Item], pad_id: int, step_size: int) -> Batch:
    """Pads a batch and weights its positions.

    With these weights the sum over a step's batches is the mean over its examples of the mean over each example's
    tokens, however the step is cut into batches.

    Args:
        chosen: The batch's examples.
        pad_id: The token id of the padding; it never carries loss.
        step_size: Examples in the whole optimiser step.
    """
    ids, _ = pad([item.tokens for item in chosen], pad_id)
    width = ids.shape[1]
    places: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for row, (_, tokens, first) in enumerate(chosen):
        count = len(tokens) - first
        # The logits at position p are the prediction of the token at p + 1.
        places.extend(range(row * width + first - 1, row * width + len(tokens) - 1))
        targets.extend(tokens[first:])
        weights.extend([1 / (count * step_size)] * count)
    return Batch(ids, torch.tensor(places), torch.tensor(targets), torch.tensor(weights))


def steps(
    schedule: Schedule,
    examples: Sequence[Item],
    *,
    pad_id: int,
    batch_size: int,
    done: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Step]:
    """Yields the optimiser steps of a schedule that follow the first `done` ones.

    Args:
        schedule: Which examples are in which step.
        examples: What the schedule's indices point at.
        pad_id: The token id of the padding.
        batch_size: Most examples in one forward pass.
        done: Number of steps already taken, of which nothing is yielded.
        share: (k, n): the batches hold only every n-th of a step's examples, from the k-th on.
    """
    order: list[list[int]] = []
    for number in range(done + 1, schedule.total + 1):
        within = (number - 1) % schedule.steps_per_epoch
        if not order or within == 0:
            order = schedule.order(schedule.epoch(number))
        chosen = [examples[index] for index in order[within]]
        names = tuple(item.id for item in chosen)
        yield Step(number, names, _batches(chosen, pad_id, batch_size, share))


def _batches(
    chosen: Sequence[Item], pad_id: int, batch_size: int, share: tuple[int, int]
) -> tuple[Batch, ...]:
    """One process's share of a step's examples, cut into forward passes."""
    first, stride = share
    mine = chosen[first::stride]
    batches = [
        collate(mine[start : start + batch_size], pad_id, len(chosen))
        for start in range(0, len(mine), batch_size)
    ]
    # A sharded backbone gathers its weights in every pass, so all processes must make equally many passes.
    if len(batches) < len(range(0, len(chosen[::stride]), batch_size)):
        filler = collate(chosen[:1], pad_id, len(chosen))
        batches.append(filler._replace(weights=torch.zeros_like(filler.weights)))
    return tuple(batches)
