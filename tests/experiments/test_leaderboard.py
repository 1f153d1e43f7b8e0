"""The leaderboard's script: what rows are held against, its figures, and runs that do not belong into it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from elrea.errors import ConfigError, DataError
from elrea.evaluation.seed_intervals import seeds_items_interval
from elrea.reporting.compare_table import load
from experiments.fair_table import rates
from experiments.leaderboard import board
from tests.experiments.sweeps import SCORE, write_job

ITEMS = 6
DEV = {  # by rate: questions that each row has right
    "0.5": {"base": 1, "parameter_matched": 4, "compute_matched": 3, "steered": 2},
    "2": {"base": 1, "parameter_matched": 1, "compute_matched": 2, "steered": 5},
}
WORDS = (
    "evaluation.settings={parameter_matched:{rate:0.5},compute_matched:{rate:0.5},steered:{rate:2}}"
)
"""As Hydra has the words of a sweep's job."""
TEST = {  # by seed
    0: {"base": 1, "parameter_matched": 3, "compute_matched": 6, "steered": 5},
    1: {"base": 2, "parameter_matched": 3, "compute_matched": 5, "steered": 6},
}


def job(folder: Path, number: int, right: Mapping[str, int], *words: str) -> None:
    rows = [
        {"id": str(i), "source": "a", "answer": "x",
         "strategies": {name: {"correct": i < count, "loss": 1.0} for name, count in right.items()}}
        for i in range(ITEMS)
    ]  # fmt: skip
    seed = int(next(word for word in words if word.startswith("seed=")).removeprefix("seed="))
    summary = {"strategies": dict.fromkeys(right, SCORE), "seed": seed, "routing": {}}
    path = write_job(folder, number, rows, summary)
    status = json.loads((path / "status.json").read_text())
    status["words"] = list(words)
    (path / "status.json").write_text(json.dumps(status))
    (path / "config.yaml").write_text("evaluation: {}\n")


def sweeps(folder: Path, *more: str, chosen: str = WORDS) -> tuple[Path, Path]:
    """A sweep on dev, and one on test."""
    dev, test = folder / "dev", folder / "test"
    for number, (rate, right) in enumerate(DEV.items()):
        job(dev, number, right, f"evaluation.rate={rate}", "seed=9", "evaluation.split=dev")
    for seed, right in TEST.items():
        job(test, seed, right, f"seed={seed}", chosen, *more)
    return dev, test


