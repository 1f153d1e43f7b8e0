"""experiments/paper_tables: which runs it makes, and that ours stand beside the paper's numbers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from experiments.paper_tables import tables
from tests.experiments.sweeps import SCORE, write_job

PAPER: dict[str, Any] = json.loads(tables.PAPER.read_text(encoding="utf-8"))
CONF = Path(__file__).parents[2] / "conf"


def given(*words: str, small: bool = False) -> argparse.Namespace:
    return argparse.Namespace(words=list(words), small=small, seeds="0,1", plan=False)


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", PAPER["columns"])
def test_every_column_composes_in_its_setting(name: str, small: bool) -> None:
    words = tables.words_of(name, PAPER["columns"][name], given(small=small))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [w.replace("seed=0,1", "seed=0") for w in words])
    for strategy in config.evaluation.strategies:
        assert (CONF / "ensemble" / f"{strategy}.yaml").is_file()
    assert config.adapter.r == (64 if name.endswith("r64") else 8)
    if not small:
        assert config.data.hub is True and config.training.epochs == 2
        assert config.features.projection.d == (512 if name.endswith("d512") else 8192)
        assert config.evaluation.max_new_tokens == (248 if "mmlu" in name else 848)
        assert ("9b" in name) == (config.backbone.name == "google/gemma-2-9b-it")


def test_folders_go_to_the_runs_that_read_them() -> None:
    asked = given("math.root=/m", "mmlu.root=/u", "train.root=/t", "training.max_steps=3")
    names = ("maths_r8", "mmlu_r8", "bbh_r8")
    words = {name: tables.words_of(name, PAPER["columns"][name], asked) for name in names}
    rooted = {name: [w for w in each if "root=" in w] for name, each in words.items()}
    assert rooted == {
        "maths_r8": ["data.root=/m"],
        "mmlu_r8": ["data.root=/u", "data.train.root=/t"],
        "bbh_r8": ["data.train.root=/t"],
    }
    assert all("training.max_steps=3" in each for each in words.values())


def sweep(folder: Path, right: dict[str, list[list[int]]]) -> Path:
    """A finished sweep: by strategy what was right, seed by seed."""
    for seed in range(2):
        count = len(right["elrea"][seed])
        rows = [
            {
                "id": f"{i}",
                "source": "a",
                "category": "",
                "answer": "x",
                "strategies": {
                    name: {"correct": bool(each[seed][i])} for name, each in right.items()
                },
            }
            for i in range(count)
        ]
        strategies = {
            n: {**SCORE, "accuracy": sum(each[seed]) / count} for n, each in right.items()
        }
        write_job(folder, seed, rows, {"strategies": strategies})
    return folder


def test_ours_stand_beside_the_papers(tmp_path: Path) -> None:
    column = {"title": "T", "accuracy": {"base": 18.61, "elrea": 20.41}}
    right = {"base": [[0, 1, 0, 1], [0, 0, 0, 1]], "elrea": [[1, 1, 0, 1], [1, 0, 0, 1]]}
    rows = tables.filled(column, sweep(tmp_path / "T", right))
    assert rows["base"]["accuracy"] == 37.5 and rows["base"]["seeds"] == [50.0, 25.0]
    assert rows["elrea"]["accuracy"] == 62.5
    assert (rows["base"]["elrea_minus_it"], rows["base"]["paper_elrea_minus_it"]) == (25.0, 1.8)
    low, high = rows["base"]["elrea_minus_it_ci95"]
    assert low == 0.0 < high, "one of four items changed: the interval reaches down to none"
    text = tables.markdown("T", rows)
    assert "### T (4 items, 2 seeds)" in text
    assert f"| base | 37.50 | 50.0 25.0 | 18.61 | +25.00 | [+0.00, {high:+.2f}] | +1.80 |" in text


def test_few_tasks_have_a_column_of_their_own(tmp_path: Path) -> None:
    """MATH-Combined's four sources, which the paper reports each."""
    for seed, right in ((0, 0.5), (1, 1.0)):
        tasks = {"gsm8k": {"accuracy": right}, "svamp": {"accuracy": 0.25}}
        score = {"accuracy": True, "correct": True}
        rows = [
            {
                "id": "1",
                "source": "gsm8k",
                "category": "",
                "answer": "x",
                "strategies": {"elrea": score},
            }
        ]
        write_job(tmp_path, seed, rows, {"strategies": {"elrea": {**SCORE, "tasks": tasks}}})
    shown = tables.filled({"accuracy": {"elrea": 20.41}}, tmp_path)
    assert shown["elrea"]["tasks"] == {"gsm8k": 75.0, "svamp": 25.0}
    head, _, line = tables.markdown("T", shown).splitlines()[2:5]
    assert head.endswith("| paper's | gsm8k | svamp |") and line.endswith("| - | 75.00 | 25.00 |")
    assert head.count("|") == line.count("|")


def test_what_has_not_run_is_a_dash(tmp_path: Path) -> None:
    text = tables.markdown("T", tables.filled({"accuracy": {"base": 18.61}}, tmp_path / "none"))
    assert "### T (not run)" in text and "| base | - | - | 18.61 | - | - | - |" in text
