"""Examples, corpora with their checks and fingerprints, and seeded draws."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from elrea.data.corpus import Corpus
from elrea.data.examples import Example
from elrea.data.sampling import split, stratified, subset, with_shots
from elrea.errors import ConfigError, DataError


def example(number: int, text: str = "", **more: object) -> Example:
    words = {"instruction": text or f"question {number}", "response": "yes", "source": "s"}
    return Example(id=f"id/{number}", **{**words, **more})  # type: ignore[arg-type]


def corpus(train: list[Example], test: list[Example]) -> Corpus:
    return Corpus("mine", tuple(train), (), tuple(test))


def test_answer_is_the_index_of_the_response():
    assert example(1, response="b", choices=("a", "b")).answer == 1
    assert example(1).answer is None


def test_an_answer_outside_the_choices_is_refused():
    with pytest.raises(DataError, match=r"id/1: the answer 'c' is not one of \['a', 'b'\]"):
        example(1, response="c", choices=("a", "b"))


def test_equal_choices_are_refused():
    with pytest.raises(DataError, match="two choices are equal"):
        example(1, response="a", choices=("a", "a"))


def test_a_question_ignores_white_space_order_of_choices_and_letters():
    assert example(1, "a  b\n").question == example(2, "a b").question
    first = example(1, response="x", choices=("x", "y"))
    assert first.question == replace(first, choices=("y", "x")).question
    assert first.question != replace(first, choices=("x", "z")).question
    assert example(1, response="A", choices=("A", "B")).question == example(1).question
    assert example(1).question != example(1, history=(("user", "before"),)).question


def test_the_fingerprint_depends_on_every_field_and_the_order():
    one, two = example(1), example(2)
    whole = corpus([one, two], [example(3)])
    assert whole.fingerprint("train") == corpus([one, two], []).fingerprint("train")
    assert len(whole.fingerprint("train")) == 64
    changed = [
        replace(one, id="other"),
        replace(one, instruction="other"),
        replace(one, response="other"),
        replace(one, source="other"),
        replace(one, category="other"),
        replace(one, choices=("yes", "no")),
        replace(one, shots=(("a", "b"),)),
        replace(one, history=(("user", "a"),)),
        replace(one, header="other"),
    ]
    prints = {corpus([other, two], []).fingerprint("train") for other in changed}
    prints |= {whole.fingerprint("train"), corpus([two, one], []).fingerprint("train")}
    prints |= {whole.fingerprint("dev"), whole.fingerprint("test")}
    assert len(prints) == len(changed) + 4


def test_the_fingerprint_is_the_recorded_one():
    """It is part of the stage keys: a change makes every finished run start again."""
    one = example(1, "où?", choices=("yes", "no"), shots=(("a", "b"),))
    line = (
        r'{"category":"","choices":["yes","no"],"header":"","history":[],"id":"id/1",'
        r'"instruction":"o\u00f9?","response":"yes","shots":[["a","b"]],"source":"s"}'
    )
    expected = hashlib.sha256(f"{line}\n{line}\n".encode()).hexdigest()
    assert corpus([one, one], []).fingerprint("train") == expected


@pytest.mark.parametrize(("train", "test", "missing"), [(0, 1, "train"), (1, 0, "test")])
def test_an_empty_split_is_refused(train: int, test: int, missing: str):
    whole = corpus([example(1)] * train, [example(2)] * test)
    with pytest.raises(DataError, match=f"mine: there are no {missing} examples"):
        whole.check()


def test_a_duplicate_id_is_refused():
    with pytest.raises(DataError, match="the id 'id/1' appears twice"):
        corpus([example(1)], [example(1, "other")]).check()


def test_a_subset_is_seeded_and_keeps_the_order():
    pool = [example(number) for number in range(50)]
    drawn = subset(pool, 10, 0, "train")
    assert len(drawn) == 10 and list(drawn) == sorted(drawn, key=pool.index)
    assert drawn == subset(pool, 10, 0, "train")
    assert drawn != subset(pool, 10, 1, "train") and drawn != subset(pool, 10, 0, "test")
    assert subset(pool, None, 0, "train") == subset(pool, 99, 0, "train") == tuple(pool)
    with pytest.raises(ConfigError, match=r"data\.limit_train=0 must be at least 1"):
        subset(pool, 0, 0, "train")


def test_a_limit_is_drawn_from_every_source_in_proportion():
    pool = [
        replace(example(i), source="abc"[min(i % 10 // 4, 2)]) for i in range(100)
    ]  # 40, 40, 20
    sizes = {
        limit: Counter(e.source for e in stratified(pool, limit, 0, "train"))
        for limit in range(3, 101)
    }
    assert sizes[10] == {"a": 4, "b": 4, "c": 2} and sizes[3] == {"a": 1, "b": 1, "c": 1}
    for limit, drawn in sizes.items():
        assert drawn.total() == limit
        assert all(
            abs(drawn[name] - limit * n / 100) < 1 for name, n in (("a", 40), ("b", 40), ("c", 20))
        )
        assert limit == 3 or all(drawn[name] >= sizes[limit - 1][name] for name in "abc")
    ten = stratified(pool, 10, 0, "train")
    assert list(ten) == sorted(ten, key=pool.index)
    assert ten == stratified(pool, 10, 0, "train") != stratified(pool, 10, 1, "train")
    with pytest.raises(ConfigError, match=r"data\.limit_test=0 must be at least 1"):
        stratified(pool, 0, 0, "test")


def test_a_small_source_keeps_an_example():
    pool = [replace(example(i), source="big" if i else "small") for i in range(1000)]
    assert Counter(e.source for e in stratified(pool, 20, 0, "train")) == {"big": 19, "small": 1}
    assert [e.source for e in stratified(pool, 1, 0, "train")] == ["big"]


def test_a_limit_on_one_source_draws_what_it_always_drew():
    pool = [example(i) for i in range(50)]
    assert stratified(pool, 10, 3, "train") == subset(pool, 10, 3, "train")
    assert [e.id for e in stratified(pool, 5, 0, "train")] == [
        f"id/{n}" for n in (8, 22, 24, 44, 49)
    ]


def test_a_split_keeps_equal_questions_together():
    pool = [example(number, f"question {number % 40}") for number in range(80)]
    train, test = split(pool, 0.25, 0)
    assert len(test) == 20 and len(train) == 60
    assert not {e.question for e in train} & {e.question for e in test}
    assert (train, test) == split(pool, 0.25, 0) != split(pool, 0.25, 1)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(ConfigError, match=r"data\.test_share"):
        split([example(1)], share, 0)


def test_a_question_is_never_its_own_shot():
    pool = [example(number) for number in range(4)]
    assert with_shots(pool[1], pool, 2).shots == (("question 0", "yes"), ("question 2", "yes"))
    assert with_shots(pool[1], pool, 0).shots == ()