def test_rows_are_held_against_the_single_adapter_that_is_best_on_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On dev that is the adapter of more parameters; on test another is better, and nobody looks."""
    dev, test = sweeps(tmp_path)
    words = ["--column", "few", str(dev), str(test), "--commit", "abc", "--into", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["board.py", *words])
    board.main()
    text = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    matrix = {
        name: np.array([[i < TEST[seed][name] for i in range(ITEMS)] for seed in TEST], float)
        for name in TEST[0]
    }
    lines = text.splitlines()
    assert lines[0] == "| row | passes | few | ahead, level, behind |"
    order = ["compute_matched", "steered", "parameter_matched", "base"]
    assert [line.split("`")[1] for line in lines[2:6]] == order
    for line, name in zip(lines[2:6], order, strict=True):
        apart = matrix[name] - matrix["parameter_matched"]
        if name == "parameter_matched":
            assert "| 50.0 % | 0, 0, 0 |" in line
            continue
        bounds = seeds_items_interval(apart)
        assert bounds is not None
        shown = ", ".join(f"{100 * bound:+.1f}" for bound in bounds)
        ahead, behind = bounds[0] > 0, bounds[1] < 0
        counted = f"{ahead:d}, {not (ahead or behind):d}, {behind:d}"
        assert f"| {100 * apart.mean():+.1f} [{shown}] | {counted} |" in line
    assert "| few | `parameter_matched` | 50.0 | 6 | 0, 1 |" in lines
    assert "| steered | 33.3 | **83.3** |" in lines and "Code of the runs, few: abc" in lines
    saved = load(tmp_path / "few.json")
    assert saved.baseline == "parameter_matched" and len(saved.rows) == 4


def test_a_sweeps_words_are_as_hydra_writes_them(tmp_path: Path) -> None:
    given = f"+{rates.words(rates.merged([sweeps(tmp_path)[0]]))}"
    parsed = OverridesParser.create().parse_override(given)
    assert f"{parsed.key_or_group}={parsed.get_value_element_as_str()}" == WORDS


def test_what_does_not_belong_into_a_column_is_refused(tmp_path: Path) -> None:
    dev, test = sweeps(tmp_path / "rates", chosen="evaluation.settings={steered:{rate:0.5}}")
    with pytest.raises(ConfigError, match=r"test/0: other rates than dev chose in .*; run it with"):
        board.column("few", [dev], test, "abc")
    dev, test = sweeps(tmp_path / "split", "evaluation.split=dev")
    with pytest.raises(ConfigError, match="was scored on dev; the board needs runs on test"):
        board.column("few", [dev], test, "abc")
    dev, test = sweeps(tmp_path / "more")
    job(test, 2, TEST[0], "seed=0", "data.train_per_board=300", WORDS)
    with pytest.raises(ConfigError, match=r"varies data.train_per_board; a column has one setting"):
        board.column("few", [dev], test, "abc")
    dev, test = sweeps(tmp_path / "size", "data.train_per_board=300", "data.test_per_board=9")
    with pytest.raises(ConfigError, match=r"size/dev differ in data.train_per_board=300$"):
        board.column("few", [dev], test, "abc")
    dev, test = sweeps(tmp_path / "untuned")
    shutil.rmtree(test)
    job(test, 0, {**TEST[0], "balanced": 6}, "seed=0", WORDS)
    with pytest.raises(ConfigError, match="has balanced, for which dev has chosen no rate in"):
        board.column("few", [dev], test, "abc")
    bare = tmp_path / "bare"
    for number, rate in enumerate(DEV):
        job(bare, number, {"steered": 3}, f"evaluation.rate={rate}", "seed=9", "evaluation.split=dev")  # fmt: skip
    with pytest.raises(ConfigError, match="no single adapter; score one of compute_matched"):
        board.column("few", [bare], test, "abc")


def test_saved_rates_serve_in_place_of_their_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dev, test = sweeps(tmp_path)
    saved = tmp_path / "rates.json"
    monkeypatch.setattr(sys, "argv", ["rates.py", str(dev), "--save", str(saved)])
    rates.main()
    assert capsys.readouterr().out.startswith("| row | 0.5 | 2 |")
    one, other = (board.column("few", [each], test, "abc") for each in (dev, saved))
    assert one.dev == other.dev and board.page([one]) == board.page([other])
    shutil.rmtree(test)
    job(test, 0, TEST[0], "seed=0", "data.train_per_board=300", WORDS)
    with pytest.raises(ConfigError, match=r"rates.json differ in data.train_per_board=300$"):
        board.column("few", [saved], test, "abc")
    saved.write_text("{}")
    with pytest.raises(DataError, match=r"rates.json: is no file of rates"):
        board.column("few", [saved], test, "abc")


def test_columns_have_the_same_rows(tmp_path: Path) -> None:
    dev, test = sweeps(tmp_path)
    one = board.column("few", [dev], test, "abc")
    rows = one.table.rows[:2]
    other = board.Column("more", one.table.model_copy(update={"rows": rows}))
    with pytest.raises(DataError, match="the columns have different rows"):
        board.page([one, other])


def test_a_column_that_was_made_before_stays_on_the_board_without_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dev, test = sweeps(tmp_path / "runs")
    into = tmp_path / "board"

    def make(name: str, commit: str) -> str:
        words = ["--column", name, str(dev), str(test), "--commit", commit, "--into", str(into)]
        monkeypatch.setattr(sys, "argv", ["board.py", *words])
        board.main()
        capsys.readouterr()
        return (into / "table.md").read_text()

    alone = make("few", "abc")
    both = make("many", "def")
    assert "| row | passes | few | many | ahead, level, behind |" in both.splitlines()
    assert "Code of the runs, few: abc" in both and "Code of the runs, many: def" in both
    rates_of_few = alone[alone.index("Rates on dev") : alone.index("Code of")]
    assert rates_of_few in both
    shutil.rmtree(tmp_path / "runs")
    again = board.kept(into / "few.json")
    assert board.page([again]) == alone
    (into / "other.json").write_text((into / "few.json").read_text().replace('"commit"', '"c"'))
    with pytest.raises(DataError, match=r"other.json: is no column of a leaderboard: .* no commit"):
        board.kept(into / "other.json")
