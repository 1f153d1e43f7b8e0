"""Scores strategies on test prompts in one pass: choices by log-likelihood, free responses by loss and exact match.

All strategies share one forward pass per member; the members' logits of a batch are then mixed once per strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elrea.data.prompts import Encoded, Ids
from elrea.method.ensemble.joint import Adapter, JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.likelihood import Batch, batches
from elrea.method.ensemble.strategy import Layerwise, Picking, Strategy, Voting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from elrea.method.routing.weights import Routing


@dataclass(frozen=True)
class Mixture:
    """A strategy applied to a test set.

    Attributes:
        columns: Indices of the joint model's members that it mixes; empty if it has its own model.
        weights: The weights of these members for each prompt [n, members of the strategy].
        vote: How it chooses, if not by the highest probability.
        model: The backbone with the members mixed inside its layers, for a layerwise strategy.
    """

    columns: Sequence[int]
    weights: Tensor
    vote: Callable[[Sequence[float], int], int] | None = None
    model: LayerwiseModel | None = None

    def mean(self) -> Mixture:
        """The same mixture with its weights divided by their sum; a layerwise mixture is unchanged."""
        if self.model:
            return self
        return replace(self, weights=self.weights / self.weights.sum(1, keepdim=True))

    def log_probs(self, logits: Tensor, rows: Batch, indices: Sequence[int], pad_id: int) -> Tensor:
        """Log-probabilities of the mixture at the scored positions of a batch [positions, vocabulary].

        Args:
            logits: Of every member of the joint model [members, positions, vocabulary].
            rows: The batch.
            indices: Of its prompts.
            pad_id: The id that pads short prompts.
        """
        weights = self.weights[list(indices)]
        if self.model is None:
            columns = list(self.columns)
            # A copy of all members' logits would take as much memory again.
            some = logits if columns == list(range(len(logits))) else logits[columns]
            return rows.mixed(some, weights)
        return rows.blended(self.model, weights, pad_id)


def mixtures(
    strategies: Mapping[str, Strategy],
    routing: Routing,
    backbone: PreTrainedModel,
    adapter: Callable[[str], Adapter | None],
    gates: Callable[[str], dict[str, Tensor]] = lambda _name: {},
) -> tuple[JointModel, dict[str, Mixture]]:
    """Builds one joint model of all members whose logits are mixed, and a mixture per strategy.

    Args:
        strategies: By name. A strategy that picks one member per prompt gets a mixture per member, named
            `name/member`; `combine_picked` puts them together.
        routing: Of the test prompts.
        backbone: The plain model, not wrapped by PEFT.
        adapter: Returns a member by its name; None for the backbone alone.
        gates: Returns the gates of a strategy by its name; empty if it has none.
    """
    mixed: dict[str, Mixture] = {}
    names: list[str] = []
    for name, strategy in strategies.items():
        members, weights = strategy.members(routing), strategy.weights(routing)
        if isinstance(strategy, Layerwise):
            tensors = [adapter(member) for member in members]
            model = LayerwiseModel.of(backbone, tensors, strategy, gates(name))
            mixed[name] = Mixture([], weights, model=model)
            continue
        names += [member for member in members if member not in names]
        columns = [names.index(member) for member in members]
        if isinstance(strategy, Picking):
            for member, column in zip(members, columns, strict=True):
                mixed[f"{name}/{member}"] = Mixture([column], torch.ones(len(weights), 1))
        else:
            vote = strategy.vote if isinstance(strategy, Voting) else None
            mixed[name] = Mixture(columns, weights, vote)
    return JointModel(backbone, [adapter(name) for name in names]), mixed


def combine_picked(
    outcomes: Mapping[str, Outcome], strategies: Mapping[str, Strategy], routing: Routing
) -> dict[str, Outcome]:
    """An outcome per strategy; that of a strategy that picks a member per prompt is put together from its members'."""
    combined = {}
    for name, strategy in strategies.items():
        if not isinstance(strategy, Picking):
            combined[name] = outcomes[name]
            continue
        of = [outcomes[f"{name}/{member}"] for member in strategy.members(routing)]
        picked = strategy.pick(torch.tensor([o.correct for o in of]), routing.sources).tolist()
        combined[name] = Outcome(
            [of[m].choice[i] for i, m in enumerate(picked)],
            [of[m].correct[i] for i, m in enumerate(picked)],
            [of[m].loss[i] for i, m in enumerate(picked)],
            **{
                kind: [getattr(of[m], kind)[i] for i, m in enumerate(picked)] for kind in of[0].more
            },
        )
    return combined


