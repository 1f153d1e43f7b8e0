"""experiments/paper_tables: the runs that it makes, and its tables of our results beside the paper's."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from elrea.reporting.compare_table import part
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


def chapter(column: dict[str, Any], folder: Path) -> str:
    """The table of a column whose sweep is in a folder."""
    table, tasks = tables.gathered({folder.name: column}, folder.parent, "a command")
    return tables.chapter(column, part(table, folder.name), tasks[folder.name])


def test_our_results_are_beside_the_papers(tmp_path: Path) -> None:
    column = {"title": "T", "accuracy": {"base": 18.61, "elrea": 20.41}}
    right = {"base": [[0, 1, 0, 1], [0, 0, 0, 1]], "elrea": [[1, 1, 0, 1], [1, 0, 0, 1]]}
    table, _ = tables.gathered({"T": column}, sweep(tmp_path / "T", right).parent, "a command")
    base, elrea = table.rows
    assert (base.setting, base.mean, base.per_seed) == ({"column": "T"}, 0.375, [0.5, 0.25])
    assert elrea.mean == 0.625
    lead = base.leader_minus_row
    assert lead is not None and lead.mean == 0.25
    low, high = lead.items_ci95
    assert low == 0.0 < high, "one of four items changed: the interval reaches down to none"
    text = chapter(column, tmp_path / "T")
    assert "### T (4 items, 2 seeds)" in text
    shown = f"| base | 37.50 | 50.00 | 25.00 | +25.00 | [+0.00, {100 * high:+.2f}] |"
    assert shown in text and "| 18.61 | +1.80 |" in text and "| 20.41 | - |" in text


def test_few_tasks_have_a_column_each(tmp_path: Path) -> None:
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
    head, _, line = chapter({"title": "T", "accuracy": {"elrea": 20.41}}, tmp_path).splitlines()[
        2:5
    ]
    assert head.endswith("| gsm8k | svamp |") and line.endswith("| 20.41 | - | 75.00 | 25.00 |")
    assert head.count("|") == line.count("|")


def test_a_column_that_has_not_run_has_the_papers_numbers_alone(tmp_path: Path) -> None:
    text = chapter({"title": "T", "accuracy": {"base": 18.61}}, tmp_path / "none")
    assert text.splitlines()[0] == "### T (not run)" and text.splitlines()[-1] == "| base | 18.61 |"


def test_the_cost_table_reads_the_benchmarks_figures(tmp_path: Path, monkeypatch) -> None:
    measured = tmp_path / "inference.json"
    measured.write_text(json.dumps({"paper_toy": {"device": "d", "figures": {"experts": 12.3}}}))
    monkeypatch.setattr(tables, "COST", measured)
    text, figures = tables.cost(PAPER["cost"])
    assert "| experts | 12.3 | 246.0 |" in text and "| inference | - | 262.0 |" in text
    assert figures["ours"] == {"experts": 12.3}
    measured.write_text('{"paper_toy": null}')
    assert tables.cost(PAPER["cost"])[1]["ours"] is None
