"""The fair table's script: the rate of each row is the best on dev, and what was not scored on dev is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from elrea.errors import ConfigError, DataError
from elrea.evaluation.seed_intervals import seeds_items_interval
from elrea.reporting.compare_table import Scores, compare, load, save
from experiments.fair_table import rates, table
from tests.cli.test_configs import CONF
from tests.experiments.sweeps import SCORE, write_job

RIGHT = {  # by rate and seed: of 5 questions, how many each row has right
    ("2", 10): {"base": 1, "elrea": 2, "source": 5},
    ("2", 11): {"base": 2, "elrea": 2, "source": 5},
    ("0.25", 10): {"base": 1, "elrea": 3, "source": 1},
    ("0.25", 11): {"base": 2, "elrea": 3, "source": 1},
    ("0.7", 10): {"base": 1, "elrea": 4, "source": 3},
    ("0.7", 11): {"base": 2, "elrea": 2, "source": 2},
}


def sweep(folder: Path, *more: str, jobs: dict[tuple[str, int], dict[str, int]] = RIGHT) -> Path:
    for number, ((rate, seed), right) in enumerate(jobs.items()):
        rows = [
            {"id": str(i), "source": "a", "answer": "x",
             "strategies": {name: {"correct": i < count, "loss": 1.0} for name, count in right.items()}}
            for i in range(5)
        ]  # fmt: skip
        summary = {"strategies": dict.fromkeys(right, SCORE), "seed": seed, "routing": {}}
        job = write_job(folder, number, rows, summary)
        status = json.loads((job / "status.json").read_text())
        status["words"] = [f"evaluation.rate={rate}", f"seed={seed}", *more]
        (job / "status.json").write_text(json.dumps(status))
        (job / "config.yaml").write_text("evaluation: {}\n")
    return folder


def test_each_row_takes_its_best_rate_on_dev_the_lower_of_equal_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sweep(tmp_path / "dev", "evaluation.split=dev")
    monkeypatch.setattr(sys, "argv", ["rates.py", str(folder), "--words"])
    rates.main()
    words = capsys.readouterr().out.strip()
    assert words == "evaluation.settings={elrea: {rate: 0.25}, source: {rate: 2}}"
    alike = {
        "base": {"0.5": 0.2, "1": 0.2},
        "nearest": {"0.5": 0.4, "1": 0.4},
        "elrea": {"0.5": 0.4, "1": 0.5},
    }
    assert rates.words(alike) == "evaluation.settings={elrea: {rate: 1}}", "others have no rate"
    one = {name: {"0.5": 0.4} for name in ("base", "elrea_top1", "gated_wide")}
    assert rates.words(one) == (
        "evaluation.settings={elrea_top1: {rate: 0.5}, gated_wide: {rate: 0.5, trunk_rate: 0.5}}"
    ), "what evaluation.rate=0.5 set"
    assert rates.table(rates.accuracies(folder)).splitlines() == [
        "| row | 0.25 | 0.7 | 2 |",
        "|---|---|---|---|",
        "| base | 30.0 | 30.0 | 30.0 |",
        "| elrea | **60.0** | 60.0 | 40.0 |",
        "| source | 20.0 | 50.0 | **100.0** |",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "config", ["+experiment=fair_table", words, "data.train_seed=${seed}", "seed=7"]
        )
    assert config.evaluation.settings == {"elrea": {"rate": 0.25}, "source": {"rate": 2}}
    assert config.data.train_seed == config.seed == 7


def test_a_row_at_the_end_of_its_range_gets_more_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, more = sweep(tmp_path / "dev", "evaluation.split=dev"), tmp_path / "more"
    further = {("4", 10): {"base": 1, "source": 4}, ("4", 11): {"base": 2, "source": 5}}
    sweep(more, "evaluation.split=dev", jobs=further)
    monkeypatch.setattr(sys, "argv", ["rates.py", str(first)])
    rates.main()
    assert "Best at an end of their range: elrea, source" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["rates.py", str(first), str(more)])
    rates.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| row | 0.25 | 0.7 | 2 | 4 |"
    assert lines[3:5] == [
        "| elrea | **60.0** | 60.0 | 40.0 | - |",
        "| source | 20.0 | 50.0 | **100.0** | 90.0 |",
    ]
    assert "Best at an end of their range: elrea" in lines
    with pytest.raises(ConfigError, match="has rates of source that another sweep has too"):
        rates.merged([first, more, more])
    with pytest.raises(ConfigError, match=r"has elrea, and .*more has not"):
        rates.merged([more, first])


def test_further_rates_are_of_the_same_seeds_and_data(tmp_path: Path) -> None:
    """Else a row would choose between rates that had other questions; 2.0 is no other rate than 2."""
    dev = "evaluation.split=dev"
    first = sweep(tmp_path / "dev", dev, "hydra.sweep.dir=a", "evaluation.strategies=[base,source]")
    one = {("4", 10): {"base": 1, "source": 5}, ("4", 11): {"base": 2, "source": 5}}
    rates.merged([first, sweep(tmp_path / "same", dev, "trainer.threads=1", jobs=one)])
    other = sweep(tmp_path / "data", dev, "data.form=blended", jobs=one)
    with pytest.raises(ConfigError, match=r"data and .*dev differ in data\.form=blended$"):
        rates.merged([first, other])
    seeds = {("4", 12): {"base": 1, "source": 5}, ("4", 11): {"base": 2, "source": 5}}
    with pytest.raises(ConfigError, match=r"differ in seed=10, seed=12$"):
        rates.merged([first, sweep(tmp_path / "seeds", dev, jobs=seeds)])
    again = {("2.0", seed): right for (_, seed), right in one.items()}
    with pytest.raises(ConfigError, match="has rates of source that another sweep has too"):
        rates.merged([first, sweep(tmp_path / "again", dev, jobs=again)])


def test_what_was_not_scored_on_dev_or_varies_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was scored on test; choose rates on dev"):
        rates.accuracies(sweep(tmp_path / "test"))
    folder = sweep(tmp_path / "more", "evaluation.split=dev")
    path = folder / "0" / "status.json"
    status = json.loads(path.read_text())
    status["words"].append("data.form=blended")
    path.write_text(json.dumps(status))
    with pytest.raises(ConfigError, match=r"varies evaluation\.rate, data\.form; sweep"):
        rates.accuracies(folder)


def test_one_table_has_every_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = np.array([[1, 1, 0, 1], [1, 1, 1, 1]])
    worse = np.array([[1, 0, 0, 1], [1, 1, 0, 0]])
    for name, rows in (
        ("standard", {"base": worse, "elrea": right}),
        ("blended", {"base": right, "elrea": worse}),
    ):
        (tmp_path / name).mkdir()
        scores = [Scores([0, 1], rows)]
        save(
            compare(scores, command="x", data="made up", leader="elrea"),
            tmp_path / name / "results.json",
        )
    monkeypatch.setattr(
        sys, "argv", ["table.py", str(tmp_path / "standard"), str(tmp_path / "blended")]
    )
    table.main()
    lines = capsys.readouterr().out.splitlines()
    heads = [
        f"{name}: accuracy, % | elrea minus it [95 %, both]" for name in ("standard", "blended")
    ]
    assert lines[0] == f"| row | {' | '.join(heads)} |"
    interval = seeds_items_interval(right - worse)
    assert interval is not None
    low, high = (100 * x for x in interval)
    wanted = f"| `base` | 50.0 | +37.5 [{low:+.1f}, {high:+.1f}] | 87.5 | -37.5 [{0 - high:+.1f}, {0 - low:+.1f}] |"
    assert lines[2] == wanted
    assert lines[3] == "| `elrea` | 87.5 | - | 50.0 | - |"
    one = load(tmp_path / "standard" / "results.json")
    with pytest.raises(DataError, match="different rows, or no leader"):
        table.table([one, one.model_copy(update={"rows": one.rows[:1]})], ["a", "b"])
