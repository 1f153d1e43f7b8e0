"""Scores strategies on test prompts: choices by log-likelihood, free responses by loss and exact match.

All strategies share one forward pass per member: the members' logits of a batch are mixed once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from elrea.data.batches import by_length, pad
from elrea.data.prompts import Encoded, Ids
from elrea.ensemble.joint import JointModel
from elrea.ensemble.mixing import mix
from elrea.ensemble.strategy import Strategy
from elrea.routing.weights import Routing


@dataclass(frozen=True)
class Mixture:
    """A strategy at work on a test set.

    Attributes:
        columns: Which of the joint model's members it mixes.
        weights: Of those members for each prompt [n, members of the strategy].
    """

    columns: Sequence[int]
    weights: Tensor


def mixtures(
    strategies: Mapping[str, Strategy], routing: Routing
) -> tuple[list[str], dict[str, Mixture]]:
    """Members that any of the strategies mixes, each once, and what each strategy does with them."""
    clusters = routing.cosines.shape[1]
    lists = {name: strategy.members(clusters) for name, strategy in strategies.items()}
    names = list(dict.fromkeys(member for members in lists.values() for member in members))
    found = {
        name: Mixture([names.index(member) for member in lists[name]], strategy.weights(routing))
        for name, strategy in strategies.items()
    }
    return names, found


@dataclass
class Outcome:
    """What one strategy made of the test set, example by example.

    Attributes:
        choice: Index of the choice with the highest log-likelihood; None for a free response or a prompt too long.
        correct: The right choice, or the response word for word by greedy decoding.
        loss: Nats per token of the right response under the mixed logits; None where there is none.
    """

    choice: list[int | None] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """A prompt and what may follow it.

    Attributes:
        prompt: Token ids; empty where it was too long, which scores wrong.
        continuations: The choices' token ids, or the one free response's. A response without tokens (it is empty,
            and the tokenizer has no EOS) cannot be told from any other, and scores wrong.
        answer: Index of the right one; None for a free response.
    """

    prompt: Ids
    continuations: tuple[Ids, ...]
    answer: int | None

    @property
    def scorable(self) -> bool:
        return bool(self.prompt) and all(self.continuations)

    @property
    def short(self) -> bool:
        """Whether one pass over the prompt tells all: each choice is a single token."""
        return self.answer is not None and all(len(c) == 1 for c in self.continuations)


def score(
    joint: JointModel,
    questions: Sequence[Question],
    mixtures: Mapping[str, Mixture],
    *,
    batch_size: int,
    pad_id: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> dict[str, Outcome]:
    """Scores every mixture on every question.

    Args:
        joint: All members.
        questions: n questions.
        mixtures: By strategy name.
        batch_size: Prompts (with their choices) in one joint pass.
        pad_id: The id that fills up short prompts.
        advance: Told how many questions are done.

    Returns:
        An outcome per strategy, in the questions' order.
    """
    n = len(questions)
    outcomes = {name: Outcome([None] * n, [False] * n, [None] * n) for name in mixtures}
    fitting = [i for i, q in enumerate(questions) if q.scorable]
    advance(n - len(fitting))
    for kind in (True, False):
        group = [i for i in fitting if questions[i].short is kind]
        for batch in by_length([_length(questions[i]) for i in group], batch_size):
            indices = [group[i] for i in batch]
            rows = _short_rows(questions, indices) if kind else _long_rows(questions, indices)
            logits = rows.logits(joint, pad_id)
            for name, mixture in mixtures.items():
                weights = mixture.weights[indices][rows.of_place].to(logits.device)
                mixed = mix(logits[list(mixture.columns)], weights)
                _judge(outcomes[name], questions, indices, rows, mixed.log_softmax(-1).cpu())
            advance(len(indices))
    return outcomes


def _length(question: Question) -> int:
    return len(question.prompt) + max(len(c) for c in question.continuations)


@dataclass(frozen=True)
class _Rows:
    """Sequences of a batch and where to read them.

    Attributes:
        sequences: Token ids of each row.
        places: (row, position) of every logit vector that is read.
        of_place: Which of the batch's questions each place belongs to.
        wanted: For each question and continuation: (place, token) pairs whose log-probabilities add up.
    """

    sequences: list[Ids]
    places: list[tuple[int, int]]
    of_place: list[int]
    wanted: list[list[list[tuple[int, int]]]]

    def logits(self, joint: JointModel, pad_id: int) -> Tensor:
        device = next(joint.model.parameters()).device
        ids, _ = pad(self.sequences, pad_id)
        flat = torch.tensor([row * ids.shape[1] + position for row, position in self.places])
        return joint.logits(ids.to(device), flat.to(device))


def _short_rows(questions: Sequence[Question], indices: Sequence[int]) -> _Rows:
    rows = _Rows([], [], [], [])
    for number, i in enumerate(indices):
        question = questions[i]
        rows.sequences.append(question.prompt)
        rows.places.append((number, len(question.prompt) - 1))
        rows.of_place.append(number)
        rows.wanted.append([[(number, c[0])] for c in question.continuations])
    return rows


def _long_rows(questions: Sequence[Question], indices: Sequence[int]) -> _Rows:
    rows = _Rows([], [], [], [])
    for number, i in enumerate(indices):
        question = questions[i]
        rows.wanted.append([])
        for continuation in question.continuations:
            pairs = []
            for k, token in enumerate(continuation):
                pairs.append((len(rows.places), token))
                rows.places.append((len(rows.sequences), len(question.prompt) - 1 + k))
                rows.of_place.append(number)
            rows.sequences.append(question.prompt + continuation[:-1])
            rows.wanted[-1].append(pairs)
    return rows


def _judge(
    outcome: Outcome,
    questions: Sequence[Question],
    indices: Sequence[int],
    rows: _Rows,
    log_probs: Tensor,
) -> None:
    best = log_probs.argmax(-1).tolist()
    for i, wanted in zip(indices, rows.wanted, strict=True):
        sums = [sum(log_probs[place, token].item() for place, token in pairs) for pairs in wanted]
        answer = questions[i].answer
        right = wanted[answer or 0]
        outcome.loss[i] = -sums[answer or 0] / len(right)
        if answer is None:
            # Greedy decoding writes the response just if each of its tokens is the likeliest after those before.
            outcome.correct[i] = all(best[place] == token for place, token in right)
        else:
            outcome.choice[i] = max(range(len(sums)), key=sums.__getitem__)
            outcome.correct[i] = outcome.choice[i] == answer


def questions_of(
    encoded: Sequence[Encoded], choices: Sequence[Sequence[Ids]], answers: Sequence[int | None]
) -> list[Question]:
    """Puts prompts and choices together.

    Args:
        encoded: Prompts; their responses are what free responses are judged by.
        choices: Token ids of each prompt's choices; none for a free response.
        answers: Index of the right choice; None for a free response.
    """
    return [
        Question(e.prompt, tuple(c) if a is not None else (e.response,), a)
        for e, c, a in zip(encoded, choices, answers, strict=True)
    ]
