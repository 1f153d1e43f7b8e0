"""Optimiser steps from token sequences: padded batches and the positions that carry loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from elrea.data.batches import cheapest_cut, pad
from elrea.errors import TrainingError

if TYPE_CHECKING:
    from elrea.data.prompts import Encoded
    from elrea.models.training.schedule import Schedule


class Item(NamedTuple):
    """One training example."""

    id: str
    tokens: tuple[int, ...]
    first: int  # index of the first of the tokens at the end that carry loss
    earlier: tuple[int, ...] = ()  # indices of the tokens before them that carry loss too
    group: int = 0  # its cluster, where training tells clusters apart

    @property
    def counted(self) -> int:
        """Number of tokens that carry loss."""
        return len(self.earlier) + len(self.tokens) - self.first


class Batch(NamedTuple):
    """One forward pass. n is the number of positions that carry loss."""

    ids: Tensor  # LongTensor [batch, time], padded on the right
    places: Tensor  # LongTensor [n], positions in ids.flatten() that predict a target
    targets: Tensor  # LongTensor [n], the tokens to predict
    weights: Tensor  # FloatTensor [n], 1 / (tokens of the example · examples of the step)
    groups: Tensor  # LongTensor [batch], each row's group

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(*(tensor.to(device) for tensor in self))

    def of_group(self, group: int) -> Batch:
        """The rows of one group, without the padding that only longer rows of others need; there must be one."""
        width = self.ids.shape[1]
        rows = (self.groups == group).nonzero()[:, 0]
        counted = torch.isin(self.places // width, rows)
        row = torch.searchsorted(rows, self.places[counted] // width)
        column = self.places[counted] % width
        narrow = int(column.max()) + 2  # up to the target of the last place
        return Batch(
            self.ids[rows, :narrow], row * narrow + column,
            self.targets[counted], self.weights[counted], self.groups[rows],
        )  # fmt: skip


class OptimiserStep(NamedTuple):
    """One optimiser step: the batches whose gradients are summed."""

    number: int
    names: tuple[str, ...]  # ids of all its examples, other processes' too
    batches: tuple[Batch, ...]


def items(
    encoded: Sequence[Encoded], loss_on: str, groups: Sequence[int] | None = None
) -> list[Item]:
    """Training examples, with the tokens that carry loss.

    Args:
        encoded: Prompts and responses as token ids.
        groups: Of each example, its cluster; None where training does not tell them apart.
        loss_on: "response", with what `Encoded.prompt_loss` adds; or "all": every token, except what
            `Encoded.no_loss` takes out. The first token never carries loss, since nothing predicts it.

    Raises:
        TrainingError: No examples, or an example without a token that carries loss.
    """
    if not encoded:
        raise TrainingError("no training examples: 0 examples were given")
    made = []
    for example, group in zip(encoded, groups or [0] * len(encoded), strict=True):
        item = _item(example, loss_on)._replace(group=group)
        if item.counted < 1:
            raise TrainingError(f"example {example.id} has no {loss_on} token that carries loss")
        made.append(item)
    return made


def _item(example: Encoded, loss_on: str) -> Item:
    tokens, length = (*example.prompt, *example.response), len(example.prompt)
    never = example.no_loss or (False,) * length
    also = example.prompt_loss or (False,) * length
    counted = [
        place
        for place in range(1, length)
        if (also[place] or loss_on == "all") and not never[place]
    ]
    # Those that reach up to the response are one stretch with it.
    first = max(1, length)
    while counted and counted[-1] == first - 1:
        first = counted.pop()
    return Item(example.id, tokens, first, tuple(counted))


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
    for row, item in enumerate(chosen):
        at = (*item.earlier, *range(item.first, len(item.tokens)))
        # The logits at position p are the prediction of the token at p + 1.
        places.extend(row * width + place - 1 for place in at)
        targets.extend(item.tokens[place] for place in at)
        weights.extend([1 / (len(at) * step_size)] * len(at))
    groups = torch.tensor([item.group for item in chosen])
    return Batch(ids, torch.tensor(places), torch.tensor(targets), torch.tensor(weights), groups)


def steps(
    schedule: Schedule,
    examples: Sequence[Item],
    *,
    pad_id: int,
    batch_size: int,
    done: int = 0,
    share: tuple[int, int] = (0, 1),
    pass_cost: float = math.inf,
) -> Iterator[OptimiserStep]:
    """Yields the optimiser steps of a schedule that follow the first `done` ones.

    Args:
        schedule: Which examples are in which step.
        examples: What the schedule's indices point at.
        pad_id: The token id of the padding.
        batch_size: Most examples in one forward pass.
        done: Number of steps already taken, of which nothing is yielded.
        share: (k, n): the batches hold only every n-th of a step's examples, from the k-th on.
        pass_cost: Of a forward and backward pass beside its tokens, in tokens. Where it is less than the padding that a
            further pass saves, the examples of one process's step go through the model in several passes.
    """
    order: list[list[int]] = []
    for number in range(done + 1, schedule.total + 1):
        within = (number - 1) % schedule.steps_per_epoch
        if not order or within == 0:
            order = schedule.order(schedule.epoch(number))
        chosen = [examples[index] for index in order[within]]
        names = tuple(item.id for item in chosen)
        yield OptimiserStep(number, names, _batches(chosen, pad_id, batch_size, share, pass_cost))


def _batches(
    chosen: Sequence[Item],
    pad_id: int,
    batch_size: int,
    share: tuple[int, int],
    pass_cost: float,
) -> tuple[Batch, ...]:
    """One process's share of a step's examples, cut into forward passes."""
    first, stride = share
    mine = chosen[first::stride]
    cost = pass_cost if stride == 1 else math.inf  # processes wait for each other's passes
    cut = cheapest_cut([len(item.tokens) for item in mine], batch_size, cost)
    batches = [collate([mine[index] for index in part], pad_id, len(chosen)) for part in cut]
    # A sharded backbone gathers its weights in every pass, so all processes must make equally many passes.
    if len(batches) < len(range(0, len(chosen[::stride]), batch_size)):
        filler = collate(chosen[:1], pad_id, len(chosen))
        batches.append(filler._replace(weights=torch.zeros_like(filler.weights)))
    return tuple(batches)
