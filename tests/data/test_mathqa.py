"""MathQA without options, and the normal form of the right option's text."""

from __future__ import annotations

import json

import pytest

from elrea.data.sources.mathqa import Mathqa, option, tidy
from elrea.data.sources.problems import Unparsed
from elrea.errors import DataError
from tests.data import published as files


@pytest.mark.parametrize(
    ("options", "letter", "text"),
    [
        ("a ) 24 , b ) 120 , c ) 625 , d ) 720 , e ) 1024", "c", "625"),
        ("a ) a ) 3 , b ) b ) 2 , c ) c ) 5 , d ) d ) 21 , e ) e ) 28", "e", "28"),
        ("a ) 1 , 2 , b ) 3 , c ) 4 , d ) 5 , e ) 6", "a", "1 , 2"),
        ("a ) a . 4 , b ) b . 8", "b", "8"),
        ("a ) a : 45 , b ) b : 25", "a", "45"),
        ("['a ) 4 inches', 'b ) 6 inches', 'c ) 5', 'd ) 8', 'e ) 10 inches']", "e", "10 inches"),
    ],
)
def test_the_text_of_the_right_option(options, letter, text):
    assert option(options, letter) == text


@pytest.mark.parametrize(
    ("options", "letter"),
    [("a ) 1 , b ) 2", "c"), ("a ) 1 , c ) 2", "a"), ("a ) , b ) 2", "a"), ("x", "a")],
)
def test_options_that_cannot_be_separated_are_unparsed(options, letter):
    with pytest.raises(Unparsed):
        option(options, letter)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("rs . 1,200 .", "1200"),
        ("$ 45.50", "45.5"),
        ("28.6 %", "28.6"),
        ("- 1", "-1"),
        (".5", "0.5"),
        ("7 days", "7"),
        ("12 sq . m", "12"),
        ("18 km / hr", "18"),
        ("384 cm 2", "384"),
        ("868 cm ^ 2", "868"),
        ("31 / 36", r"\frac{31}{36}"),
        ("- 3 / 4", r"-\frac{3}{4}"),
        ("6 2 / 3 days", r"6\frac{2}{3}"),
        ("16 √ 2 m", r"16 \sqrt{2}"),
        ("four", "4"),
        (". 5", "0.5"),
        ("$ . 90", "0.9"),
        ("6 , 020,030", "6020030"),
        ("1,000 , 000,000", "1000000000"),
        ("19 , 956.732", "19956.732"),
        ("11 / 48,000", r"\frac{11}{48000}"),
        ("22 ½ days", r"22\frac{1}{2}"),
        ("462 cm ²", "462"),
        ("38 ° c", "38"),
        ("40.2 degrees c", "40.2"),
        ("4 p . m .", "4"),
        ("rs . 495 / -", "495"),
        ("s : 1300", "1300"),
        ("euro 2000", "2000"),
        ("+ 4 %", "4"),
        ("1 billion km", "1000000000"),
        ("3 dozen", "36"),
        ("8 pi feet", r"8 \pi"),
        ("144 pi", r"144 \pi"),
        ("2 ∏ √ 3", r"2 \pi \sqrt{3}"),
        ("14 π cm", r"14 \pi"),
        ("2 sqrt ( 65 )", r"2 \sqrt{65}"),
        ("sqrt ( 2.88 / pi )", r"\sqrt{2.88 / \pi}"),
        ("36 + 36 * sqrt ( 3 )", r"36 + 36 * \sqrt{3}"),
        ("78 + ( 4 / 7 ) %", "78 + ( 4 / 7 )"),
        ("x = 3", "3"),
        ("e = 2 √ 2", r"2 \sqrt{2}"),
        # More than one amount, but comparable: not changed.
        ("3 x", "3 x"),
        ("8 2 / 3 a", r"8\frac{2}{3} a"),
        ("1200 bc", "1200 bc"),  # b boxes in each of c cases
        ("n - 1", "n - 1"),
        ("2 - 1 / 2", "2 - 1 / 2"),
        ("2 : 3", "2 : 3"),
        ("- 2,2", "-2,2"),
        ("112.5 , 150", "112.5 , 150"),
        ("3 and 6", "3 and 6"),
        ("( 40,0 )", "( 40,0 )"),
    ],
)
def test_an_amount_without_currency_and_units(text, plain):
    assert tidy(text) == plain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 hr 8 min", "is not one value"),
        ("2 minutes , 00 seconds", "is not one value"),
        ("14 years and 30 years", "is not one value"),
        ("15 m , 10 m", "is not one value"),
        ("10.5 by 3.5", "is not one value"),
        ("93,75 miles", "is not one value"),  # 93.75, or two distances
        ("30 , 500", "is not one value"),  # 30500, or two numbers
        ("1 / 2 million", "is not one value"),
        ("5 and half", "is not one value"),
        ("16 : 00", "is not one value"),  # not a ratio
        ("1,500 +", "is not one value"),
        ("21 % 18 %", "is not one value"),
        ("10 v 2", "is not one value"),
        ("3 )", "is not one value"),
        ("increase by 4.5 %", "is not one value"),
        ("none of these", "has no number"),
        ("x", "has no number"),
    ],
)
def test_text_without_a_value_is_unparsed(text, reason):
    with pytest.raises(Unparsed, match=f"^the answer {reason}$"):
        tidy(text)


def save(root, split, rows):
    (root / f"{split}.json").write_text(json.dumps(rows))


