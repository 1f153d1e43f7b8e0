"""The report of a sweep: intervals as compare has them, and what training costs."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from elrea.commands import compare
from elrea.evaluation.seed_intervals import seeds_items_interval
from elrea.reporting.runs import read_run
from elrea.reporting.sweep_report import (
    draw_sweep,
    row_keys,
    seed_means,
    with_answers,
    write_report,
)
from elrea.reporting.sweeps import as_csv, read_jobs
from elrea.reporting.terminal import means_table
from elrea.store.files import sha256
from tests.experiments.sweeps import SCORE, write_job


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """A finished sweep over two numbers of clusters and two seeds, with predictions and times; one job is older."""
    draw = np.random.default_rng(0)
    for number, (k, seed) in enumerate([(2, 0), (2, 1), (4, 0)]):
        rows = [
            {
                "id": f"item/{i}", "answer": "A",
                "strategies": {n: {"correct": bool(draw.random() < p)} for n, p in (("base", 0.5), ("elrea", 0.7))},
            }
            for i in range(60)
        ]  # fmt: skip
        stages: dict[str, Any] = {
            "base": {
                "key": "b",
                "seconds": 20.0,
                "reused": number > 0,
                "strategies": ["base", "elrea"],
            },
            "expert-0": {"key": "e", "seconds": 1.5 + k, "reused": False, "strategies": ["elrea"]},
            "scores": {"key": "s", "seconds": 3.0, "reused": False, "strategies": []},
        }
        if number == 2:  # of an older version
            for stage in stages.values():
                del stage["strategies"]
        summary = {
            "strategies": dict.fromkeys(("base", "elrea"), SCORE | {"delta_to_base": 0.1}),
            "stages": stages,
        }
        job = write_job(tmp_path / "made", seed, rows, summary).rename(tmp_path / str(number))
        (job / "config.yaml").write_text(json.dumps({"seed": seed, "clustering": {"k": k}}))
        status = json.loads((job / "status.json").read_text())
        status |= {"words": [f"clustering.k={k}", f"seed={seed}"], "seconds": 2.0}
        (job / "status.json").write_text(json.dumps(status))
    (tmp_path / "made").rmdir()
    return tmp_path


def test_the_sweeps_intervals_are_those_of_compare(answered: Path) -> None:
    rows = {
        (*row["group"], row["strategy"]): row
        for row in seed_means(with_answers(answered, read_jobs(answered)))
    }
    runs = [read_run(answered / str(number)) for number in range(3)]
    several, one = compare.compare(runs, "elrea", "base")["settings"]
    assert (several["setting"], one["setting"]) == ({"clustering.k": "2"}, {"clustering.k": "4"})
    both = several["pooled"]["over_seeds_and_items"]["ci95"]
    assert rows["2", "elrea"]["delta_ci95"] == pytest.approx(both, abs=1e-6)
    assert rows["4", "elrea"]["delta_ci95"] == pytest.approx(one["seeds"][0]["ci95"], abs=1e-6)
    right = np.array([run.correct["elrea"] for run in runs[:2]], dtype=float)
    assert rows["2", "elrea"]["accuracy_ci95"] == pytest.approx(seeds_items_interval(right))


def test_making_and_this_run_are_two_columns(answered: Path) -> None:
    """A reused stage costs what making it took; what an older run did not record is blank."""
    rows = list(csv.DictReader(as_csv(read_jobs(answered)).splitlines()))
    found = {
        (row["job"], row["strategy"]): (
            row["seconds_making"],
            row["seconds_run"],
            row["seconds_training"],
        )
        for row in rows
    }
    assert found["0", "base"] == ("26.5", "2.0", "20.0") and found["0", "elrea"][2] == "23.5"
    assert found["1", "elrea"] == ("26.5", "2.0", "23.5"), "its base was in the store"
    assert found["2", "elrea"] == ("28.5", "2.0", "")
    status = answered / "2" / "status.json"
    summary = json.loads((answered / "2" / "summary.json").read_text())
    del summary["stages"]
    (answered / "2" / "summary.json").write_text(json.dumps(summary))
    status.write_text(
        json.dumps(
            json.loads(status.read_text())
            | {"summary.json": sha256(answered / "2" / "summary.json")}
        )
    )
    *_, last = csv.DictReader(as_csv(read_jobs(answered)).splitlines())
    assert (last["seconds_making"], last["seconds_run"], last["seconds_training"]) == (
        "",
        "2.0",
        "",
    )


def test_the_sweeps_report_shows_what_training_costs(answered: Path, figures: list[Any]) -> None:
    write_report(answered, ["-m"], read_jobs(answered))
    page = (answered / "report.html").read_text()
    assert '<td class="number">20.0</td>' in page and '<td class="number">23.5</td>' in page
    assert "making, s" in page and "this run, s" in page and "training, s" in page
    assert {path.stem for path in (answered / "plots").iterdir()} == {
        "cost",
        "training_cost",
        "trend",
        "gain",
    }
    training = next(f for f in figures if f.axes[0].get_xlabel() == "seconds of training")
    assert sorted(text.get_text() for text in training.axes[0].texts) == ["k=2", "k=2"]
    cost = next(f for f in figures if f.axes[0].get_xlabel() == "forward passes per prompt")
    assert all(text.get_text().startswith("k=") for text in cost.axes[0].texts)


def chosen(
    number: int, name: str, words: list[str], accuracies: dict[str, float]
) -> dict[str, Any]:
    """A finished job that is about one strategy and has scored others too."""
    strategies = {each: SCORE | {"accuracy": value} for each, value in accuracies.items()}
    job = {"number": str(number), "state": "done", "chosen": name, "strategies": strategies}
    return job | {"words": [*words, f"ensemble={name}"]}


def test_what_was_set_for_the_chosen_strategy_is_not_said_of_one_that_was_only_scored(
    tmp_path: Path,
) -> None:
    jobs = [
        chosen(0, "elrea", ["ensemble.rate=1"], {"base": 0.5, "elrea": 0.6, "uniform": 0.7}),
        chosen(1, "elrea", ["ensemble.rate=2"], {"base": 0.5, "elrea": 0.8, "uniform": 0.7}),
        chosen(2, "uniform", ["ensemble.rate=1"], {"base": 0.5, "elrea": 0.3, "uniform": 0.9}),
        chosen(3, "uniform", ["ensemble.rate=2"], {"base": 0.5, "elrea": 0.3, "uniform": 0.1}),
    ]
    found = {(*row["group"], row["strategy"]): row["accuracy"] for row in seed_means(jobs)}
    assert found == {
        ("1", "base"): 0.5, ("2", "base"): 0.5, ("1", "elrea"): 0.6, ("2", "elrea"): 0.8, ("-", "elrea"): 0.3,
        ("1", "uniform"): 0.9, ("2", "uniform"): 0.1, ("-", "uniform"): 0.7,
    }  # fmt: skip
    draw_sweep(seed_means(jobs), row_keys(jobs), tmp_path)
    assert (tmp_path / "trend.png").is_file(), "rows without a value are not on its axis"
    same = [
        chosen(0, "elrea", ["ensemble.rate=0.5", "seed=0"], {"base": 0.5, "elrea": 0.6}),
        chosen(1, "base", ["ensemble.rate=0.5", "seed=0"], {"base": 0.5, "elrea": 0.3}),
    ]
    assert row_keys(same) == ["ensemble.rate"], "though it does not vary"
    found = {(*row["group"], row["strategy"]): row["accuracy"] for row in seed_means(same)}
    assert found["0.5", "elrea"] == 0.6 and found["-", "elrea"] == 0.3


def test_the_terminals_means_are_those_of_the_report(answered: Path) -> None:
    jobs = with_answers(answered, read_jobs(answered))
    rows, out = seed_means(jobs), StringIO()
    Console(width=100, file=out).print(means_table(rows, row_keys(jobs)))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert lines[0] == ["Over", "seeds"] and len(lines) == 4 + len(rows)
    for line, row in zip(lines[3:], rows, strict=False):
        assert line[:4] == [
            *row["group"],
            row["strategy"],
            str(row["seeds"]),
            f"{100 * row['accuracy']:.1f}",
        ]
