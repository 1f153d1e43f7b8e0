"""The built-in exam: balanced, correct, with disjoint splits, and with the conflict that its setting says."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from random import Random

import pytest

from elrea.data.corpus import Corpus
from elrea.data.exam.boards import BOARDS, reading
from elrea.data.exam.exam import NOTE, Exam
from elrea.data.exam.items import make_item
from elrea.data.exam.subjects import HARD, SUBJECTS
from elrea.data.exam.words import CONVENTIONS
from elrea.data.examples import Example
from elrea.errors import ConfigError, DataError
from tests.data.exam_reader import SOLVERS, pattern, read

SMALL = Exam(subjects="all", train_per_board=92, dev_per_board=24, test_per_board=48)
FINGERPRINTS = {
    "train": "0dbad8257c50e8a5f475f4fa27f677cc678b6f0b5136c7015c77e5ebb21d307f",
    "dev": "8bd4eaf24551e4f47693b16429112c5fb2e1b573012dd92022ba94039fb16a26",
    "test": "b0ced90d27ede7b4f929c5d3724a1994b6dfacb7eb0eb1eea6045ea01012deb7",
}
"""Fingerprints of `SMALL`. A change means that the exam has changed, and changes every stage key with its data."""


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return SMALL.load()


def convention_of(subject: str) -> str | None:
    return make_item(subject, Random(0)).convention


def test_sizes_note_and_subjects(corpus: Corpus) -> None:
    assert (len(corpus.train), len(corpus.dev), len(corpus.test)) == (8 * 92, 8 * 24, 8 * 48)
    assert corpus.note == NOTE == "built-in exam, not MMLU"
    assert len(SUBJECTS) >= 16 and len(CONVENTIONS) >= 8
    for split in (corpus.train, corpus.test):
        asked = Counter((e.source, e.category) for e in split)
        assert len(asked) == 8 * len(SUBJECTS), "a board does not ask a subject"
        assert max(asked.values()) - min(asked.values()) <= 1
    assert all(e.choices == ("A", "B", "C", "D") and not e.shots for e in corpus)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_letters_are_balanced_for_every_board(corpus: Corpus, split: str) -> None:
    examples = getattr(corpus, split)
    for board in BOARDS:
        letters = Counter(e.response for e in examples if e.source == board)
        assert len(letters) == 4 and len(set(letters.values())) == 1, (board, letters)


def test_splits_are_disjoint_for_all_boards_seeds_and_conflicts(corpus: Corpus) -> None:
    seen: dict[object, set[str]] = defaultdict(set)
    others = [replace(SMALL, seed=seed, conflict=seed / 4).load() for seed in (1, 2)]
    for one in (corpus, *others):
        for split in ("train", "dev", "test"):
            for example in getattr(one, split):
                seen[read(example).identity].add(split)
    crossing = [identity for identity, splits in seen.items() if len(splits) > 1]
    assert not crossing, f"{len(crossing)} questions are in two splits, e.g. {crossing[0]}"
    assert len(seen) > 1500


def test_a_board_asks_no_question_twice(corpus: Corpus) -> None:
    for split in (corpus.train, corpus.dev, corpus.test):
        asked = Counter((e.source, read(e).identity) for e in split)
        assert max(asked.values()) == 1


def test_options_differ_and_include_both_readings(corpus: Corpus) -> None:
    for example in corpus.train:
        question = read(example)
        assert len(set(question.options)) == 4, example.instruction
        if example.category in SOLVERS:
            both = SOLVERS[example.category](question.stem)
            assert {str(answer) for answer in both} <= set(question.options), example.instruction


def test_answers_are_right_by_independent_computation(corpus: Corpus) -> None:
    assert len(SOLVERS) >= 12 and SOLVERS.keys() <= SUBJECTS.keys()
    checked: Counter[str] = Counter()
    for example in corpus:
        if example.category not in SOLVERS:
            continue
        question, convention = read(example), convention_of(example.category)
        answers = SOLVERS[example.category](question.stem)
        which = reading(list(BOARDS).index(example.source), convention, 1.0) if convention else 0
        assert question.marked == str(answers[which]), (example.source, example.instruction)
        assert (answers[0] != answers[1]) is (convention is not None)
        checked[example.category] += 1
    assert min(checked.values()) >= 40


def test_only_the_form_shows_the_board(corpus: Corpus) -> None:
    for example in corpus.test:
        matching = [board for board in BOARDS if pattern(board).fullmatch(example.instruction)]
        assert matching == [example.source]
        assert not any(board in example.instruction for board in BOARDS), (
            "the text has a board's name"
        )


def test_without_conflict_all_boards_follow_the_first_reading() -> None:
    for example in replace(SMALL, conflict=0).load().test:
        if example.category in SOLVERS:
            question = read(example)
            assert question.marked == str(SOLVERS[example.category](question.stem)[0])
    assert not any(reading(board, name, 0) for board in range(8) for name in CONVENTIONS)


def test_with_full_conflict_every_convention_divides_the_boards_in_halves() -> None:
    sides = {name: tuple(reading(board, name, 1) for board in range(8)) for name in CONVENTIONS}
    assert {sum(side) for side in sides.values()} == {4}
    papers = list(zip(*sides.values(), strict=True))
    assert len(set(papers)) == 8, "two boards agree on everything"
    for one in range(8):
        for other in range(one):
            differing = sum(a != b for a, b in zip(papers[one], papers[other], strict=True))
            assert 5 <= differing <= 11, "two boards are almost equal or almost opposite"


def test_conflict_adds_one_convention_after_the_other() -> None:
    def divided(conflict: float) -> set[str]:
        return {n for n in CONVENTIONS if len({reading(b, n, conflict) for b in range(8)}) == 2}

    counts = [len(divided(tenth / 10)) for tenth in range(11)]
    assert counts == [round(tenth / 10 * len(CONVENTIONS)) for tenth in range(11)]
    assert divided(0.2) < divided(0.5) < divided(0.8)


def test_conflict_changes_answers_and_no_question(corpus: Corpus) -> None:
    calm = replace(SMALL, conflict=0).load()
    changed = 0
    for one, other in zip(corpus.test, calm.test, strict=True):
        assert read(one).identity == read(other).identity
        assert one.response == other.response, "letters do not depend on the conflict"
        changed += read(one).marked != read(other).marked
    assert 0.35 < changed / len(calm.test) < 0.5  # half of the subjects with a convention


def test_subjects_are_chosen_by_name_or_by_mastered_or_all() -> None:
    def asked(subjects: str | list[str]) -> set[str]:
        return {e.category for e in replace(SMALL, subjects=subjects).load().train}

    assert asked("mastered") == SUBJECTS.keys() - set(HARD) and set(HARD) <= SUBJECTS.keys()
    assert len(asked("mastered")) >= 16
    assert asked(["dates", "units"]) == {"dates", "units"} and asked("dates") == {"dates"}
    with pytest.raises(ConfigError, match=r"no subject 'date'.*did you mean"):
        asked(["date"])
    with pytest.raises(ConfigError, match="empty"):
        asked([])


def test_the_same_settings_give_the_same_exam(corpus: Corpus) -> None:
    got = {split: corpus.fingerprint(split) for split in ("train", "dev", "test")}
    assert got == FINGERPRINTS, "the exam has changed"
    assert SMALL._make() == SMALL._make() == SMALL.load(), "the second exam is not the cached one"
    again = replace(SMALL, seed=1).load()
    assert not {e.instruction for e in again.test} & {e.instruction for e in corpus.train}
    assert [e.instruction for e in again.test] != [e.instruction for e in corpus.test]


def test_fewer_boards_are_the_first_boards_unchanged(corpus: Corpus) -> None:
    three = replace(SMALL, boards=3).load()
    assert {e.source for e in three} == set(list(BOARDS)[:3])
    assert three.test == corpus.test[: 3 * 48]


def test_shots_are_solved_dev_questions_of_the_same_board(corpus: Corpus) -> None:
    dev = {(e.instruction, e.response): e.source for e in corpus.dev}
    with_shots: tuple[Example, ...] = replace(SMALL, shots=2).load().test
    for example, plain in zip(with_shots, corpus.test, strict=True):
        assert replace(example, shots=()) == plain
        assert [dev[shot] for shot in example.shots] == [example.source] * 2


def test_limits(corpus: Corpus) -> None:
    small = replace(SMALL, limit_train=10, limit_test=7).load()
    assert (len(small.train), len(small.test)) == (10, 7)
    assert set(small.train) <= set(corpus.train) and set(small.test) <= set(corpus.test)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"boards": 0}, r"data\.boards=0 must be 1 to 8"),
        ({"boards": 9}, r"data\.boards=9"),
        ({"conflict": -0.1}, r"data\.conflict=-0\.1 must be 0 to 1"),
        ({"conflict": 1.1}, r"data\.conflict=1\.1"),
        ({"conflict": float("nan")}, r"data\.conflict=nan"),
        ({"train_per_board": -1}, r"data\.train_per_board=-1"),
        ({"dev_per_board": 3000, "boards": 1}, r"data\.dev_per_board: \w+ has no more questions"),
        ({"limit_test": 0}, r"data\.limit_test=0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        replace(SMALL, **{"train_per_board": 4, **settings}).load()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_an_exam_without_questions_is_refused() -> None:
    with pytest.raises(DataError, match="there are no test examples"):
        replace(SMALL, test_per_board=0, boards=1).load()
