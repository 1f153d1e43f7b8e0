"""Why a text counts as it does: a short reason from every judge; and think blocks are left out before judging."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from elrea.data.examples import Example
from elrea.evaluation import judges
from elrea.evaluation.judge import Judged, judge_of, names, no_answer, reason
from elrea.evaluation.judging import judge_texts
from elrea.evaluation.think import UNCLOSED

LETTERS = ("A", "B", "C", "D")


def asked(judge: str, response: str, choices: tuple[str, ...] = ()) -> Example:
    return Example("here:1", "Why?", response, "source", choices=choices, judge=judge)


MATHS = asked("maths", r"So \boxed{12}")
REASONS = [
    (asked("", "a  b"), "a b\n", True, "equal word for word"),
    (asked("", "a b"), "a c", False, "not word for word 'a b'"),
    (asked("", "word " * 30), "a", False, f"not word for word '{('word ' * 30)[:57]}...'"),
    (asked("words", "a"), " \n", False, "the text is empty"),
    (asked("", "B", LETTERS), "I say.\nAnswer: B", True, "letter B read from 'Answer: B'"),
    (asked("", "B", LETTERS), "(C) it is", False, "letter C read from 'C', not B"),
    (asked("", "B", LETTERS), "no", False, "none of the letters found"),
    (asked("", "yes", ("yes", "no")), "Yes!", True, "choice yes read from 'Yes'"),
    (asked("", "yes", ("yes", "no")), "maybe", False, "none of the choices found"),
    (asked("answer", "(B)"), "Hm.\nSo the answer is (B).", True, "read from 'the answer is (B).'"),
    (asked("answer", "(B)"), "(C)", False, "the text's only line, not '(B)'"),
    (asked("answer", "(B)"), "so the answer is .", False, "nothing follows 'the answer is'"),
    (asked("answer", "(B)"), "One.\nTwo.", False, "several lines without 'the answer is'"),
    (asked("answer", "(B)"), "", False, "the text is empty"),
    (MATHS, r"It is \boxed{12.0}", True, "12 = 12, read from the last box"),
    (MATHS, "It is 12.0", True, "12.0 = 12, read from the text"),
    (MATHS, "It is 13.", False, "13 ≠ 12, read from the text"),
    (MATHS, "none", False, "no number or formula found"),
    (MATHS, r"\boxed{", False, "the last box is empty or not closed"),
    (MATHS, "", False, "the text is empty"),
]


@pytest.mark.parametrize(("example", "text", "right", "why"), REASONS)
def test_every_judge_says_why(example: Example, text: str, right: bool, why: str) -> None:
    verdict = judge_of(example)(text, example)
    assert (verdict.correct, reason(verdict, example)) == (right, why)
    assert {e.judge for e, *_ in REASONS} - {""} | {"letter"} == set(names()), "judges are missing"


def test_a_judge_without_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge as it was written before there were reasons."""
    plugged = ModuleType("plugged")
    plugged.judge = lambda text, example: Judged(text == "ok", text) if text else no_answer("")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"{judges.__name__}.plugged", plugged)
    monkeypatch.setattr("elrea.evaluation.judge.names", lambda: ["plugged"])
    example = asked("plugged", "ok")
    found = judge_texts([example] * 3, {"base": {0: ["ok"], 1: ["no"], 2: [""]}}, {})["base"]
    assert found.why == [
        "plugged: 'ok' counts as right",
        "plugged: 'no' counts as wrong",
        "plugged: no answer found",
    ]


def test_a_think_block_is_left_out_before_judging() -> None:
    example = asked("", "B", LETTERS)
    texts = [
        "<think>A? The answer is A.</think>\nB",
        "The answer is A.</think> B",
        "<think>B, so",
        "B",
    ]
    given = {"base": {i: [text] for i, text in enumerate(texts)}}
    found = judge_texts([example] * 4, given, {})["base"]
    assert found.correct == [True, True, False, True] and found.answer == ["B", "B", None, "B"]
    assert found.why[2] == UNCLOSED and found.why.count(UNCLOSED) == 1
    assert found.text == texts, "texts stay whole"
    kept = judge_texts([example] * 4, given, {}, think="keep")["base"]
    assert kept.answer == ["A", "A", "B", "B"] and UNCLOSED not in kept.why
    opened = judge_texts([example] * 4, given, {}, opened=lambda i: i > 1)["base"]
    assert opened.answer == ["B", "B", None, None], "what the prompt opened never ended"


def test_a_response_with_thinking_is_compared_by_its_answer() -> None:
    example = asked("", "<think>\nTwo and two.\n</think>\n\n4")
    texts = ["<think>\nHm.\n</think>\n\n4", "4", "<think>\nTwo and two.\n</think>\n\n5", "<think>4"]
    given = {"base": {i: [text] for i, text in enumerate(texts)}}
    found = judge_texts([example] * 4, given, {})["base"]
    assert found.correct == [True, True, False, False]
    assert [row and row["rouge_l"] for row in found.similar] == [1, 1, 0, 0]
    kept = judge_texts([example] * 4, given, {}, think="keep")["base"]
    assert kept.correct == [False] * 4


@pytest.mark.parametrize("judge", ["", "answer"])
@pytest.mark.parametrize(
    "response",
    [
        "Write\n<think> first: 4",
        "<think>A",
        "The tag `<think>` opens a thought.\n4",
        "<answer></answer>",
    ],
)
def test_the_response_itself_is_right_whatever_is_in_it(judge: str, response: str) -> None:
    given = {"base": {0: [f" {response}\n"], 1: ["<think>5"]}}
    for think in ("strip", "keep"):
        found = judge_texts([asked(judge, response)] * 2, given, {}, think=think)["base"]
        assert found.correct == [True, False]
        assert found.similar[0] is None or found.similar[0]["exact_match"] == 1


def test_markers_round_the_answer_are_left_out_of_the_response_too() -> None:
    examples = [asked("", "<think>x</think><answer>4</answer>"), asked("", "<answer>4</answer>")]
    texts = [
        "4",
        "<answer>4</answer>",
        "<think>y</think> 4",
        "<think>y</think>\n<answer> 4 </answer>",
    ]
    for text in texts:
        given = {"base": {0: [text], 1: [text]}}
        assert judge_texts(examples, given, {})["base"].correct == [True, True]
    given = {"base": {0: ["<answer>4</answer> 5"], 1: ["4</answer>"]}}
    assert judge_texts(examples, given, {})["base"].correct == [False, False]


def test_votes_are_counted_after_thinking() -> None:
    example = asked("", "B", LETTERS)
    drawn = ["<think>x</think>A", "<think>y</think>B", "<think>A</think>B", "<think>A", "<think>A"]
    found = judge_texts([example], {"sc": {0: drawn}}, {})["sc"]
    assert (found.answer, found.text) == (["B"], [drawn[1]])
