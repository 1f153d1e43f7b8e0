"""The studies' scripts: what they take together, and that what they cannot use is one line and nothing is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from elrea.errors import ElreaError
from elrea.reporting.compare_table import load, read_sweep
from elrea.reporting.runs import finished_jobs
from experiments import study
from experiments.cost import frontier
from experiments.paper_tables import tables
from experiments.real_text import table as real_text
from tests.experiments.sweeps import SCORE, write_job

ALL = ("backbone", "base", "elrea", "elrea_one", "elrea_top1")


def sweep(
    folder: Path,
    *seeds: int,
    names: tuple[str, ...] = ALL,
    k: str = "",
    passes: Mapping[str, float] | None = None,
) -> Path:
    """A finished sweep of a job per seed, with `k` as clustering.k and `passes` by strategy where they are given."""
    before = len(list(folder.glob("*")))
    for number, seed in enumerate(seeds, before):
        rows = [
            {"id": str(i), "source": "a", "answer": "x",
             "strategies": {name: {"correct": i > 1, "loss": 1.0} for name in names}}
            for i in range(4)
        ]  # fmt: skip
        job = write_job(
            folder,
            number,
            rows,
            {
                "strategies": {
                    name: {**SCORE, "forward_passes": (passes or {}).get(name, 1)} for name in names
                },
                "seed": seed,
                "routing": {},
            },
        )
        status = json.loads((job / "status.json").read_text())
        status["words"] = [f"seed={seed}", *([f"clustering.k={k}"] if k else [])]
        (job / "status.json").write_text(json.dumps(status))
        (job / "config.yaml").write_text("routing: {temperature: 1}\nevaluation: {}\n")
    return folder


def state(folder: Path, number: str, of: str) -> Path:
    path = folder / number / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": of}))
    return folder


def test_seeds_are_taken_together(tmp_path: Path) -> None:
    keys, (scores,), jobs = read_sweep(sweep(tmp_path / "s", 3, 1))
    assert (keys, scores.seeds, jobs[0]["data"]) == ([], [3, 1], "made up")
    assert scores.items["elrea"].shape == (2, 4)
    jobs = finished_jobs(sweep(sweep(tmp_path / "k", 0, 1, k="2"), 0, 1, k="4"), several=True)
    assert [(job["setting"], job["seed"]) for job in jobs] == [
        (("2",), 0), (("2",), 1), (("4",), 0), (("4",), 1),
    ]  # fmt: skip


def wrong(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Folders that are not a finished sweep over seeds, with the error for each."""
    (cut := sweep(tmp_path / "cut", 0, 1)).joinpath("sweep.json").write_text("{}")
    return {
        "none": (tmp_path / "none", "no finished sweep there; give a folder such as multirun"),
        "failed": (state(sweep(tmp_path / "f", 0, 1), "1", "failed"), "job 1 is failed"),
        "running": (state(sweep(tmp_path / "r", 0, 1), "0", "running"), "job 0 is running"),
        "cut": (cut, "it was stopped before its last job"),
        "twice": (sweep(tmp_path / "t", 0, 1, 0), "jobs 0 and 2 have the same seed 0"),
        "studies": (
            sweep(sweep(tmp_path / "o", 0), 1, names=("base", "elrea", "elrea_one")),
            "scored different strategies",
        ),
    }


@pytest.mark.parametrize("kind", ["none", "failed", "running", "cut", "twice", "studies"])
@pytest.mark.parametrize("script", [study, real_text, frontier])
def test_what_is_no_sweep_over_seeds_is_refused(script, kind, tmp_path, monkeypatch) -> None:
    folder, said = wrong(tmp_path)[kind]
    into = tmp_path / "into"
    monkeypatch.setattr(sys, "argv", ["x", str(folder), "--into", str(into)])
    if script is frontier:
        monkeypatch.setattr(frontier, "HERE", into)
        monkeypatch.setattr(sys, "argv", ["x", str(folder)])
    with pytest.raises(ElreaError, match=said):
        script.main()
    assert not into.exists()


def test_settings_are_not_pooled(tmp_path, monkeypatch) -> None:
    folder = sweep(sweep(tmp_path / "s", 0, k="2"), 1, k="4")
    monkeypatch.setattr(sys, "argv", ["x", str(folder), "--into", str(tmp_path / "into")])
    with pytest.raises(ElreaError, match=r"its jobs differ in clustering\.k; give a sweep whose"):
        real_text.main()
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("script", "words", "names", "said"),
    [
        (study, ["--leader", "nope"], ALL, "job 0 did not score nope"),
        (study, [], ("backbone", "base"), "job 0 did not score elrea"),
        (study, ["--against", "nope"], ALL, "job 0 did not score nope"),
        (study, ["--against", "base"], ALL, "--against: the sweep varies nothing but the seed"),
        (real_text, [], ("backbone", "base"), "job 0 did not score elrea"),
    ],
)
def test_a_strategy_that_is_not_there_is_said(
    script, words, names, said, tmp_path, monkeypatch
) -> None:
    folder, into = sweep(tmp_path / "s", 0, 1, names=names), tmp_path / "into"
    monkeypatch.setattr(sys, "argv", ["x", str(folder), "--into", str(into), *words])
    with pytest.raises(ElreaError, match=said):
        script.main()
    assert not into.exists()


