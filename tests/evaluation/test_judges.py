"""Which answer each judge reads from a text, and whether it is right; judges are found by their file."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from elrea.data.examples import Example
from elrea.data.sources.boxed import last_boxed
from elrea.data.sources.mathqa import tidy
from elrea.errors import DataError
from elrea.evaluation import judges
from elrea.evaluation.judge import Judged, check
from elrea.evaluation.judges import maths
from tests.evaluation.judged_texts import asked, judged
from tests.real_files import real_data

LETTERS = ("A", "B", "C", "D")


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
def test_what_follows_the_answer_is(text: str, answer: str | None) -> None:
    assert judged(text, asked("answer", "(B)")) == Judged(answer == "(B)", answer)


@pytest.mark.parametrize("target", ["True", "] ] }", "alpha beta gamma", "-12", "05/01/2021"])
def test_a_target_alone_is_right(target: str) -> None:
    example = asked("answer", target)
    assert (
        judged(target, example).correct and judged(f"So the answer is {target}.", example).correct
    )
    assert not judged(f"So the answer is {target} x.", example).correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is St. Louis.", "St. Louis"),
        ("St. Louis", "St. Louis"),
        ("The answer is St. Louis. It lies on a river.", "St. Louis"),
        ("So the answer is St. Paul.", "St"),
        ("So the answer is St.", "St"),
        ("So the answer is St. Louis Park.", "St"),
        ("St. Louis or St. Paul.", "St"),
    ],
)
def test_a_response_is_never_cut(text: str, answer: str) -> None:
    assert judged(text, asked("answer", "St. Louis")) == Judged(answer == "St. Louis", answer)


def test_word_for_word() -> None:
    example = asked("", "a  fine\nday")
    assert judged(" a fine day\n", example) == Judged(True, "a fine day")
    assert judged("a fine day.", example) == Judged(False, "a fine day.")
    assert judged(" ", example) == Judged(False, None)


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
        (r"\boxed{19 = 18}", "18", False),
        (r"\boxed{19 = 18}", "19", False),
    ],
)
def test_maths(text: str, gold: str, right: bool) -> None:
    found = judged(text, asked("maths", rf"For 7 reasons it is $\boxed{{{gold}}}$."))
    assert found.answer is not None and found.correct is right


@pytest.mark.parametrize(
    ("text", "gold", "answer", "right"),
    [
        (r"First \boxed{3}, then \boxed{18}", "18", "18", True),
        (r"First \boxed{3}, then \boxed{18}", "3", "18", False),
        ("The answer is \\boxed{17}\n\n7 = 3+4\nThe answer is \\boxed{7}", "17", "7", False),
        (r"\boxed{2} and \boxed{3}", "3", "3", True),
        (r"\boxed{2} and \boxed{3}", "2,3", "3", False),
        (r"\boxed{3, 2}", "2,3", "3, 2", True),
        (r"\boxed{3} or \boxed 5.", "5", "5", True),
        (r"\boxed{3}, not \fbox{4}", "4", "4", True),
        (r"\boxed{3}, not \fbox{4}", "3", "4", False),
        (r"$\boxed5$", "5", "5", True),
        (r"\boxed{5} or \boxed{", "5", None, False),
        (r"\boxed{5", "5", None, False),
        (r"5 goes into \boxed{}", "5", None, False),
        (r"\boxed{50\%}", "50", r"50\%", True),
        (r"\boxed{ \ge 5 }", "5", r"\ge 5", False),
        ("It is 50%", "50", "50", True),
    ],
)
def test_the_last_box_alone_is_compared(
    text: str, gold: str, answer: str | None, right: bool
) -> None:
    solution = rf"Either \boxed{{-2}} or \boxed{{{gold}}}."  # the last box is the answer
    assert judged(text, asked("maths", solution)) == Judged(right, answer)


# A text -> an answer that it is right for, and one that it is wrong for.
WAYS: dict[str, tuple[str, str]] = {
    "The answer is - 5.": ("-5", "5"),
    "The answer is \u22125.": ("-5", "5"),
    "So $x = - 5$.": ("-5", "5"),
    "It is 10 - 5.": ("5", "-5"),
    "They are:\n- 5 eggs": ("5", "-5"),
    r"\boxed{- 5}": ("-5", "5"),
    r"\boxed{18 dollars}": ("18", "8"),
    r"\boxed{18 eggs}.": ("18", "19"),
    r"\boxed{\text{18 eggs}}": ("18", "19"),
    r"\boxed{3 years old}": ("3", "4"),
    r"\boxed{3 people}": ("3", "2"),
    r"\boxed{60 miles/hour}": ("60", "6"),
    r"\boxed{3 xyz}": ("3xyz", "3"),
    r"\boxed{3-abcd}": ("3 - abcd", "3"),
    r"\boxed{5 eggs and 3 figs}": (r"5\text{ eggs and }3\text{ figs}", "5"),
    r"\boxed{5 or more}": (r"5\text{ or more}", "5"),
    r"\boxed{8\text{ thousand}}": ("8000", "8"),
    r"\boxed{\$1.5 million}": ("1500000", "1.5"),
    r"\boxed{2 dozen eggs}": ("24", "2"),
    r"\boxed{8\text{ tenths}}": (r"8\text{ tenths}", "8"),
    r"\boxed{1\frac{1}{2}\text{ million}}": (r"1\frac12\text{ million}", "1.5"),
    r"\boxed{1\,000}": ("1000", "0"),
    r"\boxed{1 000 000}": ("1000000", "0"),
    r"\boxed{1 00}": ("1 00", "100"),
    r"\boxed{93,75}": ("75, 93", "9375"),
    r"\boxed{2 1/2}": (r"\frac52", r"\frac32"),
    r"\boxed{18.}": ("18", "1"),
    r"\boxed{\approx 18}": ("18", "1"),
    r"\boxed{\ge 18}": (r"\geq 18", "18"),
    r"\boxed{< 18}": (r"\lt 18", "18"),
    r"\boxed{3 + 15 = 18}": ("18", "15"),
    r"\boxed{x = 18}": ("18", "x"),
    r"\boxed{50\%}": ("0.5", "5"),
    r"\boxed{50\text{ percent}}": ("50", "5"),
    r"\boxed{0.5\%}": ("0.005", r"50\%"),
    r"\boxed{0.5}": (r"50\%", "50"),
    "It is 50%.": ("0.5", "5"),
}


@pytest.mark.parametrize("text", WAYS)
def test_ways_to_write_an_answer(text: str) -> None:
    right, wrong = WAYS[text]
    assert judged(text, asked("maths", rf"\boxed{{{right}}}")).correct
    assert not judged(text, asked("maths", rf"\boxed{{{wrong}}}")).correct


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("144 pi", r"\boxed{144\pi}"),
        ("1 billion km", r"\boxed{10^9}"),
        ("36 + 36 * sqrt ( 3 )", r"\boxed{36(1+\sqrt{3})}"),
        ("22 ½ days", r"\boxed{22.5}"),
        ("11 / 48,000", r"\boxed{\frac{11}{48000}}"),
        ("e = 480", r"\boxed{480}"),
        ("rs . 495 / -", r"\boxed{495}"),
        ("2 : 3", r"\boxed{2:3}"),
        ("3 and 6", r"\boxed{3, 6}"),
        ("8 2 / 3 a", r"\boxed{8\frac{2}{3}a}"),
    ],
)
def test_options_of_mathqa_and_answers_as_one_writes_them(option: str, text: str) -> None:
    assert judged(text, asked("maths", rf"\boxed{{{tidy(option)}}}")).correct


def test_maths_without_an_answer() -> None:
    example = asked("maths", r"\boxed{2}")
    assert judged("no idea", example) == judged(" ", example) == Judged(False, None)
    assert judged(r"\boxed{2}", asked("maths", r"\boxed{}")) == Judged(
        False, "2"
    )  # no answer is right


def test_a_comparison_over_the_time_limit_is_wrong_and_the_next_text_is_judged(monkeypatch) -> None:
    """Sympy would compute this number for ever; its process is killed, and a new one is started."""
    monkeypatch.setattr(maths._subprocess, "limit", 1.0)
    assert judged(r"\boxed{2}", asked("maths", r"\boxed{2}")).correct  # the process is running
    assert judged(r"\boxed{9^{9^{9^9}}}", asked("maths", r"\boxed{2}")) == Judged(False, None)
    monkeypatch.undo()
    assert judged(r"\boxed{2}", asked("maths", r"\boxed{2}")).correct


def test_maths_is_judged_in_any_thread() -> None:
    found: list[Judged] = []
    example = asked("maths", r"\boxed{2}")
    threads = [
        threading.Thread(target=lambda n=n: found.append(judged(rf"\boxed{{{n}}}", example)))
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
            "here:1: unknown judge 'math'; did you mean maths? (there is: answer, letter, maths, words)",
        ),
        (asked("maths", "2"), "here:1: judge 'maths' needs the answer in \\boxed{}"),
        (asked("letter", "A"), "here:1: judge 'letter' needs choices, and this example has none"),
    ],
)
def test_an_example_that_cannot_be_judged_is_refused(example: Example, line: str) -> None:
    with pytest.raises(DataError) as refused:
        check([asked("", "fine"), example])
    assert str(refused.value).startswith(line)


def test_a_judge_is_found_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new judge is one file in a folder of the package, and no list names it."""
    (tmp_path / "shouted.py").write_text(
        "from elrea.evaluation.judge import Judged\n"
        "def judge(text, example):\n"
        "    return Judged(text == example.response.upper(), text)\n"
    )
    with pytest.raises(DataError, match=r"unknown judge 'shouted'"):
        check([asked("shouted", "yes")])
    monkeypatch.setattr(judges, "__path__", [*judges.__path__, str(tmp_path)])
    check([asked("shouted", "yes")])
    assert judged("YES", asked("shouted", "yes")).correct
    assert not judged("yes", asked("shouted", "yes")).correct


