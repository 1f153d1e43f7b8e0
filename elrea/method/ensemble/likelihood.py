"""Log-probabilities of continuations of prompts: the batches of sequences, and the reading of their logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from elrea.data.batches import by_length, pad
from elrea.data.prompts import Ids
from elrea.method.ensemble.mixing import mix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from elrea.method.ensemble.joint import JointModel
    from elrea.method.ensemble.layerwise import LayerwiseModel

Asked = tuple[Ids, Sequence[Ids]]
"""A prompt's token ids, and those of its possible continuations; none is empty."""


class Likelihood(NamedTuple):
    """The likelihood of a continuation.

    Attributes:
        log_p: log P(continuation | prompt), in nats.
        greedy: Whether greedy decoding writes it: each of its tokens is the likeliest one.
    """

    log_p: float
    greedy: bool


@dataclass(frozen=True)
class Rows:
    """The sequences of a batch, and the positions at which their logits are read.

    Attributes:
        sequences: Token ids of each row.
        places: (row, position) of every logit vector that is read.
        of_place: Number of each place's prompt in the batch.
        wanted: For each prompt and continuation, the (place, token) pairs whose log-probabilities are summed.
    """

    sequences: list[Ids]
    places: list[tuple[int, int]]
    of_place: list[int]
    wanted: list[list[list[tuple[int, int]]]]

    def logits(self, joint: JointModel, pad_id: int) -> Tensor:
        """Every member's logits at the places [members, places, vocabulary]."""
        return joint.logits(*self._padded(joint.model, pad_id))

    def mixed(self, logits: Tensor, weights: Tensor) -> Tensor:
        """Log-probabilities of the mixed logits (5.10) at the places [places, vocabulary], on the CPU.

        Args:
            logits: Logits of the members that are mixed [members, places, vocabulary].
            weights: Weights of those members for each prompt of the batch [b, members].
        """
        of_place = weights[self.of_place].to(logits.device)
        return mix(logits, of_place).log_softmax(-1).cpu()

    def blended(self, model: LayerwiseModel, weights: Tensor, pad_id: int) -> Tensor:
        """Log-probabilities of members mixed inside the layers, at the places [places, vocabulary], on the CPU.

        Args:
            model: The model that mixes its members.
            weights: Weights of its members for each prompt of the batch [b, members].
            pad_id: Token id of padding.
        """
        of_row = [0] * len(self.sequences)
        for (row, _), prompt in zip(self.places, self.of_place, strict=True):
            of_row[row] = prompt
        ids, flat = self._padded(model.model, pad_id)
        logits = model.logits(ids, flat, weights[of_row].to(ids.device))
        return logits.log_softmax(-1).cpu()

    def _padded(self, model: PreTrainedModel, pad_id: int) -> tuple[Tensor, Tensor]:
        """Token ids [rows, t], and the places as positions in the flattened ids, on the model's device."""
        device = next(model.parameters()).device
        ids, _ = pad(self.sequences, pad_id)
        flat = torch.tensor([row * ids.shape[1] + position for row, position in self.places])
        return ids.to(device), flat.to(device)

    def sums(self, number: int, log_probs: Tensor) -> list[float]:
        """log P of each continuation of prompt `number` of the batch."""
        return [
            sum(log_probs[place, token].item() for place, token in pairs)
            for pairs in self.wanted[number]
        ]


def batches(asked: Sequence[Asked], batch_size: int) -> Iterator[tuple[list[int], Rows]]:
    """Batches of prompts of similar length: their numbers, and their rows.

    If all continuations of a prompt are single tokens, one row with the prompt is enough for all; otherwise each
    continuation has its own row.
    """
    for one_token in (True, False):
        group = [i for i, (_, c) in enumerate(asked) if all(len(x) == 1 for x in c) is one_token]
        lengths = [len(asked[i][0]) + max(map(len, asked[i][1])) for i in group]
        for batch in by_length(lengths, batch_size):
            indices = [group[i] for i in batch]
            make = _short_rows if one_token else _long_rows
            yield indices, make([asked[i] for i in indices])


def log_likelihoods(
    joint: JointModel, asked: Sequence[Asked], weights: Tensor, *, batch_size: int, pad_id: int
) -> list[list[float]]:
    """log P(continuation | prompt) under the mixed logits; arguments as for `likelihoods`."""
    found = likelihoods(joint, asked, weights, batch_size=batch_size, pad_id=pad_id)
    return [[one.log_p for one in row] for row in found]


def likelihoods(
    joint: JointModel,
    asked: Sequence[Asked],
    weights: Tensor,
    *,
    batch_size: int,
    pad_id: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> list[list[Likelihood]]:
    """Likelihoods under the mixed logits (5.10), for each prompt and continuation.

    Args:
        joint: All members.
        asked: n prompts with at least one continuation each.
        weights: Weights of all members for each prompt [n, members].
        batch_size: Prompts (with their continuations) in one pass.
        pad_id: Token id of padding.
        advance: Called with the number of finished prompts.
    """
    found: list[list[Likelihood]] = [[] for _ in asked]
    for indices, rows in batches(asked, batch_size):
        log_probs = rows.mixed(rows.logits(joint, pad_id), weights[indices])
        best = log_probs.argmax(-1).tolist()
        for number, i in enumerate(indices):
            greedy = [all(best[p] == token for p, token in pairs) for pairs in rows.wanted[number]]
            sums = rows.sums(number, log_probs)
            found[i] = [Likelihood(*one) for one in zip(sums, greedy, strict=True)]
        advance(len(indices))
    return found


def _short_rows(asked: Sequence[Asked]) -> Rows:
    rows = Rows([], [], [], [])
    for number, (prompt, continuations) in enumerate(asked):
        rows.sequences.append(prompt)
        rows.places.append((number, len(prompt) - 1))
        rows.of_place.append(number)
        rows.wanted.append([[(number, c[0])] for c in continuations])
    return rows


def _long_rows(asked: Sequence[Asked]) -> Rows:
    rows = Rows([], [], [], [])
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