def test_rationale_and_answer_become_the_response(published):
    root = published("mathqa")
    corpus = Mathqa(root=str(root)).load()
    first = corpus.train[0]
    assert first.instruction == "a train train runs 1 km in 2 hours . its speed ?"
    assert first.response == "speed = 1 / 2\nThe answer is \\boxed{\\frac{1}{2}}"
    assert (first.id, first.category, first.judge) == ("mathqa/train/0", "physics", "maths")
    assert (len(corpus.train), len(corpus.dev), len(corpus.test)) == (4, 4, 4)
    (root / "dev.json").unlink()
    assert Mathqa(root=str(root)).load().dev == ()


def test_training_on_the_dev_file(published):
    root = published("mathqa")
    (root / "train.json").unlink()
    with pytest.raises(
        DataError,
        match=r"no train\.json in here; add it, or set data\.train_split=dev to train on dev\.json",
    ):
        Mathqa(root=str(root)).load()
    corpus = Mathqa(root=str(root), train_split="dev").load()
    assert "a dev train" in corpus.train[0].instruction and corpus.dev == ()
    assert corpus.note == "MathQA without options, trained on dev"


def test_unparsed_answers_and_overlap_are_counted(published):
    root = published("mathqa")
    none = {**files.MATHQA["train"][0], "Problem": "which ?", "correct": "e"}
    again = {
        **files.MATHQA["train"][0],
        "Problem": 'A test train runs "1" km, in 2 hours: its speed?',
    }
    save(root, "train", [*files.MATHQA["train"], none, again])
    save(root, "test", [*files.MATHQA["test"], {**none, "Problem": "what ?"}])
    corpus = Mathqa(root=str(root)).load()
    assert len(corpus.train) == 4 and len(corpus.test) == 5
    assert corpus.test[-1].response == "The answer is \\boxed{}"
    assert corpus.left_out == (
        "mathqa: 1 dropped from train: the answer has no number (mathqa/train.json, entry 5)",
        "mathqa: 1 in test, scored wrong: the answer has no number (mathqa/test.json, entry 5)",
        "mathqa: 1 dropped from train: also in test (mathqa/train/5)",
    )
    with pytest.raises(DataError, match=r"first mathqa/test/0 \(train: mathqa/train/5\)"):
        Mathqa(root=str(root), overlap="refuse").load()


def test_an_option_with_unbalanced_braces_is_unparsed(published):
    root = published("mathqa")
    row = {**files.MATHQA["test"][0], "Problem": "which ?", "options": "a ) 3 } , b ) 4"}
    save(root, "test", [*files.MATHQA["test"], {**row, "correct": "a"}])
    corpus = Mathqa(root=str(root)).load()
    assert corpus.test[-1].response == "The answer is \\boxed{}"
    assert corpus.left_out == (
        "mathqa: 1 in test, scored wrong: \\boxed{} cannot contain the answer (mathqa/test.json, entry 5)",
    )


def test_an_unparsed_answer_keeps_its_category(published):
    """Otherwise it would be a task of its own in the macro average, always wrong."""
    root = published("mathqa")
    save(
        root,
        "test",
        [*files.MATHQA["test"], {**files.MATHQA["test"][0], "Problem": "?", "correct": "e"}],
    )
    corpus = Mathqa(root=str(root)).load()
    assert corpus.test[-1].response.endswith("{}") and {e.category for e in corpus.test} == {
        "physics"
    }


def test_unparsed_answers_are_counted_after_the_limit(published):
    root = published("mathqa")
    none = [
        {**files.MATHQA["test"][0], "Problem": f"which {i} ?", "correct": "e"} for i in range(40)
    ]
    save(root, "test", [*files.MATHQA["test"], *none])
    for limit in (1, 5, 20, 44):
        corpus = Mathqa(root=str(root), limit_test=limit).load()
        lost = sum(e.response.endswith("boxed{}") for e in corpus.test)
        expected = f"; {lost} in test, scored wrong" if lost else ""
        assert corpus.note == f"MathQA without options{expected}"
        assert len(corpus.left_out) == bool(lost)
        if lost:
            assert corpus.left_out[0].startswith(
                f"mathqa: {lost} in test, scored wrong: the answer has no number"
            )


def test_a_test_problem_is_dropped_from_dev(published):
    """Otherwise early stopping and tuning would use a test problem."""
    root = published("mathqa")
    save(root, "dev", [*files.MATHQA["dev"], {**files.MATHQA["test"][0]}])
    save(
        root,
        "train",
        [
            *files.MATHQA["train"],
            {**files.MATHQA["dev"][1], "Problem": "A dev train runs 2 km in 2 hours, its speed"},
        ],
    )
    corpus = Mathqa(root=str(root)).load()
    assert (len(corpus.train), len(corpus.dev)) == (4, 4)
    assert corpus.left_out == (
        "mathqa: 1 dropped from train: also in dev (mathqa/train/4)",
        "mathqa: 1 dropped from dev: also in test (mathqa/dev/4)",
    )
    with pytest.raises(DataError, match="1 of 5 dev questions are also in train"):
        Mathqa(root=str(root), overlap="refuse").load()
    assert len(Mathqa(root=str(root), allow_overlap=True).load().dev) == 5


def test_half_a_surrogate_in_the_rationale_is_refused(published):
    root = published("mathqa")
    save(root, "train", [{**files.MATHQA["train"][0], "Rationale": "bad \ud800 half"}])
    with pytest.raises(DataError, match=r"train\.json, entry 1: the rationale is not UTF-8"):
        Mathqa(root=str(root)).load()
