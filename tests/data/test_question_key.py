"""What is asked, in whatever layout; and which questions are not the same for all that."""

from __future__ import annotations

import pytest

from elrea.data.examples import Example
from elrea.data.overlap.question_key import QuestionKey

LETTERS = ("A", "B", "C", "D")
HEADER = "The following are multiple choice questions (with answers) about stars."
MMLU = "Which  star's the nearest?\nA. Sirius\nB. the Sun.\nC. 61 Cygni\nD. Vega\nAnswer:"


def asked(text: str, *choices: str) -> str:
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
def test_a_multiple_choice_in_another_layout(text):
    assert asked(text) == asked(MMLU, *LETTERS)


def test_options_beside_the_text_in_any_order():
    choices = ("Vega", "61 Cygni", "the Sun", "Sirius")
    assert asked("Which star's the nearest?", *choices) == asked(MMLU, *LETTERS)
    assert asked(MMLU, *choices) == asked(MMLU, *LETTERS)


def test_a_stem_alone_is_another_question():
    other = MMLU.replace("Vega", "Deneb")
    questions = [asked(MMLU), asked(other), asked("Which star's the nearest?")]
    questions.append(asked("Which star's the nearest?", "Sirius", "the Sun", "61 Cygni"))
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
def test_a_free_question_in_another_layout(text):
    assert asked(text) == asked("Sort: b a.")


@pytest.mark.parametrize("text", ["A:", "Q: A:", "Let's think step by step.", "Q:", ""])
def test_words_that_are_all_there_is_stay(text):
    assert asked(text) == asked(text.lower()) or not text


def test_a_sentence_that_ends_like_a_marker_is_no_list():
    assert "\x1f" not in asked("He takes vitamin B. She takes vitamin A. Why?")
    assert asked("Take vitamin A. B. Brecht says no") != asked("Take vitamin")


def test_system_turns_do_not_count_and_others_do():
    def with_history(*history: tuple[str, str]) -> str:
        return QuestionKey().key_of(Example("x", "Why?", "r", "s", history=history))

    assert with_history(("system", "Be brief.")) == with_history()
    assert with_history(("user", "Hi"), ("assistant", "Ho")) != with_history()
