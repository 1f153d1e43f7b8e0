"""Similarity of free responses in the terminal, report.html, sweep.csv, W&B's tables and predictions.jsonl."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from elrea.data.examples import Example
from elrea.evaluation.scoring import Outcome
from elrea.evaluation.similarity import MEASURES
from elrea.reporting.html import run_report
from elrea.reporting.predictions import predictions, write_predictions
from elrea.reporting.sweeps import as_csv, read_job
from elrea.reporting.terminal import free_text_table, notices, results_table
from elrea.reporting.wandb.run import _tables
from elrea.store.files import sha256, write_json
from tests.reporting.reports import BASE, ROW, report
from tests.reporting.test_screen import by_task, shown

FREE: dict[str, Any] = {"n": 40}
for place, measure in enumerate(MEASURES):
    FREE |= {
        measure: 0.5 + place / 10, f"{measure}_ci95": [0.4, 0.9], f"{measure}_delta_to_base": 0.1,
        f"{measure}_delta_ci95": [0.05, 0.15],
    }  # fmt: skip
ALONE = {key: None if "delta" in key else value for key, value in FREE.items()}
STRATEGIES = {
    "base": {**BASE, "free_text": ALONE},
    "elrea": {**ROW, "free_text": FREE},
    "none": ROW,
}


def test_the_terminal_has_a_table_where_it_applies() -> None:
    assert free_text_table({"base": BASE, "elrea": ROW}) is None
    table = free_text_table(STRATEGIES)
    assert table is not None
    text = shown(table)
    rows = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.split()}
    cells = "50.0 [40.0, 90.0] 60.0 [40.0, 90.0] 70.0 [40.0, 90.0]"
    assert rows["elrea"] == f"elrea {cells}" and rows["base"] == f"base {cells}"
    assert "none" not in rows and "40 texts" in text and "ROUGE-L" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_loss_is_shown_where_there_is_one() -> None:
    """Beside the mean over tasks too, for data of both kinds."""
    rows = {name: {**row, "loss": 1.234} for name, row in by_task(2).items()}
    text = shown(results_table(rows, loss=True))
    assert "1.234" in text and "macro %" in text and max(map(len, text.splitlines())) <= 100
    assert "1.234" not in shown(results_table(rows))
    assert "loss" not in shown(results_table(by_task(2), loss=True)), "generation has no loss"


def test_unclosed_blocks_are_said() -> None:
    rows = {"base": {**BASE, "unparsed": 3, "unclosed_think": 2}, "elrea": {**ROW, "unparsed": 1}}
    lines = "\n".join(notices(report(strategies=rows)))
    assert "as wrong (predictions.jsonl has them): 3 of base, 1 of elrea" in lines
    assert "inside a think block (raise evaluation.max_new_tokens): 2 of base" in lines
    assert "think" not in "\n".join(notices(report()))


def test_the_page_has_a_table_where_it_applies(tmp_path: Path) -> None:
    page = run_report(tmp_path, report(strategies=STRATEGIES), {}).read_text()
    assert "Free responses" in page and "60.0" in page and "[+5.0, +15.0]" in page
    assert "Free responses" not in run_report(tmp_path, report(), {}).read_text()


def test_sweep_csv_has_columns_where_they_apply(tmp_path: Path) -> None:
    job = {"number": "0", "words": [], "state": "done", "seconds": 1.0, "strategies": STRATEGIES}
    rows = {row["strategy"]: row for row in csv.DictReader(as_csv([job]).splitlines())}
    assert rows["elrea"]["f1"] == "0.6" and rows["elrea"]["rouge_l_ci95_high"] == "0.9"
    assert rows["none"]["exact_match"] == rows["none"]["f1_ci95_low"] == ""
    assert "f1" not in as_csv([{**job, "strategies": {"base": BASE}}])
    for broken in (3, {"f1": "x"}, {**FREE, "f1_ci95": [1]}):
        strategies = {"base": {**BASE, "free_text": broken}}
        write_json(tmp_path / "summary.json", {"data": "x", "strategies": strategies})
        known = sha256(tmp_path / "summary.json")
        status = {
            "words": [],
            "chosen": "base",
            "seconds": 1.0,
            "state": "done",
            "summary.json": known,
        }
        write_json(tmp_path / "status.json", status)
        assert read_job(tmp_path)["state"] == "damaged"


def test_wandb_has_a_table_where_it_applies() -> None:
    class Tables:
        def __init__(self) -> None:
            self.made: dict[str, Any] = {}

        def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
            assert all(len(columns) == len(row) for row in rows), name
            self.made[name] = (columns, rows)

    main: dict[str, Any] = {"cluster_count": 2}
    summary: dict[str, Any] = {"routing": {}}
    tables = Tables()
    _tables(tables, report(strategies=STRATEGIES), summary, main)  # type: ignore[arg-type]
    columns, rows = tables.made["free_text"]
    assert dict(zip(columns, rows[1], strict=True))["rouge_l_delta_to_base"] == 0.1
    tables = Tables()
    _tables(tables, report(), summary, main)  # type: ignore[arg-type]
    assert "free_text" not in tables.made


def test_predictions_say_why(tmp_path: Path) -> None:
    choice = Example("q1", "?", "B", "s", choices=("A", "B"))
    free = [Example(f"f{n}", "?", "four", "s") for n in range(4)]
    row = {"rouge_l": 0.5, "f1": 0.4, "exact_match": 0.0}
    written = Outcome(
        [None, None, None, None, 1], [False] * 4 + [True], [1.0, 1.0, None, 1.0, 0.3],
        ["<think>x</think> 5", None, None, None, None], ["5", None, None, None, None],
        ["not word for word 'four'", None, "the prompt is too long to be followed by a text", None, None],
        [row, None, dict.fromkeys(MEASURES, 0.0), None, None],
    )  # fmt: skip
    scored = Outcome(
        [None] * 4 + [0], [False, True, False, False, False], [1.0, 1.0, None, None, 0.3]
    )
    made = report(test=[*free, choice], outcomes={"a": written, "b": scored}, too_long=["f2"])
    rows = list(predictions(made))
    assert [one["id"] for one in rows] == ["f0", "f1", "f2", "f3", "q1"]
    first = rows[0]["strategies"]["a"]
    assert first["text"] == "<think>x</think> 5" and first["extracted"] == "5"
    assert {name: first[name] for name in MEASURES} == row
    assert [one["strategies"]["a"]["why"] for one in rows] == [
        "not word for word 'four'", "the likeliest continuation is not the response",
        "the prompt is too long to be followed by a text", "the likeliest continuation is not the response",
        "by the choices' likelihoods",
    ]  # fmt: skip
    assert [one["strategies"]["b"]["why"] for one in rows] == [
        "the likeliest continuation is not the response", "the likeliest continuation is the response",
        "the prompt is too long", "not scored: a response without tokens", "by the choices' likelihoods",
    ]  # fmt: skip
    write_predictions(tmp_path / "p.jsonl", made)
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == json.loads(json.dumps(rows))


@pytest.mark.parametrize("old", [True, False])
def test_outcomes_of_an_older_run_are_shown(old: bool) -> None:
    """They have neither reasons nor similarity."""
    outcome = Outcome([None], [True], [None], ["four"], ["four"])
    if not old:
        outcome.why, outcome.similar = ["equal word for word"], [dict.fromkeys(MEASURES, 1.0)]
    (row,) = predictions(report(test=[Example("f", "?", "four", "s")], outcomes={"a": outcome}))
    assert row["strategies"]["a"]["text"] == "four" and ("f1" in row["strategies"]["a"]) != old
