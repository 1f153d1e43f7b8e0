"""The tiny backbone's training text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from elrea.data.exam.boards import BOARDS, LETTERS
from elrea.data.exam.items import Item, make_item, split_of
from elrea.models.tiny import corpus
from elrea.models.tiny.train import FIRST_CYCLE, batches, learning_rate, train_tokenizer


def text(seed: int, questions: int = 6) -> str:
    return "".join(piece for piece, _ in corpus.paper(Random(seed), questions))


def test_a_paper_depends_on_its_seed() -> None:
    assert text(3) == text(3) != text(4)


def test_exercises_answer_with_the_options() -> None:
    asked = 0
    for seed in range(60):
        for found in re.finditer(r"\nFind ([A-D]): (\S+)", text(seed)):
            letter, answer = found.groups()
            asked += 1
            assert re.search(rf"{letter}\W+{re.escape(answer)}", text(seed))
    assert asked > 50


def test_it_contains_no_question_of_dev_or_test(monkeypatch: pytest.MonkeyPatch) -> None:
    used, drawn = [], []

    def draw(subject: str, rng: Random) -> Item:
        drawn.append(make_item(subject, rng))
        return drawn[-1]

    def word(item: Item, *rest: Any) -> Iterator[corpus.Piece]:
        used.append(item)
        yield "", True

    monkeypatch.setattr(corpus, "make_item", draw)
    monkeypatch.setattr(corpus, "_question", word)
    for seed in range(200):
        list(corpus.paper(Random(seed), 6))
    assert len(used) == 1200
    assert {split_of(item) for item in used} == {"train"}
    assert {split_of(item) for item in drawn} == {"train", "dev", "test"}


def test_forms_vary_and_none_is_a_boards() -> None:
    forms = {corpus.random_form(Random(seed)) for seed in range(2_000)}
    assert len(forms) > 400
    assert not {form.head for form in forms} & {board.head for board in BOARDS.values()}


def test_batches_depend_on_seed_and_step() -> None:
    tokenizer = train_tokenizer(0, 400)
    first = list(batches(tokenizer, 0, 0, 3))
    again = list(batches(tokenizer, 0, 2, 3))
    assert first[2][0].equal(again[0][0])
    assert not first[1][0].equal(first[2][0])
    ids, weights = first[0]
    assert ids.shape == weights.shape == (4, 257)
    answers = tokenizer.batch_decode(ids[weights > 1].unsqueeze(1))
    assert sum(answer.strip() in LETTERS for answer in answers) > 10


def test_every_string_can_be_encoded() -> None:
    tokenizer = train_tokenizer(0, 400)
    for string in ("Ünïcödé 👋", "\x00\t\n", "日本語"):
        assert tokenizer.decode(tokenizer.encode(string, add_special_tokens=False)) == string


def test_the_rate_rises_and_falls_in_two_cycles() -> None:
    rates = [learning_rate(step, 10_000, 1.0) for step in range(10_000)]
    assert rates[0] == 0.01 and rates[99] == rates[4199] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[4201:FIRST_CYCLE]))
    assert rates[FIRST_CYCLE - 1] == pytest.approx(0.02, rel=1e-2)
    second = rates[FIRST_CYCLE:]
    assert max(second) == pytest.approx(0.8 * (1 - 99 / 4000))
    assert all(later < earlier for earlier, later in pairwise(second[99:]))
    assert second[-1] == pytest.approx(0.8 / 4000)
