"""Scores strategies by one pass over test prompts: choices by log-likelihood, free responses by loss and exact match.

All strategies share one forward pass per member: the members' logits of a batch are mixed once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from elrea.data.prompts import Encoded, Ids
from elrea.method.ensemble.joint import Adapter, JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.likelihood import Rows, batches
from elrea.method.ensemble.strategy import Layerwise, Picking, Strategy, Voting
from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Mixture:
    """A strategy at work on a test set.

    Attributes:
        columns: Which of the joint model's members it mixes; none where it has a model of its own.
        weights: Of those members for each prompt [n, members of the strategy].
        vote: How it chooses, if not by the highest probability.
        model: The backbone with the members mixed inside its layers.
    """

    columns: Sequence[int]
    weights: Tensor
    vote: Callable[[Sequence[float], int], int] | None = None
    model: LayerwiseModel | None = None

    def mean(self) -> Mixture:
        """The same mix divided by the sum of its weights; one that works inside the layers stays as it is."""
        if self.model:
            return self
        return replace(self, weights=self.weights / self.weights.sum(1, keepdim=True))

    def log_probs(self, logits: Tensor, rows: Rows, indices: Sequence[int], pad_id: int) -> Tensor:
        """Log-probabilities at the places of a batch [places, vocabulary].

        Args:
            logits: Of every member of the joint model [members, places, vocabulary].
            rows: The batch.
            indices: Its prompts.
            pad_id: The id that fills up short prompts.
        """
        weights = self.weights[list(indices)]
        if self.model is None:
            return rows.mixed(logits[list(self.columns)], weights)
        return rows.blended(self.model, weights, pad_id)


def mixtures(
    strategies: Mapping[str, Strategy],
    routing: Routing,
    backbone: PreTrainedModel,
    adapter: Callable[[str], Adapter | None],
    gates: Callable[[str], dict[str, Tensor]] = lambda _name: {},
) -> tuple[JointModel, dict[str, Mixture]]:
    """One joint model of the members whose logits any strategy mixes, and what each strategy does.

    Args:
        strategies: By name. One that picks a member is stood for by its members, as `name/member`: see `settle`.
        routing: Of the test prompts.
        backbone: Without PEFT around it.
        adapter: A member by its name; None for the backbone alone.
        gates: Of a strategy by its name, if it has any.
    """
    found: dict[str, Mixture] = {}
    names: list[str] = []
    for name, strategy in strategies.items():
        members, weights = strategy.members(routing), strategy.weights(routing)
        if isinstance(strategy, Layerwise):
            tensors = [adapter(member) for member in members]
            model = LayerwiseModel(backbone, tensors, strategy.delta, gates(name))
            found[name] = Mixture([], weights, model=model)
            continue
        names += [member for member in members if member not in names]
        columns = [names.index(member) for member in members]
        if isinstance(strategy, Picking):
            for member, column in zip(members, columns, strict=True):
                found[f"{name}/{member}"] = Mixture([column], torch.ones(len(weights), 1))
        else:
            vote = strategy.vote if isinstance(strategy, Voting) else None
            found[name] = Mixture(columns, weights, vote)
    return JointModel(backbone, [adapter(name) for name in names]), found


def settle(
    outcomes: Mapping[str, Outcome], strategies: Mapping[str, Strategy], routing: Routing
) -> dict[str, Outcome]:
    """An outcome per strategy, those that pick a member put together of their members'."""
    found = {}
    for name, strategy in strategies.items():
        if not isinstance(strategy, Picking):
            found[name] = outcomes[name]
            continue
        of = [outcomes[f"{name}/{member}"] for member in strategy.members(routing)]
        picked = strategy.pick(torch.tensor([o.correct for o in of]), routing.sources).tolist()
        found[name] = Outcome(
            [of[m].choice[i] for i, m in enumerate(picked)],
            [of[m].correct[i] for i, m in enumerate(picked)],
            [of[m].loss[i] for i, m in enumerate(picked)],
            *([getattr(of[m], kind)[i] for i, m in enumerate(picked)] for kind in of[0].written),
        )
    return found


@dataclass
class Outcome:
    """What one strategy made of the test set, example by example.

    Attributes:
        choice: Index of the choice with the highest log-likelihood; None for a free response or a prompt too long.
        correct: The right choice, or the response word for word by greedy decoding.
        loss: Nats per token of the right response under the mixed logits; None where there is none.
        text: What was written, where that was judged; None where it was not. Empty where nothing was.
        answer: What was read out of the text; None where nothing could be. Empty where nothing was written.
    """

    choice: list[int | None] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)
    text: list[str | None] = field(default_factory=list)
    answer: list[str | None] = field(default_factory=list)

    @classmethod
    def blank(cls, n: int) -> Outcome:
        """Of n examples of which nothing is known yet: all wrong."""
        return cls([None] * n, [False] * n, [None] * n)

    @property
    def written(self) -> list[str]:
        """The lists that there are where texts were written."""
        return ["text", "answer"] if self.text else []

    @property
    def unparsed(self) -> list[int]:
        """Examples whose text has no answer."""
        return [
            i
            for i, (text, answer) in enumerate(zip(self.text, self.answer, strict=True))
            if text is not None and answer is None
        ]


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
    outcomes = {name: Outcome.blank(n) for name in mixtures}
    fitting = [i for i, q in enumerate(questions) if q.scorable]
    advance(n - len(fitting))
    asked = [(questions[i].prompt, questions[i].continuations) for i in fitting]
    for batch, rows in batches(asked, batch_size):
        indices = [fitting[i] for i in batch]
        logits = rows.logits(joint, pad_id)
        for name, mixture in mixtures.items():
            log_probs = mixture.log_probs(logits, rows, indices, pad_id)
            _judge(outcomes[name], questions, indices, rows, log_probs, mixture.vote)
        advance(len(indices))
    return outcomes


def _judge(
    outcome: Outcome,
    questions: Sequence[Question],
    indices: Sequence[int],
    rows: Rows,
    log_probs: Tensor,
    vote: Callable[[Sequence[float], int], int] | None,
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
            outcome.choice[i] = (
                vote(sums, i) if vote else max(range(len(sums)), key=sums.__getitem__)
            )
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
