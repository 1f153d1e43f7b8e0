"""Scores of choices and free responses, compared with direct calls of the model."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from elrea.data.prompts import Encoded
from elrea.evaluation.scoring import Mixture, Outcome, Question, combine_picked, questions_of, score
from elrea.method.ensemble import likelihood
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.method.ensemble.strategies.oracle import Oracle
from elrea.method.routing.weights import Router, Routing
from elrea.models.adapter_shape import Lora
from tests.models.builders import BUILDERS, PAD, random_adapter

MEMBERS = [None, random_adapter("llama", Lora(r=2), 1), random_adapter("llama", Lora(r=3), 2)]
BACKBONE: PreTrainedModel = BUILDERS["llama"]()
JOINT = JointModel(BACKBONE, MEMBERS)


def random_questions(
    lengths: list[list[int]], answered: bool = True, seed: int = 0
) -> list[Question]:
    """Random questions with continuations of these lengths."""
    draw = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, 40) for _ in range(length))

    made = []
    for each in lengths:
        continuations: list[tuple[int, ...]] = []
        while len(continuations) < len(each):
            new = ids(each[len(continuations)])
            continuations += [new] if new not in continuations else []
        answer = draw.randrange(len(each)) if answered else None
        made.append(Question(ids(draw.randint(1, 9)), tuple(continuations), answer))
    return made


def mixtures(n: int) -> dict[str, Mixture]:
    """The backbone alone, and all three members with different weights for each prompt."""
    weights = torch.rand(n, 3, generator=torch.Generator().manual_seed(1))
    return {
        "backbone": Mixture([0], torch.ones(n, 1)),
        "mixed": Mixture([2, 0, 1], weights),
    }


def log_likelihood(question: Question, which: int, weights: dict[int, float]) -> float:
    """log p of one continuation under Σ weight·logits, member by member, token by token."""
    continuation, total = question.continuations[which], 0.0
    for k, token in enumerate(continuation):
        ids = torch.tensor([question.prompt + continuation[:k]])
        place = torch.tensor([ids.shape[1] - 1])
        logits = sum(
            weight * JointModel(BACKBONE, [MEMBERS[m]]).logits(ids, place)[0, 0].double()
            for m, weight in weights.items()
        )
        total += float(torch.log_softmax(torch.as_tensor(logits), 0)[token])
    return total


@pytest.mark.parametrize("lengths", [[[1, 1, 1, 1]] * 6, [[3, 1, 2], [2, 2], [1, 4, 1, 1]] * 2])
def test_choices_are_scored_by_log_likelihood(lengths: list[list[int]]) -> None:
    questions = random_questions(lengths)
    given = mixtures(len(questions))
    done: list[int] = []
    got = score(JOINT, questions, given, batch_size=4, pad_id=PAD, advance=done.append)
    assert sum(done) == len(questions)
    for i, question in enumerate(questions):
        row = given["mixed"].weights[i].tolist()
        for name, weights in {
            "backbone": {0: 1.0},
            "mixed": dict(zip([2, 0, 1], row, strict=True)),
        }.items():
            sums = [log_likelihood(question, c, weights) for c in range(len(lengths[i]))]
            answer = question.answer
            assert answer is not None
            assert got[name].choice[i] == max(range(len(sums)), key=sums.__getitem__)
            assert got[name].correct[i] == (got[name].choice[i] == answer)
            per_token = -sums[answer] / len(question.continuations[answer])
            assert got[name].loss[i] == pytest.approx(per_token, abs=1e-4)
    assert got["backbone"].loss != got["mixed"].loss


def test_a_batch_reads_no_more_logits_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = random_questions([[3, 1, 2], [2, 2], [1, 4, 1, 1], [9, 9], [1, 1]] * 3)
    given = mixtures(len(questions))
    whole = score(JOINT, questions, given, batch_size=15, pad_id=PAD)
    read: list[torch.Size] = []
    mixed = likelihood.Batch.mixed

    def counted(
        rows: likelihood.Batch, logits: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        read.append(logits.shape)
        return mixed(rows, logits, weights)

    monkeypatch.setattr(likelihood.Batch, "mixed", counted)
    places = 8
    vocabulary = BACKBONE.config.vocab_size
    monkeypatch.setattr(likelihood, "LOGITS", places * len(MEMBERS) * vocabulary)
    got = score(JOINT, questions, given, batch_size=15, pad_id=PAD)
    for name, outcome in got.items():
        assert outcome.choice == whole[name].choice
        assert outcome.loss == pytest.approx(whole[name].loss, abs=1e-5)
    alone = 18  # two continuations of 9 tokens
    assert {shape[1] for shape in read if shape[1] > places} <= {alone, alone - 1}
    assert len(read) > 2 * len(questions) / 3


def test_choices_of_uneven_length_are_also_compared_by_character_and_byte() -> None:
    questions = random_questions([[3, 1, 2], [2, 2], [1, 4, 1, 1], [5, 2, 1], [2, 1]] * 4, seed=2)
    draw = random.Random(1)
    asked = []
    for question in questions:
        lengths = draw.sample(range(1, 40), len(question.continuations))
        texts = tuple(draw.choice("aé日") * length for length in lengths)
        asked.append(replace(question, texts=texts))
    asked.append(Question((1, 2), ((3, 4),), None))
    given = mixtures(len(asked))
    got = score(JOINT, asked, given, batch_size=4, pad_id=PAD)["backbone"]
    plain = score(JOINT, questions, mixtures(len(questions)), batch_size=4, pad_id=PAD)["backbone"]
    assert got.choice == [*plain.choice, None] and plain.choice_norm == plain.choice_bytes == []
    for i, question in enumerate(asked[:-1]):
        sums = [log_likelihood(question, c, {0: 1.0}) for c in range(len(question.texts))]
        for chosen, lengths in (
            (got.choice_norm[i], [len(text) for text in question.texts]),
            (got.choice_bytes[i], [len(text.encode()) for text in question.texts]),
        ):
            assert chosen == max(range(len(sums)), key=lambda c: sums[c] / lengths[c])
    assert got.choice_norm[-1] is None and got.choice_bytes[-1] is None
    assert got.choice_norm != got.choice and got.choice_bytes != got.choice_norm


def test_a_vote_and_letters_have_no_choice_by_length() -> None:
    questions = random_questions([[1, 1], [1, 1]])
    letters = [replace(question, texts=("A", "B")) for question in questions]
    given = {"m": Mixture([0], torch.ones(2, 1))}
    assert score(JOINT, letters, given, batch_size=2, pad_id=PAD)["m"].choice_norm == []
    texts = [replace(question, texts=("one", "two more")) for question in questions]
    voted = {"v": Mixture([0], torch.ones(2, 1), vote=lambda _logs, _i: 0)}
    assert score(JOINT, texts, voted, batch_size=2, pad_id=PAD)["v"].choice_norm == []


def test_the_single_token_path_equals_the_general_one(monkeypatch) -> None:
    questions = random_questions([[1, 1, 1, 1]] * 7)
    given = mixtures(7)
    short = score(JOINT, questions, given, batch_size=3, pad_id=PAD)
    for general in (likelihood.one_row_each, likelihood.read_once):
        monkeypatch.setattr(likelihood, "_short_rows", general)
        long = score(JOINT, questions, given, batch_size=3, pad_id=PAD)
        for name in given:
            assert short[name].choice == long[name].choice
            assert short[name].loss == pytest.approx(long[name].loss, abs=1e-5)


def test_a_free_response_of_one_token_is_not_a_choice() -> None:
    got = score(JOINT, [Question((1, 2), ((3,),), None)], mixtures(1), batch_size=1, pad_id=PAD)
    assert got["backbone"].choice == [None]


def test_exact_match_agrees_with_generate() -> None:
    questions, wanted = [], []
    for question in random_questions([[4]] * 8, answered=False):
        ids = torch.tensor([question.prompt])
        written = BACKBONE.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False,
            eos_token_id=None, pad_token_id=PAD,
        )  # fmt: skip
        greedy = tuple(written[0, len(question.prompt) :].tolist())
        assert len(greedy) == 4
        for place in (None, 0, 2, 3):  # unchanged, and with one token changed
            other = list(greedy)
            if place is not None:
                other[place] = (other[place] + 1) % 40
            questions.append(Question(question.prompt, (tuple(other),), None))
            wanted.append(place is None)
    got = score(JOINT, questions, mixtures(len(questions)), batch_size=5, pad_id=PAD)["backbone"]
    assert got.correct == wanted
    assert got.choice == [None] * len(questions)
    for i in (0, 1):
        assert got.loss[i] == pytest.approx(
            -log_likelihood(questions[i], 0, {0: 1.0}) / 4, abs=1e-4
        )


def test_prompts_that_are_too_long_count_as_wrong() -> None:
    questions = random_questions([[1, 1], [2, 1], [1, 1], [3]])
    holes = [Question((), ((5,), (6,)), 0), Question((), ((5, 6),), None)]
    mixed = [holes[0], *questions[:2], holes[1], *questions[2:]]
    given = {"mixed": mixtures(6)["mixed"]}
    done: list[int] = []
    got = score(JOINT, mixed, given, batch_size=2, pad_id=PAD, advance=done.append)["mixed"]
    assert sum(done) == 6
    for hole in (0, 3):
        assert (got.choice[hole], got.correct[hole], got.loss[hole]) == (None, False, None)
    fitting = [1, 2, 4, 5]
    weights = given["mixed"].weights[fitting]
    alone = score(JOINT, questions, {"m": Mixture([2, 0, 1], weights)}, batch_size=2, pad_id=PAD)
    assert [got.choice[i] for i in fitting] == alone["m"].choice
    assert [got.loss[i] for i in fitting] == pytest.approx(alone["m"].loss, abs=1e-5)
    nothing = score(JOINT, holes, {"m": Mixture([0], torch.ones(2, 1))}, batch_size=2, pad_id=PAD)
    assert nothing["m"].correct == [False, False]


def test_a_response_without_tokens_counts_as_wrong() -> None:
    questions = [Question((3, 4), ((),), None), *random_questions([[2]], answered=False)]
    outcome = score(JOINT, questions, mixtures(2), batch_size=2, pad_id=PAD)["mixed"]
    assert (outcome.correct[0], outcome.loss[0]) == (False, None)
    assert outcome.loss[1] is not None


def test_batch_size_and_order_change_nothing() -> None:
    questions = random_questions([[1, 1, 1], [2, 3], [1, 1], [4, 1, 1], [2, 2]]) + random_questions(
        [[3], [1]], False, 7
    )
    given = mixtures(7)
    one = score(JOINT, questions, given, batch_size=1, pad_id=PAD)
    for size in (2, 3, 100):
        got = score(JOINT, questions, given, batch_size=size, pad_id=PAD + 1)
        for name in given:
            assert got[name].choice == one[name].choice
            assert got[name].correct == one[name].correct
            assert got[name].loss == pytest.approx(one[name].loss, abs=1e-5)
    turned = {name: Mixture(m.columns, m.weights.flip(0)) for name, m in given.items()}
    back = score(JOINT, questions[::-1], turned, batch_size=3, pad_id=PAD)
    assert back["mixed"].loss[::-1] == pytest.approx(one["mixed"].loss, abs=1e-5)


def test_questions_of() -> None:
    encoded = [Encoded("a", (1, 2), (3, 9)), Encoded("b", (4,), (5, 6, 9)), Encoded("c", (), (7,))]
    got = questions_of(encoded, [[(3,), (8,)], [], [(7,), (8,)]], [0, None, 0])
    assert got == [
        Question((1, 2), ((3,), (8,)), 0),
        Question((4,), ((5, 6, 9),), None),
        Question((), ((7,), (8,)), 0),
    ]
    with pytest.raises(ValueError, match="zip"):
        questions_of(encoded, [[]], [None])


def test_a_layerwise_mixture_is_applied_row_by_row() -> None:
    """With one member per prompt, mixing inside the layers equals mixing logits, whatever a prompt's rows."""
    questions = random_questions([[1, 1, 1], [3, 1, 2], [2, 2], [1, 4, 1, 1], [1, 1], [2, 1]])
    weights = torch.eye(3)[[2, 1, 0, 1, 2, 1]]
    inside = LayerwiseModel(BACKBONE, MEMBERS, MoeRouting().delta)
    given = {
        "outputs": Mixture([0, 1, 2], weights),
        "inside": Mixture([], weights, model=inside),
    }
    got = score(JOINT, questions, given, batch_size=4, pad_id=PAD)
    assert got["inside"].choice == got["outputs"].choice
    assert got["inside"].loss == pytest.approx(got["outputs"].loss, abs=1e-4)


