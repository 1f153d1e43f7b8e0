"""Token sequences made into optimiser steps: padded batches and the positions that carry loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from elrea.data.batches import pad
from elrea.errors import TrainingError
from elrea.models.training.schedule import Schedule

if TYPE_CHECKING:
    from elrea.data.prompts import Encoded


class Item(NamedTuple):
    """One training example."""

    id: str
    tokens: tuple[int, ...]
    first: int  # index of the first token that carries loss; the rest to the end do too


class Batch(NamedTuple):
    """One forward pass. n is the number of positions that carry loss."""

    ids: Tensor  # LongTensor [batch, time], padded on the right
    places: Tensor  # LongTensor [n], positions in ids.flatten() that predict a target
    targets: Tensor  # LongTensor [n], the tokens to predict
    weights: Tensor  # FloatTensor [n], 1 / (tokens of the example · examples of the step)


class Step(NamedTuple):
    """One optimiser step: the batches whose gradients are added up."""

    number: int
    names: tuple[str, ...]  # of all its examples, other processes' too
    batches: tuple[Batch, ...]


def items(encoded: Sequence[Encoded], loss_on: str) -> list[Item]:
    """Fix for each example which of its tokens carry loss.

    Args:
        encoded: prompts and responses as token ids.
        loss_on: "response", or "all": every token but the first, which nothing predicts.

    Raises:
        TrainingError: an example without a token that carries loss, or none at all.
    """
    if not encoded:
        raise TrainingError("there is nothing to train on: 0 examples")
    found = []
    for example in encoded:
        tokens = (*example.prompt, *example.response)
        first = max(1, len(example.prompt)) if loss_on == "response" else 1
        if first >= len(tokens):
            raise TrainingError(f"example {example.id} has no {loss_on} token that carries loss")
        found.append(Item(example.id, tokens, first))
    return found


def collate(chosen: Sequence[Item], pad_id: int, step_size: int) -> Batch:
    """Pad a batch and weight its positions.

    The weights make the sum over a step's batches the mean over its examples of the mean over
    each example's tokens, however the step is cut into batches.

    Args:
        chosen: the batch's examples.
        pad_id: the token id of the padding; it never carries loss.
        step_size: examples in the whole optimiser step.
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


class Steps:
    """The steps of a plan that are still to do, made one at a time as they are asked for.

    `len` is the whole plan's, as Lightning counts; iterating begins after the `taken` steps.
    """

    def __init__(
        self,
        plan: Schedule,
        examples: Sequence[Item],
        *,
        pad_id: int,
        batch_size: int,
        taken: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Args as in `Schedule` and `collate`; `batch_size` is a forward pass's largest.

        Of a step's examples only every n-th from the k-th on are in the batches where share is (k, n).
        """
        self.plan = plan
        self.examples = examples
        self.pad_id = pad_id
        self.batch_size = batch_size
        self.taken = taken
        self.first, self.stride = share

    def __len__(self) -> int:
        """Optimiser steps of the whole plan."""
        return self.plan.total

    def __iter__(self) -> Iterator[Step]:
        """The steps from `taken` + 1 on."""
        per_epoch = self.plan.steps_per_epoch
        order: list[list[int]] = []
        for number in range(self.taken + 1, self.plan.total + 1):
            within = (number - 1) % per_epoch
            if not order or within == 0:
                order = self.plan.order(self.plan.epoch(number))
            yield self._make(number, [self.examples[index] for index in order[within]])

    def _make(self, number: int, chosen: list[Item]) -> Step:
        """Cut one step's examples into batches."""
        mine = chosen[self.first :: self.stride]
        batches = [
            collate(mine[start : start + self.batch_size], self.pad_id, len(chosen))
            for start in range(0, len(mine), self.batch_size)
        ]
        # Where weights are gathered in each pass, processes that have fewer examples must not make fewer passes.
        if len(batches) < len(range(0, len(chosen[:: self.stride]), self.batch_size)):
            filler = collate(chosen[:1], self.pad_id, len(chosen))
            batches.append(filler._replace(weights=torch.zeros_like(filler.weights)))
        return Step(number, tuple(item.id for item in chosen), tuple(batches))

    def state_dict(self) -> dict[str, int]:
        """Nothing: the number of steps taken, which the loop keeps, says where to go on."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to do, see `state_dict`. Both tell Lightning that this loader can resume."""
