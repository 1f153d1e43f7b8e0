"""The exam's two forms, and boards of unlike sizes: what counts of words say of a board, and what the order says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize
from tokenizers import Tokenizer

import elrea
from elrea.data.exam.boards import BLENDED, BOARDS, FORMS
from elrea.data.exam.exam import Exam
from elrea.data.exam.items import make_item
from elrea.data.exam.subjects import SUBJECTS
from elrea.errors import ConfigError

TOKENIZER = Tokenizer.from_file(
    str(Path(elrea.__file__).parent / "models" / "tiny" / "weights" / "tokenizer.json")
)
DEFAULT = Exam(train_per_board=200, test_per_board=100)
"""The default exam with fewer test questions."""
BLENDED_EXAM = replace(DEFAULT, form="blended")
FINGERPRINT = "371a16041addf196459de3763d940772462667127312bdec4cdfe2bdad7b0009"
"""Of the blended exam's test."""


def tokens(text: str) -> list[str]:
    return [str(token) for token in TOKENIZER.encode(text).ids]


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]|\n", text)


def pairs(text: str) -> list[str]:
    found = words(text)
    return [" ".join(pair) for pair in pairwise(found)]


def texts(exam: Exam, split: str) -> tuple[list[str], list[str]]:
    examples = getattr(exam.load(), split)
    return [e.instruction for e in examples], [e.source for e in examples]


def probe(exam: Exam, read: Callable[[str], Sequence[str]]) -> float:
    """Share of the test prompts whose board a linear classifier of counts finds."""
    counts = CountVectorizer(analyzer=partial(_call, read), binary=False)
    model = make_pipeline(counts, LogisticRegression(max_iter=300, tol=1e-3))
    model.fit(*texts(exam, "train"))
    return float(model.score(*texts(exam, "test")))


def _call(read: Callable[[str], Sequence[str]], text: str) -> Sequence[str]:
    return read(text)


def test_counts_of_tokens_do_not_cluster_by_board_in_the_blended_form() -> None:
    prompts, boards = texts(BLENDED_EXAM, "train")
    counts = CountVectorizer(analyzer=tokens).fit_transform(prompts).astype(np.float32)
    for rows in (counts, normalize(counts)):
        found = KMeans(8, n_init=1, random_state=0).fit_predict(rows)
        assert normalized_mutual_info_score(boards, found) < 0.05


@pytest.mark.parametrize("read", [tokens, words, str.split])
def test_no_linear_probe_of_a_bag_of_words_finds_the_board(
    read: Callable[[str], Sequence[str]],
) -> None:
    assert probe(BLENDED_EXAM, read) < 0.2  # guessing gives 0.125


def test_the_standard_form_is_read_by_a_bag_of_words_and_the_blended_one_by_its_order() -> None:
    assert probe(DEFAULT, words) > 0.4
    assert probe(BLENDED_EXAM, pairs) > 0.6


def test_all_boards_print_a_question_in_the_same_tokens_and_no_two_alike() -> None:
    rng = Random(0)
    for subject in SUBJECTS:
        item = make_item(subject, rng)
        shown = [form.render(item.stem, item.options) for form in BLENDED.values()]
        assert len(set(shown)) == len(BOARDS) == 8
        counted = {frozenset(Counter(tokens(text)).items()) for text in shown}
        assert len(counted) == 1, "a board has a token that another has not, or not as often"


def board_of(text: str) -> str:
    """The board of a blended prompt, from the order of its parts alone."""
    lines = text.split("\n")
    note = next(line for line in lines if line.startswith("Note:"))
    last = lines.index(note) == 2
    rest = [line for line in lines if line not in (note, "Answer:")]
    bits = [note.index("think") < note.index("look"), last, rest[0].startswith("(A)")]
    return list(BOARDS)[sum(bit << place for place, bit in enumerate(bits))]


def test_the_order_of_the_parts_says_the_board() -> None:
    for example in BLENDED_EXAM.load():
        assert board_of(example.instruction) == example.source


def test_both_forms_ask_the_same_questions_with_the_same_answers() -> None:
    for one, other in zip(DEFAULT.load(), BLENDED_EXAM.load(), strict=True):
        assert replace(one, instruction="") == replace(other, instruction="")
    assert DEFAULT.load().note != BLENDED_EXAM.load().note
    assert FORMS["standard"] is BOARDS


def test_the_same_settings_give_the_same_blended_exam() -> None:
    assert BLENDED_EXAM.load().fingerprint("test") == FINGERPRINT
    assert BLENDED_EXAM._make() == BLENDED_EXAM._make()


def test_another_draw_of_the_training_questions_leaves_dev_and_test() -> None:
    one, two = DEFAULT.load(), replace(DEFAULT, train_seed=5).load()
    assert (one.dev, one.test) == (two.dev, two.test)
    assert two.train == replace(DEFAULT, seed=5).load().train != one.train
    assert replace(DEFAULT, train_seed=0).load() == one
    limited = replace(DEFAULT, limit_train=80)
    drawn = replace(limited, train_seed=5).load().train
    assert drawn == replace(limited, seed=5).load().train


def test_boards_can_have_sizes_of_their_own_and_one_be_unseen() -> None:
    sizes = [200, 100, 50, 25, 12, 8, 4, 0]
    unlike = replace(DEFAULT, train_per_board=sizes).load()
    train, test = (Counter(e.source for e in split) for split in (unlike.train, unlike.test))
    assert [train[board] for board in BOARDS] == sizes
    assert [test[board] for board in BOARDS] == [100] * 8
    assert unlike.train[:200] == DEFAULT.load().train[:200] and unlike.test == DEFAULT.load().test


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([200] * 7, r"data\.train_per_board has 7 numbers for data\.boards=8"),
        ([200] * 7 + [-1], r"data\.train_per_board=\[.*-1\] must be 0 or more"),
    ],
)
def test_wrong_sizes_are_refused(sizes: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(DEFAULT, train_per_board=sizes).load()