def test_a_vote_replaces_the_highest_probability() -> None:
    asked: list[int] = []

    def last(log_probs, number: int) -> int:
        asked.append(number)
        return len(log_probs) - 1

    questions = random_questions([[1, 1, 1], [2, 2]])
    given = {"voted": Mixture([0], torch.ones(2, 1), vote=last)}
    got = score(JOINT, questions, given, batch_size=4, pad_id=PAD)["voted"]
    assert got.choice == [2, 1] and sorted(asked) == [0, 1]
    free = score(JOINT, random_questions([[2]], answered=False), given, batch_size=4, pad_id=PAD)[
        "voted"
    ]
    assert free.choice == [None] and len(asked) == 2, "voted on an example without choices"


def test_the_oracle_has_the_outcomes_of_the_members_it_picks() -> None:
    routing = Routing(torch.zeros(3, 2), Router(), ["a", "b", "b"], [])
    found = {
        "oracle/expert-0": Outcome([0, 1, 2], [True, False, False], [0.1, 0.2, 0.3]),
        "oracle/expert-1": Outcome([3, 4, 5], [False, True, False], [1.1, 1.2, 1.3]),
    }
    got = combine_picked(found, {"oracle": Oracle()}, routing)["oracle"]
    assert got == Outcome([0, 4, 5], [True, True, False], [0.1, 1.2, 1.3])
    norms = {
        name: replace(outcome, choice_norm=[i, 1, 2], choice_bytes=[3, 4, i])
        for i, (name, outcome) in enumerate(found.items())
    }
    got = combine_picked(norms, {"oracle": Oracle()}, routing)["oracle"]
    assert (got.choice_norm, got.choice_bytes, got.text) == ([0, 1, 2], [3, 4, 1], [])


def test_mean_logits_change_the_loss_but_not_greedy_decoding() -> None:
    """Compared with a division by hand, token by token; nothing changes for a single member."""
    questions = random_questions([[3], [2], [1], [4]])
    given = mixtures(len(questions))
    means = {name: mixture.mean() for name, mixture in given.items()}
    summed = score(JOINT, questions, given, batch_size=2, pad_id=PAD)
    got = score(JOINT, questions, means, batch_size=2, pad_id=PAD)
    assert got["backbone"] == summed["backbone"]
    assert got["mixed"].correct == summed["mixed"].correct
    for i, question in enumerate(questions):
        row = given["mixed"].weights[i] / given["mixed"].weights[i].sum()
        weights = dict(zip([2, 0, 1], row.tolist(), strict=True))
        length = len(question.continuations[0])
        loss = got["mixed"].loss[i]
        assert loss == pytest.approx(-log_likelihood(question, 0, weights) / length, rel=1e-4)
        assert loss != pytest.approx(summed["mixed"].loss[i], rel=1e-3)
