"""The figures of strategies, compared with values worked out by hand."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from elrea.data.corpus import Corpus
from elrea.data.examples import Example
from elrea.evaluation.scoring import Outcome
from elrea.evaluation.statistics import paired_interval, wilson
from elrea.evaluation.strategy_figures import strategy_figures

RIGHT = [True] * 6 + [False] * 4
BETTER = [True] * 8 + [False] * 2
PASSES = {"base": 1.0, "elrea": 9.0, "top": 1.23456}


def outcomes() -> dict[str, Outcome]:
    return {
        "elrea": Outcome([0] * 10, BETTER, [0.5] * 10),
        "base": Outcome([0] * 10, RIGHT, [1.0] * 4 + [2.0] * 4 + [None, None]),
        "top": Outcome([None] * 10, [False] * 10, [None] * 10),
    }


def test_figures() -> None:
    got = strategy_figures(outcomes(), PASSES, seed=3, resamples=500)
    assert list(got) == ["elrea", "base", "top"], "rows keep their order"
    assert got["base"] == {
        "accuracy": 0.6,
        "n": 10,
        "ci95": pytest.approx(list(wilson(RIGHT)), abs=1e-6),
        "delta_to_base": None,
        "delta_ci95": None,
        "loss": 1.5,
        "forward_passes": 1.0,
        "correct_sha256": hashlib.sha256(b"1111110000").hexdigest(),
    }
    elrea = got["elrea"]
    assert (elrea["accuracy"], elrea["delta_to_base"], elrea["forward_passes"]) == (0.8, 0.2, 9.0)
    assert elrea["delta_ci95"] == pytest.approx(
        list(paired_interval(BETTER, RIGHT, 3, 500)), abs=1e-6
    )
    assert elrea["delta_ci95"][0] <= 0.2 <= elrea["delta_ci95"][1]
    assert elrea["correct_sha256"] == hashlib.sha256(b"1111111100").hexdigest()


def test_no_right_answers() -> None:
    got = strategy_figures(outcomes(), PASSES, seed=0, resamples=100)["top"]
    assert (got["accuracy"], got["delta_to_base"], got["loss"]) == (0.0, -0.6, None)
    assert got["forward_passes"] == 1.23
    assert got["ci95"][0] == 0 and got["ci95"][1] > 0


def test_by_task() -> None:
    """The micro average counts items alike, the macro average tasks."""
    tasks = ["big"] * 8 + ["small"] * 2
    got = strategy_figures(outcomes(), PASSES, seed=0, resamples=2000, tasks=tasks)["elrea"]
    assert (got["accuracy"], got["macro"]) == (0.8, 0.5)
    assert got["tasks"] == {
        "big": {"accuracy": 1.0, "n": 8, "ci95": pytest.approx(list(wilson([1] * 8)), abs=1e-6)},
        "small": {"accuracy": 0.0, "n": 2, "ci95": pytest.approx(list(wilson([0] * 2)), abs=1e-6)},
    }
    assert got["macro_ci95"] == [0.5, 0.5], "tasks that are all right or all wrong add no width"
    alone = strategy_figures(outcomes(), PASSES, seed=0, resamples=200, tasks=["one"] * 10)["base"]
    assert alone["macro"] == alone["accuracy"] == 0.6


def test_tasks_may_be_sources() -> None:
    """For a mix whose sources have unequal categories: MATH has seven subjects, GSM8K none."""
    examples = (Example("a", "?", "!", "s", "c"), Example("b", "?", "!", "s"))
    by_category, by_source = (
        Corpus("x", (), (), examples),
        Corpus("x", (), (), examples, tasks="source"),
    )
    assert [by_category.task_of(example) for example in examples] == ["c", "s"]
    assert [by_source.task_of(example) for example in examples] == ["s", "s"]


def test_texts_without_an_answer_are_counted() -> None:
    made = Outcome(
        [None] * 3, [True, False, False], [None] * 3, ["1", "?", None], ["1", None, None]
    )
    got = strategy_figures({"base": made}, PASSES, seed=0, resamples=100)["base"]
    assert (got["unparsed"], got["loss"]) == (1, None)
    assert "unparsed" not in strategy_figures(outcomes(), PASSES, 0, 100)["base"]


def test_the_same_outcomes_give_the_same_figures() -> None:
    one, two = (strategy_figures(outcomes(), PASSES, seed=1, resamples=300) for _ in range(2))
    assert one == two


def test_accuracies_by_length_are_of_the_items_with_choices() -> None:
    """Free responses, and items whose text was judged, are left out; a prompt too long is wrong."""
    made = Outcome(
        [0, 1, 0, None, None, 1],
        [True, False, True, False, True, True],
        [0.1] * 6,
        [None, None, None, None, None, "B"],
        [None] * 6,
        choice_norm=[0, 0, 1, None, None, 0],
        choice_bytes=[0, 0, 0, None, None, 0],
    )
    answers = [0, 0, 0, 1, None, 1]
    got = strategy_figures({"base": made}, PASSES, 0, 100, answers=answers)["base"]
    found = {name: got[name] for name in ("acc", "acc_norm", "acc_bytes", "acc_n")}
    assert found == {"acc": 0.5, "acc_norm": 0.5, "acc_bytes": 0.75, "acc_n": 4}
    tasks = ["one", "one", "two", "two", "free", "written"]
    by_task = strategy_figures({"base": made}, PASSES, 0, 100, tasks, answers)["base"]["tasks"]
    assert {task: row.get("acc_norm") for task, row in by_task.items()} == {
        "free": None,
        "one": 1.0,
        "two": 0.0,
        "written": None,
    }
    wanted = [round(float(bound), 6) for bound in wilson([True, True, False, False])]
    assert got["acc_norm_ci95"] == wanted
    assert "acc_norm" not in strategy_figures(outcomes(), PASSES, 0, 100, answers=[0] * 10)["base"]
    unwritten = replace(made, why=["", None, "the prompt is too long", None, None, ""])
    got = strategy_figures({"base": unwritten}, PASSES, 0, 100, answers=answers)["base"]
    assert got["acc_n"] == 2, (
        "an item of a judge has no accuracy by likelihood, with a text or without"
    )