def test_real_solutions_and_targets_are_right() -> None:
    """In the real files each solution is right by its own answer, and each target by itself."""
    math, bbh = real_data("math"), real_data("bbh")
    with (math / "test_first1000.jsonl").open(encoding="utf-8") as lines:
        solutions = [json.loads(line)["solution"] for line in lines][::8]
    examples = [asked("maths", solution) for solution in solutions]
    for path in sorted(bbh.glob("*.json")):
        targets = [row["target"] for row in json.loads(path.read_text("utf-8"))["examples"]]
        examples += [asked("answer", target) for target in targets]
    check(examples)
    wrong = [e.response for e in examples if not judged(e.response, e).correct]
    assert len(examples) > 1000 and wrong == []


def test_the_declared_answer_of_real_solutions_with_several_boxes_is_right() -> None:
    folder = real_data("math")
    lines = [
        line for path in sorted(folder.glob("*.jsonl")) for line in path.open("r", encoding="utf-8")
    ]
    solutions = [json.loads(line)["solution"] for line in lines]
    several = [s for s in solutions if s.count(r"\boxed") > 1]
    wrong = [
        solution
        for solution in several
        if not judged(rf"\boxed{{{last_boxed(solution)}}}", asked("maths", solution)).correct
    ]
    assert len(several) > 50 and wrong == []


def test_the_judge_reads_the_chains_of_thought_of_the_real_prompts() -> None:
    folder = real_data("bbh/cot-prompts")
    paths = sorted(folder.glob("*.txt"))
    assert paths
    for path in paths:
        for shot in path.read_text("utf-8").split("\nA: ")[1:]:
            thought = shot.split("\n\nQ: ")[0]
            target = thought.rpartition("the answer is ")[2].strip().removesuffix(".")
            assert judged(thought, asked("answer", target)).correct, (path.name, thought)
