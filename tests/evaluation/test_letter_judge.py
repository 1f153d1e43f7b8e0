"""Which choice the judge `letter` reads from a text."""

from __future__ import annotations

import pytest

from elrea.data.options import with_options
from elrea.evaluation.judge import Judged, check
from tests.evaluation.judged_texts import asked, judged

LETTERS = ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" B", "B"),
        ("(B) because", "B"),
        ("The answer is (B).", "B"),
        ("It is not A. So the answer is B, not C.", "B"),
        ("The correct answer is **C**", "C"),
        ("Answer: D\n\nThe answer is A", "D"),
        ("The correct option is: A", "A"),
        (r"The answer is $\boxed{\text{D}}$.", "D"),
        ("The answer is a number: C", "C"),
        ("A man says (B)", "A"),  # any capital letter that is a word counts
        ("Because of B.", "B"),
        ("the answer is E", None),
        ("BAD CAB", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_letters(text: str, answer: str | None) -> None:
    assert judged(text, asked("letter", "B", LETTERS)) == Judged(answer == "B", answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("This is a metal, so b.", "b"),
        ("Iron is a metal. (b)", "b"),
        ("The answer is a metal: b", "b"),
        ("The answer is a **metal**, that is, **b**", "b"),
        ("The answer is a number. The answer is c.", "c"),
        ("This is a metal", None),
        ("The answer is a metal", None),
        ("A man says (b)", "b"),
        ("a", "a"),
        (" b", "b"),
        ("A", "a"),
        ("The answer is (B).", "b"),
        ("The answer is a", "a"),
        ("The answer is a.", "a"),
        ("The answer is a\n\nA metal is hard.", "a"),
        ("The answer is a because gold is a metal.", "a"),
        ("The answer is b because iron is a metal.", "b"),
        ("The answer is b (iron), not a (gold).", "b"),
        ("Answer: a) gold", "a"),
        ("Answer: a, since gold is a metal", "a"),
        ("answer: **a**", "a"),
        (r"The answer is $\boxed{\text{d}}$.", "d"),
        ("It is not (a). So the answer is b, not c.", "b"),
        ("a) gold", "a"),
        ("a: gold", "a"),
        ("a, because gold is a metal", "a"),
        ("c. It is a liquid", "c"),
        ("Gold is a metal.\na\nIron is a metal too.", "a"),
        ("Of a metal and a gas I take b", "b"),
        ("I take b rather than a gas", "b"),
        ("It is b, because iron is a metal", "b"),
        ("I'd say it's a gas, e.g. argon, i.e. no b-side", None),
        ("the answer is e", None),
        ("bad cab", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_small_letters_are_no_words(text: str, answer: str | None) -> None:
    """What a reader takes each text to say; "a" is an article where a word follows."""
    assert judged(text, asked("letter", "b", ("a", "b", "c", "d"))) == Judged(answer == "b", answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" not at all", "not at all"),
        ("Not at all, not", "not at all"),
        ("I would not say. The answer is: yes", "yes"),
        ("nothing", None),
    ],
)
def test_choices_that_are_words(text: str, answer: str | None) -> None:
    example = asked("", "yes", ("not", "not at all", "yes"))
    assert judged(text, example) == Judged(answer == "yes", answer)


@pytest.mark.parametrize(
    ("text", "choices", "answer"),
    [
        # Characters that match in any case but differ in lower case: two micro signs, a dotted I, a long s.
        ("The answer is 5 \u00b5m", ("5 \u03bcm", "6 nm"), "5 \u03bcm"),
        ("\u0130stanbul", ("Istanbul", "Rome"), "Istanbul"),
        ("ye\u017f", ("no", "yes"), "yes"),
        ("The answer is: polish", ("Polish", "polish"), "polish"),
        ("The answer is: POLISH", ("polish", "Polish"), "polish"),
        # A number that is part of another one does not count.
        ("The answer is 1.", ("1", "2"), "1"),
        ("(1), or 2", ("1", "2"), "1"),
        ("-1", ("1", "-1"), "-1"),
        ("1.5", ("1", "1.5"), "1.5"),
        ("-1", ("1", "2"), None),
        ("The answer is \u22121", ("1", "2"), None),
        ("0.1 or 1.5 or 1,000 or 1/2", ("1", "2"), None),
    ],
)
def test_choices_of_any_spelling(text: str, choices: tuple[str, ...], answer: str | None) -> None:
    example = asked("letter", choices[0], choices)
    assert judged(text, example) == Judged(answer == choices[0], answer)


def test_a_question_with_shown_options_is_judged_by_its_letter() -> None:
    example = with_options(asked("", "Rome", ("Paris", "Rome")))
    check([example])
    assert judged("The answer is (B).", example) == Judged(True, "B")
    assert judged(" A", example) == Judged(False, "A")
    assert judged("Rome", with_options(asked("", "Rome", ("Paris", "Rome")), "text")).correct
