"""The studies' scripts: what they take together, and that what they cannot use is one line and nothing is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from elrea.errors import ElreaError
from elrea.reporting.runs import finished
from experiments import study
from experiments.cost import frontier
from experiments.first_results import table as first_results
from experiments.paper_tables import tables
from experiments.real_text import table as real_text
from tests.experiments.sweeps import SCORE, write_job

ALL = ("backbone", "base", "elrea", "elrea_one", "elrea_top1")


def sweep(folder: Path, *seeds: int, names: tuple[str, ...] = ALL, k: str = "") -> Path:
    """A finished sweep of a job per seed, with `k` as clustering.k where it is given."""
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
            {"strategies": dict.fromkeys(names, SCORE), "seed": seed, "routing": {}},
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
    seeds, rights, data = first_results.read(sweep(tmp_path / "s", 3, 1))
    assert (seeds, data) == ([3, 1], "made up") and rights["elrea"].shape == (2, 4)
    jobs = finished(sweep(sweep(tmp_path / "k", 0, 1, k="2"), 0, 1, k="4"), several=True)
    assert [(job["setting"], job["seed"]) for job in jobs] == [
        (("2",), 0), (("2",), 1), (("4",), 0), (("4",), 1),
    ]  # fmt: skip


def wrong(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Folders that are no finished sweep over seeds, and what is said of them."""
    (cut := sweep(tmp_path / "cut", 0, 1)).joinpath("sweep.json").write_text("{}")
    return {
        "none": (tmp_path / "none", "no finished sweep there; give multirun"),
        "failed": (state(sweep(tmp_path / "f", 0, 1), "1", "failed"), "job 1 is failed"),
        "running": (state(sweep(tmp_path / "r", 0, 1), "0", "running"), "job 0 is running"),
        "cut": (cut, "it ended before its last job"),
        "twice": (sweep(tmp_path / "t", 0, 1, 0), "jobs 0 and 2 have the same seed 0"),
        "studies": (
            sweep(sweep(tmp_path / "o", 0), 1, names=("base", "elrea", "elrea_one")),
            "scored other strategies",
        ),
    }


@pytest.mark.parametrize("kind", ["none", "failed", "running", "cut", "twice", "studies"])
@pytest.mark.parametrize("script", [first_results, study, real_text, frontier])
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


@pytest.mark.parametrize("script", [first_results, real_text])
def test_settings_are_not_pooled(script, tmp_path, monkeypatch) -> None:
    folder = sweep(sweep(tmp_path / "s", 0, k="2"), 1, k="4")
    monkeypatch.setattr(sys, "argv", ["x", str(folder), "--into", str(tmp_path / "into")])
    with pytest.raises(ElreaError, match=r"its jobs differ in clustering\.k; give a sweep whose"):
        script.main()
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("script", "words", "names", "said"),
    [
        (first_results, ["--of", "nope"], ALL, r"--of nope: it was not scored \(there is: back"),
        (first_results, [], ("backbone", "base"), "--of elrea: it was not scored"),
        (study, [], ("backbone", "base"), "job 0 did not score elrea"),
        (study, ["--against", "nope"], ALL, "job 0 did not score nope"),
        (study, ["--against", "base"], ALL, "--against: nothing was varied beside the seed"),
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
    with pytest.raises(ElreaError, match=r"over numbers, and clustering\.k= is none"):
        study.main()
    assert not into.exists()


def test_the_frontier_takes_every_seed_once(tmp_path: Path, monkeypatch) -> None:
    folder = sweep(tmp_path / "s", 0)
    assert frontier.read([folder]).keys() == {("gradient", name) for name in ALL}
    with pytest.raises(ElreaError, match="has a seed twice"):
        frontier.read([folder, folder])
    with pytest.raises(ElreaError, match="did not score elrea_one"):
        frontier.read([sweep(tmp_path / "o", 0, names=("base", "elrea"))])


def test_tables_of_nothing_are_not_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "run", lambda *_: 1)
    monkeypatch.setattr(tables, "HERE", tmp_path / "into")
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "none")])
    with pytest.raises(ElreaError, match="no job of any column ended well; no table is written"):
        tables.main()
    assert not (tmp_path / "into").exists()


def test_a_folder_of_other_jobs_makes_no_column(tmp_path: Path) -> None:
    column = {"title": "T", "accuracy": {"elrea": 20.0, "mole": 19.0}}
    with pytest.raises(ElreaError, match="its jobs did not score mole"):
        tables.filled(column, sweep(tmp_path / "o", 0))
    with pytest.raises(ElreaError, match="a seed stands there twice"):
        tables.filled(column, sweep(tmp_path / "t", 0, 0))
