"""The tables and pictures of experiments/real_text, from a sweep's folder that is made up here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from elrea.reporting.compare_table import load
from tests.experiments.sweeps import SCORE, write_job

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "real_text" / "table.py"
LOSS = {"base": 2.0, "elrea": 1.5, "uniform": 2.25}


def sweep(folder: Path, long: int = 1, mean: str = "true") -> Path:
    """Two seeds, two sources of four items each, and `long` items too long for any strategy."""
    for seed in (0, 1):
        rows = [
            {
                "id": f"{i}", "source": "ab"[i % 2], "answer": "x", "weights": [0.25, 0.75], "w_base": 0.5,
                "strategies": {
                    name: {"correct": name == "elrea" and i == 0, "loss": None if i >= 8 else loss + seed + i}
                    for name, loss in LOSS.items()
                },
            }
            for i in range(8 + long)
        ]  # fmt: skip
        summary = {
            "backbone": "some-model", "strategies": dict.fromkeys(LOSS, SCORE),
            "examples": {"train": 9, "train_dropped_too_long": 2, "test_too_long": ["8"] * long},
            "clusters": {"by_source": {"a": [3, 0], "b": [1, 3]}, "nmi_source": 0.5, "nmi_category": 0.5,
                         "conflict": 0},
        }  # fmt: skip
        job = write_job(folder, seed, rows, summary)
        (job / "config.yaml").write_text(f"evaluation: {{mean_logits: {mean}}}\n")
    return folder


def made(folder: Path, into: Path, *others: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, others), "--into", str(into)],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("long", [0, 1])
def test_differences_are_paired_and_every_seed_is_printed(tmp_path: Path, long: int) -> None:
    into = tmp_path / "into"
    ended = made(sweep(tmp_path / "sweep", long), into)
    assert ended.returncode == 0, ended.stderr
    table = load(into / "results.json")
    rows = {(row.setting["source"], row.strategy): row for row in table.rows}
    assert {source: row.items for (source, _), row in rows.items()} == {
        "a": 4,
        "b": 4,
        "all sources": 8,
    }
    assert {row.setting["backbone"] for row in table.rows} == {"some-model"}
    row = rows["a", "elrea"]
    assert (row.mean, row.per_seed) == (5.0, [4.5, 5.5])  # items 0, 2, 4, 6
    gain = row.row_minus_baseline
    assert gain is not None and gain.per_seed == [-0.5, -0.5]
    assert (gain.mean, gain.items_ci95) == (-0.5, (-0.5, -0.5)), "the items' own difficulty cancels"
    lead = rows["all sources", "uniform"].leader_minus_row
    assert lead is not None and (lead.mean, lead.items_ci95) == (-0.75, (-0.75, -0.75))
    (hits,) = (
        row.mean
        for row in load(into / "exact_match.json").rows
        if (row.setting["source"], row.strategy) == ("a", "elrea")
    )
    assert hits == 0.25
    found = table.details["some-model"]
    assert found["examples"] == {
        "train": 7,
        "train_dropped_too_long": 2,
        "test": 8,
        "test_too_long": long,
    }
    assert found["routes"]["b"] == {"w_base": 0.5, "largest": 0.75}
    text = (into / "table.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| elrea | 5.000 "))
    assert "| 4.500 | 5.500 | - | - | - | -0.500 | [-0.500, -0.500] |" in line
    assert line.endswith("| 25.0 |")
    assert "| b | 1 / 3 | 1 / 3 | 0.50 | 0.75 |" in text
    for picture in ("loss-some-model.png", "clusters-some-model.png"):
        assert (into / picture).read_bytes().startswith(b"\x89PNG")


def test_an_unfinished_sweep_is_refused(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "sweep")
    (folder / "1" / "status.json").write_text(
        '{"state": "stopped", "words": [], "chosen": "-", "seconds": 1.0}'
    )
    ended = made(folder, tmp_path)
    assert ended.returncode == 1 and "the sweep is not finished" in ended.stderr


def test_sums_of_logits_have_a_name_of_their_own(tmp_path: Path) -> None:
    ended = made(sweep(tmp_path / "sweep", mean="false"), tmp_path / "into")
    assert ended.returncode == 0, ended.stderr
    assert load(tmp_path / "into" / "results.json").details.keys() == {"some-model-summed"}


def test_one_backbone_twice_is_refused(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "sweep")
    ended = made(folder, tmp_path / "into", folder)
    assert ended.returncode == 1 and "two sweeps have the backbone some-model" in ended.stderr
    assert not (tmp_path / "into").exists()
