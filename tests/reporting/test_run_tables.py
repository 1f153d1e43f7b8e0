"""The tables of report.html, against counts by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from elrea.data.examples import Example
from elrea.evaluation.scoring import Outcome
from elrea.method.routing.weights import Router, Routing
from elrea.reporting import run_tables
from elrea.reporting.html import run_report
from elrea.reporting.report import Grouping
from elrea.reporting.summary import routing_figures
from tests.reporting.reports import report

TEST = tuple(
    Example(f"t{n}", f"Question {n}?", "no", source, choices=("yes", "no"))
    for n, source in enumerate(("law", "law", "law", "maths"))
)
BASE = Outcome([1, 1, 0, 0], [True, True, False, False], [0.5, 1.0, 1.5, 4.0])
ELREA = Outcome([0, 1, 1, 1], [False, True, True, True], [0.25, 0.5, None, 2.0])
ROUTING = Routing(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.1], [0.2, 0.6]]), Router())
GROUPING = Grouping(
    ["law", "maths", "music"], np.array([[5, 1], [0, 3], [1, 0]]), [], [], Path(),
    {"nmi_source": 0.7512, "within": 0.5, "silhouette": None},
)  # fmt: skip
RUN = report(
    test=TEST, tasks=[e.source for e in TEST], train=10, outcomes={"base": BASE, "elrea": ELREA}, dropped=["a", "b"],
    too_long=["t2"], routing=ROUTING, grouping=GROUPING, skipped={"train": ["x"], "test": []},
)  # fmt: skip


def test_figures_by_source_count_each_source_once() -> None:
    heads, rows = run_tables.accuracy_by_source(RUN) or ([], [])
    assert heads == ["source", "items", "base", "elrea"]
    assert rows == [
        ("law", "3", "66.7", "66.7"),
        ("maths", "1", "0.0", "100.0"),
        ("mean over sources", "", "33.3", "83.3"),
        ("all items", "4", "50.0", "75.0"),
    ]
    _, losses = run_tables.loss_by_source(RUN) or ([], [])
    assert losses == [
        ("law", "3", "1.000", "0.375"),  # an item without a loss is not counted
        ("maths", "1", "4.000", "2.000"),
        ("mean over sources", "", "2.500", "1.188"),
        ("all items", "4", "1.750", "0.917"),
    ]
    named = replace(RUN, strategies={"elrea": {"label": "another name"}})
    assert (run_tables.accuracy_by_source(named) or ([], []))[0][2:] == ["base", "another name"]
    assert run_tables.accuracy_by_source(report(test=TEST[:3], outcomes={"base": BASE})) is None


def test_plain_text_is_no_wrong_answer() -> None:
    """It has no right one; its loss counts, and the last row says so."""
    text = Example("t4", "", "Once there was a word.", "wiki", plain_text=True)
    base = Outcome([*BASE.choice, None], [*BASE.correct, False], [*BASE.loss, 8.0])
    run = report(test=(*TEST, text), outcomes={"base": base})
    _, rows = run_tables.accuracy_by_source(run) or ([], [])
    assert [row[0] for row in rows] == ["law", "maths", "mean over sources", "all items"]
    assert rows[-1] == ("all items", "4", "50.0")
    _, losses = run_tables.loss_by_source(run) or ([], [])
    assert losses[2] == ("wiki", "1", "8.000")
    assert losses[-1] == ("all items, plain text too", "5", "3.000")


def test_what_was_dropped_is_counted() -> None:
    rows = dict(run_tables.data_rows(RUN))
    assert rows["training examples"] == "10"
    assert rows["too long to train on (dropped)"] == "2"
    assert rows["test prompts too long (count as wrong)"] == "1"
    assert rows["train prompts without a feature (zero gradient)"] == "1"


def test_a_cluster_names_its_largest_sources() -> None:
    _, rows = run_tables.cluster_table(RUN) or ([], [])
    assert rows == [
        ("0", "6", "60.0", "3", "law 5, music 1"),
        ("1", "4", "40.0", "1", "maths 3, law 1"),
    ]
    assert run_tables.quality_rows(RUN) == [
        ("agreement with the sources (NMI)", "0.751"), ("mean cosine within clusters", "0.500"),
    ]  # fmt: skip


@pytest.mark.parametrize("categories", [["", ""], ["law", "law"], ["", "law"]])
def test_agreement_with_categories_needs_several(categories: list[str]) -> None:
    several = run_tables.categorised(
        replace(example, category=name) for example, name in zip(TEST, categories, strict=False)
    )
    assert several is (len(set(categories)) > 1)
    grouping = replace(GROUPING, quality={"nmi_category": 0.0}, categorised=several)
    rows = run_tables.quality_rows(replace(RUN, grouping=grouping))
    assert rows == [("agreement with the categories (NMI)", "0.000")] * several


def test_sample_answers_come_with_their_routing() -> None:
    shown = list(run_tables.samples(RUN))
    assert [item.id for item in shown] == ["t0", "t1", "t2", "t3"]
    assert shown[0].answers == [("elrea", "yes", "wrong"), ("base", "no", "right")]
    weights = torch.softmax(torch.tensor([1.0, -1.0]), 0)  # two standardised cosines are 1 and -1
    assert shown[0].routing == f"expert-0 {weights[0]:.2f}, expert-1 {weights[1]:.2f}, base 0.10"
    many = report(
        test=TEST * 25, outcomes={"elrea": Outcome([1] * 100, [True] * 100, [None] * 100)}
    )
    assert len(list(run_tables.samples(many))) == run_tables.SAMPLES


def test_the_page_has_all_tables_and_the_name(tmp_path: Path) -> None:
    page = run_report(tmp_path, report(**{**vars(RUN), "name": "Law & maths"}), {}).read_text()
    assert "<title>Law &amp; maths</title>" in page
    for text in (
        "mean over sources",
        "largest sources",
        "too long to train on",
        "Question 3?",
        "expert-1 ",
    ):
        assert text in page


def test_a_prompt_without_a_feature_is_near_to_no_cluster() -> None:
    routing = Routing(torch.tensor([[0.1, 0.9], [0.0, 0.0], [0.0, 0.0]]), Router())
    assert routing_figures(report(routing=routing))["nearest"] == [0, 1]


def test_clusters_that_the_chosen_strategy_does_not_use_are_said(tmp_path: Path) -> None:
    said = "steered has clusters\nof its own"
    for own in (True, False):
        given = {**vars(RUN), "chosen": "steered", "own_clusters": own}
        page = run_report(tmp_path, report(**given), {}).read_text()
        assert (said in page) is own
