"""Questions in two splits: they are found, and refused or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from elrea.data.corpus import Splits
from elrea.data.drops import Drops
from elrea.data.exam.exam import Exam
from elrea.data.examples import Example
from elrea.data.overlap.held_out import HeldOut, resolve_overlap
from elrea.data.sampling import hold_out, split
from elrea.errors import DataError


def examples(name: str, *texts: str, **more: Any) -> tuple[Example, ...]:
    return tuple(Example(f"{name}/{i}", text, "r", "s", **more) for i, text in enumerate(texts))


def chat(name: str, *turns: str) -> Example:
    """A chat in which every turn of the user is answered."""
    history = [pair for turn in turns[:-1] for pair in (("user", turn), ("assistant", "Well."))]
    return Example(name, turns[-1], "r", "s", history=tuple(history))


def test_test_is_dropped_from_train_and_dev_and_dev_from_train() -> None:
    parts = Splits(
        examples("train", "one", "TWO!", "three", "four"),
        examples("dev", "two", "Three", "five"),
        examples("test", "three", "six"),
    )
    found = resolve_overlap(parts, "drop", "data=mine")
    assert [e.id for e in found.train] == ["train/0", "train/3"]
    assert [e.id for e in found.dev] == ["dev/0", "dev/2"] and found.test == parts.test
    assert list(parts.drops.lines()) == [
        "s: 1 dropped from train: also in dev (train/1)",
        "s: 1 dropped from train: also in test (train/2)",
        "s: 1 dropped from dev: also in test (dev/1)",
    ]


@pytest.mark.parametrize(
    ("train", "dev", "said"),
    [
        ("a?", "b", "data=mine: 1 of 2 test questions are also in train, first test/0 (train: train/0); set data."
         "overlap=drop to drop them from train, or data.allow_overlap=true"),
        ("b", "a?", "data=mine: 1 of 2 test questions are also in dev, first test/0 (dev: dev/0); set data.overlap="),
        ("b?", "b", "data=mine: 1 of 1 dev questions are also in train, first dev/0 (train: train/0)"),
    ],
)  # fmt: skip
def test_overlap_is_refused(train: str, dev: str, said: str) -> None:
    parts = Splits(examples("train", train), examples("dev", dev), examples("test", "a", "c"))
    with pytest.raises(DataError) as caught:
        resolve_overlap(parts, "refuse", "data=mine")
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def remaining(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    return [e.id for e in HeldOut((), test).remove_from("train", train, "drop", Drops(), "x")]


def test_a_held_out_question_is_found_in_an_earlier_turn() -> None:
    train = [chat("first", "What is it?", "Why?"), chat("middle", "Hi", "what is IT", "Thanks")]
    train += [chat("last", "Hi", "What is it?"), chat("other", "Hi", "Why?")]
    assert remaining(train, examples("test", "What is it?")) == ["other"]
    # A question of a chat includes the turns before it.
    asked = [chat("t", "What is it?", "Why?")]
    assert remaining([*train, chat("longer", "What is it?", "Why?", "And?")], asked) == [
        "middle", "last", "other",
    ]  # fmt: skip


def test_a_benchmarks_header_is_ignored() -> None:
    test = examples("test", "Q: Is it so?\nA:", header="Say whether  it is so.")
    train = examples("train", "Say whether it is so.\n\nQ: Is it so?\nA: ", "Say whether it is so.")
    assert remaining(train, test) == ["train/1"]


def test_a_split_never_has_overlap() -> None:
    """Even if questions are asked several times and in several turns of chats."""
    pool = [*examples("plain", *(f"Question {i % 30}{'?' * (i % 3)}" for i in range(60)))]
    pool += [chat(f"chat/{i}", f"question {i}", f"and {i % 7}?") for i in range(40)]
    pool += [chat(f"long/{i}", f"question {i}", f"And {i % 7}", "So?") for i in range(20)]
    for seed in range(20):
        train, test = split(pool, 0.2, seed)
        rest, dev = hold_out(train, 5, seed, "dev_size")
        assert test and dev and len(train) + len(test) == len(pool)
        assert len(rest) > len(pool) / 2
        resolve_overlap(Splits(rest, dev, test), "refuse", "x")
        assert (train, test) == split(pool, 0.2, seed)


def test_questions_that_chats_connect_cannot_be_split() -> None:
    pool = [*examples("plain", "Hi"), *(chat(f"chat/{i}", "hi!", f"{i}?") for i in range(9))]
    with pytest.raises(
        DataError, match="all 10 questions are turns of the same chats, so none can"
    ):
        split(pool, 0.1, 0)
    train, test = split([*pool, *examples("other", "What?")], 0.1, 0)
    assert len(train) == 10 and [e.id for e in test] == ["other/0"]


@pytest.mark.parametrize("subjects", ["mastered", "all"])
def test_the_exam_asks_no_question_twice(subjects: str) -> None:
    """Its stems are in several splits, with other options and in other boards' words."""
    exam = Exam(subjects=subjects, train_per_board=400, dev_per_board=60, test_per_board=150)
    corpus = exam.load()
    assert len(corpus.train) == 8 * 400 and len(corpus.test) == 8 * 150
    parts = Splits(corpus.train, corpus.dev, corpus.test)
    assert resolve_overlap(parts, "drop", "exam") == parts and not len(parts.drops)
    assert split(corpus.train, 0.1, 0)[1]
