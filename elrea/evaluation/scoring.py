"""Scores strategies on test prompts: choices by log-likelihood, free responses by loss and exact match.

All strategies share one forward pass per member: the members' logits of a batch are mixed once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from elrea.data.prompts import Encoded, Ids
from elrea.ensemble.joint import JointModel
from elrea.ensemble.likelihood import Rows, batches
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
    asked = [(questions[i].prompt, questions[i].continuations) for i in fitting]
    for batch, rows in batches(asked, batch_size):
        indices = [fitting[i] for i in batch]
        logits = rows.logits(joint, pad_id)
        for name, mixture in mixtures.items():
            log_probs = rows.mixed(logits[list(mixture.columns)], mixture.weights[indices])
            _judge(outcomes[name], questions, indices, rows, log_probs)
        advance(len(indices))
    return outcomes


def _judge(
    outcome: Outcome,
    questions: Sequence[Question],
    indices: Sequence[int],
    rows: Rows,
    log_probs: Tensor,
) -> None:
    best = log_probs.argmax(-1).tolist()
    for number, i in enumerate(indices):
        sums, answer = rows.sums(number, log_probs), questions[i].answer
        right = rows.wanted[number][answer or 0]
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