def test_against_is_drawn_over_numbers(tmp_path: Path, monkeypatch) -> None:
    folder, into = sweep(sweep(tmp_path / "s", 0), 0, k="4"), tmp_path / "into"
    monkeypatch.setattr(sys, "argv", ["x", str(folder), "--into", str(into), "--against", "base"])
    with pytest.raises(
        ElreaError, match=r"needs numbers on its axis, and clustering\.k= is not one"
    ):
        study.main()
    assert not into.exists()


def test_a_study_writes_its_table_and_plots(tmp_path: Path, monkeypatch) -> None:
    folder = sweep(sweep(tmp_path / "s", 0, 1, k="2"), 0, 1, k="4")
    into = tmp_path / "into"
    words = ["x", str(folder), "--into", str(into), "--against", "base"]
    monkeypatch.setattr(sys, "argv", words)
    study.main()
    table = load(into / "results.json")
    assert (table.settings, table.leader, len(table.rows)) == (["clustering.k"], "elrea", 10)
    assert all(row.mean == 0.5 and row.per_seed == [0.5, 0.5] for row in table.rows)
    assert table.command == " ".join(words)
    text = (into / "table.md").read_text()
    assert text.splitlines()[0] == "made up; 4 test items; seeds 0, 1" and table.command in text
    assert {path.name for path in into.glob("*.png")} == {
        "cost.png", "trend.png", "gain.png", "gain_on_base.png",
    }  # fmt: skip


def test_a_study_over_seeds_alone_marks_chance(tmp_path: Path, monkeypatch) -> None:
    into = tmp_path / "into"
    folder = sweep(tmp_path / "s", 0, 1)
    monkeypatch.setattr(sys, "argv", ["x", str(folder), "--into", str(into), "--chance", "0.25"])
    study.main()
    assert {path.name for path in into.glob("*.png")} == {"cost.png", "accuracy.png"}


def test_the_frontier_takes_every_seed_once(tmp_path: Path, monkeypatch) -> None:
    folder = sweep(tmp_path / "s", 0)
    (scores,), agreement, data = frontier.read([folder])
    assert (scores.setting, tuple(scores.items), agreement) == (("gradient",), ALL, {})
    assert data == "made up"
    with pytest.raises(ElreaError, match="have the same seed 0"):
        frontier.read([folder, folder])
    with pytest.raises(ElreaError, match="did not score elrea_one"):
        frontier.read([sweep(tmp_path / "o", 0, names=("base", "elrea"))])


def test_the_frontier_prices_a_letter_and_a_text(tmp_path: Path, monkeypatch) -> None:
    """Routing by gradient costs 4 passes here, the distilled router 1: by hand, over the base adapter's 1."""
    passes = {"base": 1, "elrea_one": 5, "elrea": 13}
    folders = [tmp_path / "gradient", tmp_path / "distilled"]
    for folder, routing in zip(folders, (4, 1), strict=True):
        own = {name: n - (4 - routing) * (name != "base") for name, n in passes.items()}
        sweep(folder, 0, 1, names=tuple(passes), passes=own)
    for job in folders[1].glob("*"):
        (job / "config.yaml").write_text("routing: {temperature: 1, layer: last}\nevaluation: {}\n")
    monkeypatch.setattr(frontier, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", *map(str, folders)])
    frontier.main()
    table = load(tmp_path / "results.json")
    prices = zip(table.rows, table.details["letter"], table.details["text"], strict=True)
    assert [(row.setting["router"], row.strategy, *cost) for row, *cost in prices] == [
        ("gradient", "base", 1.0, 1.0),
        ("distilled", "elrea_one", 2.0, 1.5),
        ("gradient", "elrea_one", 5.0, 3.0),
        ("distilled", "elrea", 10.0, 9.5),
        ("gradient", "elrea", 13.0, 11.0),
    ]
    assert table.rows[1].row_minus_baseline is not None and table.baseline == "base"
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_tables_of_nothing_are_not_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "run", lambda *_: 1)
    monkeypatch.setattr(tables, "HERE", tmp_path / "into")
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "none")])
    with pytest.raises(ElreaError, match="no column has a finished job; no table is written"):
        tables.main()
    assert not (tmp_path / "into").exists()


def test_a_folder_of_other_jobs_makes_no_column(tmp_path: Path) -> None:
    column: dict[str, Any] = {"title": "T", "accuracy": {"elrea": 20.0, "mole": 19.0}}
    with pytest.raises(ElreaError, match="did not score mole; give a new folder as --out"):
        tables.scores_in("T", column, sweep(tmp_path / "o", 0))
    column["accuracy"] = {"elrea": 20.0}
    with pytest.raises(ElreaError, match="have the same seed 0"):
        tables.scores_in("T", column, sweep(tmp_path / "t", 0, 0))
