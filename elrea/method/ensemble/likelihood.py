"""Log-probabilities of continuations of prompts: the batches, and the reading of their logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, product
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from elrea.data.batches import by_length, pad
from elrea.data.prompts import Ids
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.mixing import mix
from elrea.method.ensemble.prefix import Prompt, most_shared, shares_prompts
from elrea.method.ensemble.shared_head import alike, keeps_all, size_of_head

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from elrea.method.ensemble.joint import JointModel

Asked = tuple[Ids, Sequence[Ids]]
"""A prompt's token ids, and those of its possible continuations; none is empty."""
LOGITS = 2**28
"""Most logits that a batch reads: 1 GiB in float32, of which scoring has about two copies at its peak."""


class Likelihood(NamedTuple):
    """The likelihood of a continuation.

    Attributes:
        log_p: log P(continuation | prompt), in nats.
        greedy: Whether greedy decoding writes it: each of its tokens is the likeliest one.
    """

    log_p: float
    greedy: bool


class Batch(ABC):
    """Some prompts, and where the logits are read that their continuations need.

    Attributes:
        of_place: Number of each logit vector's prompt in the batch.
        wanted: For each prompt and continuation, the (number of a logit vector, token) pairs whose log-probabilities
            are summed.
    """

    of_place: list[int]
    wanted: list[list[list[tuple[int, int]]]]

    @abstractmethod
    def logits(self, joint: JointModel, pad_id: int, used: Tensor | None = None) -> Tensor:
        """Logits of every member [members, places, vocabulary].

        Args:
            joint: All members.
            pad_id: Token id of padding.
            used: Which members each prompt needs [b, members]; None: all. The logits of the others are 0.
        """

    @abstractmethod
    def inside(self, model: LayerwiseModel, weights: Tensor, pad_id: int) -> Tensor:
        """Logits of members mixed inside the layers [places, vocabulary]; arguments as for `blended`."""

    def mixed(self, logits: Tensor, weights: Tensor) -> Tensor:
        """Log-probabilities of the mixed logits (5.10) at the places [places, vocabulary].

        Args:
            logits: Logits of the members that are mixed [members, places, vocabulary].
            weights: Weights of those members for each prompt of the batch [b, members].
        """
        of_place = weights[self.of_place].to(logits.device)
        return _normalised(mix(logits, of_place))

    def blended(self, model: LayerwiseModel, weights: Tensor, pad_id: int) -> Tensor:
        """Log-probabilities of members mixed inside the layers, at the places [places, vocabulary].

        Args:
            model: The model that mixes its members.
            weights: Weights of its members for each prompt of the batch [b, members].
            pad_id: Token id of padding.
        """
        return _normalised(self.inside(model, weights, pad_id))

    def sums(self, number: int, log_probs: Tensor) -> list[float]:
        """log P of each continuation of prompt `number` of the batch."""
        pairs = list(chain.from_iterable(self.wanted[number]))
        # Read together: a GPU is waited for once a prompt.
        each = iter(log_probs[[p for p, _ in pairs], [t for _, t in pairs]].tolist())
        return [sum(islice(each, len(own))) for own in self.wanted[number]]


@torch.inference_mode()
def _normalised(logits: Tensor) -> Tensor:
    """Log-probabilities of logits [places, vocabulary], in their memory."""
    for part in logits.split(16):
        part.copy_(part.log_softmax(-1))
    return logits


