"""Keys of questions: equal for all layouts of one question, and different for different questions."""

from __future__ import annotations

import pytest

from elrea.data.examples import Example
from elrea.data.overlap.question_key import QuestionKey

LETTERS = ("A", "B", "C", "D")
HEADER = "The following are multiple choice questions (with answers) about stars."
MMLU = "Which  star's the nearest?\nA. Sirius\nB. the Sun.\nC. 61 Cygni\nD. Vega\nAnswer:"


def key(text: str, *choices: str) -> str:
    known = Example("h", "?", "!", "s", header=HEADER)
    given = Example("x", text, choices[0] if choices else "r", "s", choices=choices)
    return QuestionKey([known]).key_of(given)


@pytest.mark.parametrize(
    "text",
    [
        "which star's the nearest\n(A) Sirius\n(B) the sun\n(C) 61 Cygni\n(D) Vega",
        "Which star's the nearest? A. Sirius B. the Sun. C. 61 Cygni D. Vega Answer:",
        "Question: Which star's the nearest?\n\na) Sirius\nb) the Sun\nc) 61 Cygni\nd) Vega\n\nThe answer is:",
        "Which star's the nearest?\nOptions:\n- Sirius\n- the Sun\n\n- 61 Cygni\n- Vega\n",
        "Which star's the nearest?\nChoices:\n- A: Vega\n- B: 61 Cygni\n- C: Sirius\n- D: the Sun",
        f"{HEADER}\n\n{MMLU}",
        f"{HEADER.replace('about', 'about ')} {MMLU}",
        "(A) Sirius (B) the Sun (C) 61 Cygni (D) Vega\nWhich star's the nearest?\nAnswer:",
    ],
)
def test_layouts_of_multiple_choice_have_one_key(text):
    assert key(text) == key(MMLU, *LETTERS)


def test_choices_have_the_key_of_listed_options_in_any_order():
    choices = ("Vega", "61 Cygni", "the Sun", "Sirius")
    assert key("Which star's the nearest?", *choices) == key(MMLU, *LETTERS)
    assert key(MMLU, *choices) == key(MMLU, *LETTERS)


def test_other_options_or_none_give_another_key():
    other = MMLU.replace("Vega", "Deneb")
    questions = [key(MMLU), key(other), key("Which star's the nearest?")]
    questions.append(key("Which star's the nearest?", "Sirius", "the Sun", "61 Cygni"))
    assert len(set(questions)) == 4


@pytest.mark.parametrize(
    "text",
    [
        "Sort: b a",
        "Q: sort: b a\nA:",
        "Q: Sort: b a\nA: Let's think step by step.",
        "Sort: b a\nLet’s think step by step",
        "Question: Sort: b a\n\nAnswer:",
    ],
)
def test_layouts_of_a_free_question_have_one_key(text):
    assert key(text) == key("Sort: b a.")


@pytest.mark.parametrize("text", ["A:", "Q: A:", "Let's think step by step.", "Q:", ""])
def test_a_closing_phrase_that_is_the_whole_text_is_kept(text):
    assert key(text) == key(text.lower()) or not text


def test_a_sentence_that_ends_like_a_marker_is_not_an_option():
    assert "\x1f" not in key("He takes vitamin B. She takes vitamin A. Why?")
    assert key("Take vitamin A. B. Brecht says no") != key("Take vitamin")


def test_system_turns_are_ignored_and_other_turns_are_not():
    def with_history(*history: tuple[str, str]) -> str:
        return QuestionKey().key_of(Example("x", "Why?", "r", "s", history=history))

    assert with_history(("system", "Be brief.")) == with_history()
    assert with_history(("user", "Hi"), ("assistant", "Ho")) != with_history()