@dataclass
class Outcome:
    """The results of one strategy on the test set; every list has one entry per example.

    Attributes:
        choice: Index of the choice with the highest log-likelihood; None for a free response or a prompt too long.
        correct: Whether that choice is right, or greedy decoding gives the response exactly, or the judge says so.
        loss: Nats per token of the right response under the mixed logits; None if not computed.
        text: The generated text that was judged; None if there is none. The list is empty if no texts were judged.
        answer: The answer read from the text; None if there is none. The list is empty if no texts were judged.
        choice_norm: Index of the choice with the highest log-likelihood per character of its text, as in lm-eval's
            acc_norm; None for a free response or a prompt too long. The list is empty if the choices of every question
            have the same length (letters), and for a vote.
        choice_bytes: The same per byte of UTF-8, as in lm-eval's acc_bytes.
        why: Why the text counts as it does; None if there was none to judge. The list is empty if no texts were judged.
        similar: Of a text for a free response, its similarity to the response (`elrea.evaluation.similarity`); None
            with choices, or if there is no text. The list is empty if no texts were judged.
    """

    choice: list[int | None] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)
    text: list[str | None] = field(default_factory=list)
    answer: list[str | None] = field(default_factory=list)
    why: list[str | None] = field(default_factory=list)
    similar: list[dict[str, float] | None] = field(default_factory=list)
    choice_norm: list[int | None] = field(default_factory=list)
    choice_bytes: list[int | None] = field(default_factory=list)

    @classmethod
    def blank(cls, n: int, normalised: bool = False) -> Outcome:
        """The outcome of n examples before scoring: all wrong. `normalised`: with choices per character and byte."""
        outcome = cls([None] * n, [False] * n, [None] * n)
        if normalised:
            outcome.choice_norm, outcome.choice_bytes = [None] * n, [None] * n
        return outcome

    @property
    def more(self) -> list[str]:
        """The names of the lists that not every outcome has."""
        normalised = ["choice_norm", "choice_bytes"] if self.choice_norm else []
        return [*self.written, *normalised]

    @property
    def written(self) -> list[str]:
        """The names of the lists about texts; none if no texts were judged."""
        return [name for name in ("text", "answer", "why", "similar") if getattr(self, name)]

    @property
    def unparsed(self) -> list[int]:
        """Indices of the examples whose text has no answer."""
        return [
            i
            for i, (text, answer) in enumerate(zip(self.text, self.answer, strict=True))
            if text is not None and answer is None
        ]


