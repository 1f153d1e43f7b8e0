"""What each judge reads out of written texts, and what it says of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from elrea.data.examples import Example
from elrea.errors import DataError
from elrea.evaluation.judges import Judged, check, judge_of, maths
from tests.data.conftest import SHARED

LETTERS = ("A", "B", "C", "D")


def asked(judge: str, response: str, choices: tuple[str, ...] = ()) -> Example:
    return Example("here:1", "Why?", response, "source", choices=choices, judge=judge)


def said(text: str, example: Example) -> Judged:
    return judge_of(example)(text, example)


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
        ("A man says (B)", "A"),  # a letter that stands alone, whatever it is there for
        ("Because of B.", "B"),
        ("the answer is E", None),
        ("BAD CAB", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_letters(text: str, answer: str | None) -> None:
    assert said(text, asked("letter", "B", LETTERS)) == Judged(answer == "B", answer)


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
    assert said(text, example) == Judged(answer == "yes", answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Let's think. So the answer is (B).", "(B)"),
        ("The Answer Is (B)", "(B)"),
        ("the answer is: (B).\n\nQ: Next?\nA: So the answer is (C).", "(B)"),
        ("the answer is (B). So there are two.", "(B)"),
        (" (B) ", "(B)"),
        ("(B).", "(B)"),
        ("So the answer is (C).", "(C)"),
        ("So the answer is B.", "B"),
        ("So the answer is .", None),
        ("First this.\nThen that.", None),
        (" \n", None),
    ],
)
def test_what_stands_behind_the_answer_is(text: str, answer: str | None) -> None:
    assert said(text, asked("answer", "(B)")) == Judged(answer == "(B)", answer)


@pytest.mark.parametrize("target", ["True", "] ] }", "alpha beta gamma", "-12", "05/01/2021"])
def test_a_target_alone_is_right(target: str) -> None:
    example = asked("answer", target)
    assert said(target, example).correct and said(f"So the answer is {target}.", example).correct
    assert not said(f"So the answer is {target} x.", example).correct


def test_word_for_word() -> None:
    example = asked("", "a  fine\nday")
    assert said(" a fine day\n", example) == Judged(True, "a fine day")
    assert said("a fine day.", example) == Judged(False, "a fine day.")
    assert said(" ", example) == Judged(False, None)


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        (r"It is $\boxed{\frac12}$, not $3$.", r"0.5", True),
        (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}", True),
        (r"\boxed{1{,}234}", "1234", True),
        (r"\boxed{\left(3,\infty\right)}", r"(3, \infty)", True),
        (r"\boxed{45^\circ}", "45", True),
        (r"\boxed{5\text{ cm}}", "5", True),
        (r"\boxed{50\%}", "50", True),
        (r"\boxed{50}", r"50\%", True),
        (r"\boxed{x=3}", "3", True),
        (r"\boxed{2\sqrt3}", r"\sqrt{12}", True),
        (r"\boxed{\text{Tuesday}}", r"\text{Tuesday}", True),
        ("#### 18", "18", True),
        ("3 of them cost 54, so the answer is 18.", "18", True),
        (r"First $18$, then \boxed{17}", "18", False),
        (r"\boxed{(3,\infty)}", r"[3, \infty)", False),
        (r"\boxed{-2}", "2", False),
    ],
)
def test_maths(text: str, gold: str, right: bool) -> None:
    found = said(text, asked("maths", rf"For 7 reasons it is $\boxed{{{gold}}}$."))
    assert found.answer is not None and found.correct is right


def test_maths_without_an_answer() -> None:
    example = asked("maths", r"\boxed{2}")
    assert said("no idea", example) == said(" ", example) == Judged(False, None)


def test_maths_that_takes_too_long_is_wrong_and_the_next_is_judged(monkeypatch) -> None:
    """Nobody waits for this number; what judges it is ended, and another one takes its place."""
    monkeypatch.setattr(maths._aside, "limit", 1.0)
    assert said(r"\boxed{2}", asked("maths", r"\boxed{2}")).correct  # it stands ready
    assert said(r"\boxed{9^{9^{9^9}}}", asked("maths", r"\boxed{2}")) == Judged(False, None)
    monkeypatch.undo()
    assert said(r"\boxed{2}", asked("maths", r"\boxed{2}")).correct


def test_maths_is_judged_in_any_thread() -> None:
    found: list[Judged] = []
    example = asked("maths", r"\boxed{2}")
    threads = [
        threading.Thread(target=lambda n=n: found.append(said(rf"\boxed{{{n}}}", example)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found, key=lambda one: str(one.answer)) == [
        Judged(n == 2, str(n)) for n in range(4)
    ]


@pytest.mark.parametrize(
    ("example", "line"),
    [
        (
            asked("math", r"\boxed{2}"),
            "here:1: no judge 'math'; did you mean maths? (there is: answer, letter, maths, words)",
        ),
        (asked("maths", "2"), "here:1: judge 'maths' wants the answer in \\boxed{}"),
        (asked("letter", "A"), "here:1: judge 'letter' wants choices, and it has none"),
    ],
)
def test_what_cannot_be_judged_is_refused(example: Example, line: str) -> None:
    with pytest.raises(DataError) as refused:
        check([asked("", "fine"), example])
    assert str(refused.value).startswith(line)


def test_real_solutions_and_targets_are_right() -> None:
    """Of the real files: a solution has its own answer, and a target is its own."""
    if not (folder := SHARED / "data").is_dir():
        pytest.skip(f"the real data does not stand at {folder}")
    with (folder / "math" / "test_first1000.jsonl").open(encoding="utf-8") as lines:
        solutions = [json.loads(line)["solution"] for line in lines][::8]
    examples = [asked("maths", solution) for solution in solutions]
    for path in sorted((folder / "bbh").glob("*.json")):
        targets = [row["target"] for row in json.loads(path.read_text("utf-8"))["examples"]]
        examples += [asked("answer", target) for target in targets]
    check(examples)
    wrong = [e.response for e in examples if not said(e.response, e).correct]
    assert len(examples) > 1000 and wrong == []


def test_a_chain_of_thought_of_the_real_prompts_ends_as_its_judge_wants_it() -> None:
    if not (folder := SHARED / "data" / "bbh" / "cot-prompts").is_dir():
        pytest.skip(f"the real prompts do not stand at {folder}")
    paths = sorted(Path(folder).glob("*.txt"))
    assert paths
    for path in paths:
        for shot in path.read_text("utf-8").split("\nA: ")[1:]:
            thought = shot.split("\n\nQ: ")[0]
            target = thought.rpartition("the answer is ")[2].strip().removesuffix(".")
            assert said(thought, asked("answer", target)).correct, (path.name, thought)