@dataclass(frozen=True)
class Rows(Batch):
    """A batch in which every sequence is a row of one pass.

    Attributes:
        sequences: Token ids of each row.
        places: (row, position) of every logit vector that is read.
    """

    sequences: list[Ids] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    of_place: list[int] = field(default_factory=list)
    wanted: list[list[list[tuple[int, int]]]] = field(default_factory=list)

    def logits(self, joint: JointModel, pad_id: int, used: Tensor | None = None) -> Tensor:
        ids, flat = self._padded(joint.model, pad_id)
        return joint.logits(ids, flat, None if used is None else used[self._of_row()])

    def inside(self, model: LayerwiseModel, weights: Tensor, pad_id: int) -> Tensor:
        ids, flat = self._padded(model.model, pad_id)
        return model.logits(ids, flat, weights[self._of_row()].to(ids.device))

    def _of_row(self) -> list[int]:
        """Number of each row's prompt."""
        of_row = [0] * len(self.sequences)
        for (row, _), prompt in zip(self.places, self.of_place, strict=True):
            of_row[row] = prompt
        return of_row

    def _padded(self, model: PreTrainedModel, pad_id: int) -> tuple[Tensor, Tensor]:
        """Token ids [rows, t], and the places as positions in the flattened ids, on the model's device."""
        device = next(model.parameters()).device
        ids, _ = pad(self.sequences, pad_id)
        flat = torch.tensor([row * ids.shape[1] + position for row, position in self.places])
        return ids.to(device), flat.to(device)


@dataclass(frozen=True)
class Shared(Batch):
    """A batch in which every prompt is read once for all its continuations.

    Attributes:
        prompts: The prompts with their continuations.
    """

    prompts: list[Prompt] = field(default_factory=list)
    of_place: list[int] = field(default_factory=list)
    wanted: list[list[list[tuple[int, int]]]] = field(default_factory=list)

    def logits(self, joint: JointModel, pad_id: int, used: Tensor | None = None) -> Tensor:
        return joint.logits_after(self.prompts, len(self.of_place), pad_id, used)

    def inside(self, model: LayerwiseModel, weights: Tensor, pad_id: int) -> Tensor:
        return model.logits_after(self.prompts, len(self.of_place), pad_id, weights)


def batches(
    asked: Sequence[Asked], batch_size: int, model: PreTrainedModel, members: int = 1
) -> Iterator[tuple[list[int], Batch]]:
    """Batches of prompts of similar length: their numbers, and where their logits are read.

    If all continuations of a prompt are single tokens, one row with the prompt is enough for all. Otherwise a prompt
    with several continuations is read once for all of them, if the model can (`shares_prompts`); each other
    continuation has its own row. Prompts that begin alike are batched together, so that this beginning is read once.

    Args:
        asked: The prompts with their continuations.
        batch_size: Most prompts in a batch. It has fewer where `members` would read more than `LOGITS` logits.
        model: The backbone.
        members: How many vectors of logits are read at each place.
    """
    short = [all(len(c) == 1 for c in cs) for _, cs in asked]
    kinds: list[Callable[[Sequence[Asked]], Batch]]
    kinds = [_short_rows if one else one_row_each for one in short]
    several = [i for i, (_, cs) in enumerate(asked) if len(cs) > 1 and not short[i]]
    lengths = [len(prompt) + max(map(len, continuations)) for prompt, continuations in asked]
    vector = members * vocabulary(model)
    read = [
        vector * (1 if one else sum(map(len, continuations)))
        for one, (_, continuations) in zip(short, asked, strict=True)
    ]
    limit = most_shared(model)
    fits = [length - 1 <= limit for length in lengths]  # a continuation's last token is not read
    if several and shares_prompts(model):
        for i in several:
            if fits[i]:
                kinds[i] = read_once
    for make, short_enough in product((_short_rows, one_row_each, read_once), (True, False)):
        # Behind its limit a model turns all keys of a pass otherwise: what is within it is read on its own.
        own = [i for i, kind in enumerate(kinds) if kind is make and fits[i] is short_enough]
        for group in alike([asked[i][0] for i in own], batch_size):
            for batch in by_length([lengths[own[i]] for i in group], batch_size):
                for indices in _within(LOGITS, [own[group[i]] for i in batch], read):
                    part = [asked[i] for i in indices]
                    heads = short_enough and make is _short_rows and _has_head(part, model)
                    yield indices, (read_once if heads else make)(part)