@dataclass(frozen=True)
class Question:
    """A prompt and its possible continuations.

    Attributes:
        prompt: Token ids; empty if the prompt was too long, which counts as wrong.
        continuations: Token ids of the choices, or of the one free response. A response without tokens (an empty one,
            with a tokenizer without EOS) cannot be scored and counts as wrong.
        answer: Index of the right continuation; None for a free response.
        texts: The choices as texts; empty for a free response.
    """

    prompt: Ids
    continuations: tuple[Ids, ...]
    answer: int | None
    texts: tuple[str, ...] = ()

    @property
    def scorable(self) -> bool:
        return bool(self.prompt) and all(self.continuations)

    @property
    def uneven(self) -> bool:
        """Whether the choices' texts have different lengths, so that their likelihoods are also compared by length."""
        return len({len(text.encode()) for text in self.texts}) > 1


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
        mixtures: By name.
        batch_size: Most prompts (with their choices) per forward pass.
        pad_id: The id that pads short prompts.
        advance: Called with the number of questions that were scored since the last call.

    Returns:
        An outcome per mixture, in the order of the questions.
    """
    n = len(questions)
    uneven = any(question.uneven for question in questions)
    outcomes = {name: Outcome.blank(n, uneven and not m.vote) for name, m in mixtures.items()}
    fitting = [i for i, q in enumerate(questions) if q.scorable]
    advance(n - len(fitting))
    asked = [(questions[i].prompt, questions[i].continuations) for i in fitting]
    for batch, rows in batches(asked, batch_size, joint.model, max(1, joint.count)):
        indices = [fitting[i] for i in batch]
        logits = torch.empty(0)  # where every strategy mixes inside the layers
        if joint.count:
            logits = rows.logits(joint, pad_id, _used(mixtures, indices, joint.count))
        for name, mixture in mixtures.items():
            log_probs = mixture.log_probs(logits, rows, indices, pad_id)
            _record(outcomes[name], questions, indices, rows, log_probs, mixture.vote)
        advance(len(indices))
    return outcomes


def _used(mixtures: Mapping[str, Mixture], indices: Sequence[int], members: int) -> Tensor:
    """Which members have a weight in any mixture, for some prompts [b, members]; the others need not be run."""
    used = torch.zeros(len(indices), members, dtype=torch.bool)
    for mixture in mixtures.values():
        if mixture.model is None:
            used[:, list(mixture.columns)] |= mixture.weights[list(indices)] != 0
    return used


def _record(
    outcome: Outcome,
    questions: Sequence[Question],
    indices: Sequence[int],
    rows: Batch,
    log_probs: Tensor,
    vote: Callable[[Sequence[float], int], int] | None,
) -> None:
    best = log_probs.argmax(-1).tolist()
    for number, i in enumerate(indices):
        sums, answer = rows.sums(number, log_probs), questions[i].answer
        right = rows.wanted[number][answer or 0]
        outcome.loss[i] = -sums[answer or 0] / len(right)
        if answer is None:
            # Greedy decoding gives the response if and only if each token is the likeliest after those before it.
            outcome.correct[i] = all(best[position] == token for position, token in right)
        else:
            outcome.choice[i] = vote(sums, i) if vote else _highest(sums)
            outcome.correct[i] = outcome.choice[i] == answer
            if outcome.choice_norm:
                texts = questions[i].texts
                outcome.choice_norm[i] = _highest(sums, map(len, texts))
                outcome.choice_bytes[i] = _highest(sums, (len(text.encode()) for text in texts))


def _highest(sums: Sequence[float], lengths: Iterable[int] | None = None) -> int:
    """Index of the highest log-likelihood, or of the highest one per unit of length; the first of equal ones."""
    shares = [s / n for s, n in zip(sums, lengths, strict=True)] if lengths else sums
    return max(range(len(shares)), key=shares.__getitem__)


def questions_of(
    encoded: Sequence[Encoded],
    choices: Sequence[Sequence[Ids]],
    answers: Sequence[int | None],
    texts: Sequence[tuple[str, ...]] | None = None,
) -> list[Question]:
    """Combines prompts, choices and answers.

    Args:
        encoded: Prompts with their responses, which are used for free responses.
        choices: Token ids of each prompt's choices; empty for a free response.
        answers: Index of the right choice; None for a free response.
        texts: Each prompt's choices as texts, for likelihoods by length; None for none.
    """
    texts = [()] * len(encoded) if texts is None else texts
    return [
        Question(e.prompt, tuple(c) if a is not None else (e.response,), a, t)
        for e, c, a, t in zip(encoded, choices, answers, texts, strict=True)
    ]