def _within(most: int, indices: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Parts of `indices` whose sizes add up to `most` or less; what is larger by itself is alone."""
    part: list[int] = []
    for index in indices:
        if part and sum(sizes[i] for i in part) + sizes[index] > most:
            yield part
            part = []
        part.append(index)
    yield part


def vocabulary(model: PreTrainedModel | PeftModel) -> int:
    """Entries of a vector of logits; 1 if the config does not say."""
    return getattr(model.config.get_text_config(), "vocab_size", 1)


def _has_head(asked: Sequence[Asked], model: PreTrainedModel) -> bool:
    """Whether a pass of its own for what these prompts begin with is worth it, and possible."""
    worth = size_of_head([prompt for prompt, _ in asked], 1) > 0
    return worth and keeps_all(model) and shares_prompts(model)


def log_likelihoods(
    joint: JointModel | LayerwiseModel,
    asked: Sequence[Asked],
    weights: Tensor,
    *,
    batch_size: int,
    pad_id: int,
) -> list[list[float]]:
    """log P(continuation | prompt) under the mixed logits; arguments as for `likelihoods`."""
    found = likelihoods(joint, asked, weights, batch_size=batch_size, pad_id=pad_id)
    return [[one.log_p for one in row] for row in found]


def likelihoods(
    joint: JointModel | LayerwiseModel,
    asked: Sequence[Asked],
    weights: Tensor,
    *,
    batch_size: int,
    pad_id: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> list[list[Likelihood]]:
    """Likelihoods under the mixed logits (5.10), for each prompt and continuation.

    Args:
        joint: All members. A `LayerwiseModel` mixes them inside its layers.
        asked: n prompts with at least one continuation each.
        weights: Weights of all members for each prompt [n, members].
        batch_size: Prompts (with their continuations) in one pass.
        pad_id: Token id of padding.
        advance: Called with the number of finished prompts.
    """
    found: list[list[Likelihood]] = [[] for _ in asked]
    inside = isinstance(joint, LayerwiseModel)
    for indices, rows in batches(asked, batch_size, joint.model, 1 if inside else joint.count):
        own = weights[indices]
        if isinstance(joint, LayerwiseModel):
            log_probs = rows.blended(joint, own, pad_id)
        else:
            log_probs = rows.mixed(rows.logits(joint, pad_id, own != 0), own)
        best = log_probs.argmax(-1).tolist()
        for number, i in enumerate(indices):
            greedy = [all(best[p] == token for p, token in pairs) for pairs in rows.wanted[number]]
            sums = rows.sums(number, log_probs)
            found[i] = [Likelihood(*one) for one in zip(sums, greedy, strict=True)]
        advance(len(indices))
    return found


def _short_rows(asked: Sequence[Asked]) -> Rows:
    rows = Rows()
    for number, (prompt, continuations) in enumerate(asked):
        rows.sequences.append(prompt)
        rows.places.append((number, len(prompt) - 1))
        rows.of_place.append(number)
        rows.wanted.append([[(number, c[0])] for c in continuations])
    return rows


def one_row_each(asked: Sequence[Asked]) -> Rows:
    """A batch with a row per continuation, behind its prompt."""
    rows = Rows()
    for number, (prompt, continuations) in enumerate(asked):
        rows.wanted.append([])
        for continuation in continuations:
            pairs = []
            for k, token in enumerate(continuation):
                pairs.append((len(rows.places), token))
                rows.places.append((len(rows.sequences), len(prompt) - 1 + k))
                rows.of_place.append(number)
            rows.sequences.append(prompt + continuation[:-1])
            rows.wanted[-1].append(pairs)
    return rows


def read_once(asked: Sequence[Asked]) -> Shared:
    """A batch whose prompts are read once each; the model must be one that `shares_prompts`."""
    batch = Shared()
    for number, (prompt, continuations) in enumerate(asked):
        first = len(batch.of_place)
        batch.of_place.append(number)
        batch.wanted.append([])
        tails = []
        for continuation in continuations:
            start = len(batch.of_place)
            if len(continuation) > 1:
                tails.append((start, continuation[:-1]))
            places = [first, *range(start, start + len(continuation) - 1)]
            batch.of_place.extend([number] * (len(continuation) - 1))
            batch.wanted[-1].append(list(zip(places, continuation, strict=True)))
        batch.prompts.append(Prompt(prompt, first, tails))
    return batch
