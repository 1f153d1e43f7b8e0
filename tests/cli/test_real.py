"""Whole runs on a real model and real data (`tests.real_files`)."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.cli.commands import QUIET, TINY, run
from tests.real_files import real_data, real_model


@pytest.fixture
def model() -> str:
    return f"backbone.name={real_model('TinyStories-656K')}"


def test_a_users_own_lines_on_a_real_model(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("ag_news_classify", "ag_news_classify_with_choices"):
        with (real_data("t0") / f"{name}.jsonl").open(encoding="utf-8") as lines:
            (folder / f"{name}.jsonl").write_text("".join(itertools.islice(lines, 15)), "utf-8")
    words = ["data=jsonl", f"data.train={folder}", "data.test_share=0.2"]
    ended = run(tmp_path, *TINY, QUIET, model, *words)
    assert (ended.code, ended.err) == (0, "")
    summary = ended.summary
    assert summary["backbone"] == "TinyStories-656K" and "own instruction data" in summary["data"]
    assert summary["examples"]["train"] + summary["examples"]["test"] == 30
    assert summary["strategies"]["base"]["loss"] < summary["strategies"]["backbone"]["loss"]
    shape = json.loads((tmp_path / "out/ensemble/base/adapter_config.json").read_text())
    assert set(shape["target_modules"]) == {
        f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
    }


def test_mmlu_after_training_on_other_data(model: str, tmp_path: Path) -> None:
    words = [
        "data=mmlu",
        f"data.root={real_data('mmlu')}",
        f"data.train={real_data('t0/ag_news_classify.jsonl')}",
        "data.subjects=[astronomy,virology]",
        "data.limit_train=24",
        "data.limit_test=8",
    ]
    ended = run(tmp_path, "+experiment=elrea_mmlu", *TINY, QUIET, model, *words)
    assert (ended.code, ended.err) == (0, "")
    summary = ended.summary
    assert summary["data"].startswith("mmlu (MMLU, 2 of its 57 subjects, 5-shot")
    assert summary["strategies"]["elrea"]["n"] == 8
    rows = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(row)["category"] for row in rows} <= {"astronomy", "virology"}
    assert {json.loads(row)["answer"] for row in rows} <= set("ABCD")


def test_big_bench_hard_after_training_on_other_data(model: str, tmp_path: Path) -> None:
    words = [
        "data=bbh",
        f"data.root={real_data('bbh')}",
        "+data@data.train=flan_cot",
        f"data.train.root={real_data('flan_cot/strategyqa_train.tsv')}",
        "data.tasks=[boolean_expressions]",
        "data.limit_train=16",
        "data.limit_test=4",
    ]
    ended = run(tmp_path, "+experiment=elrea_bbh", *TINY, QUIET, model, *words)
    assert (ended.code, ended.err) == (0, "")
    said = "bbh (BIG-Bench Hard, 1 of its 27 tasks, 3-shot; trained on Flan's chains of thought)"
    assert ended.summary["data"] == said
    assert ended.summary["strategies"]["elrea"]["n"] == 4


def test_math_combined(model: str, tmp_path: Path) -> None:
    words = [
        "data=maths",
        f"data.root={real_data('math').parent}",
        "data.only=[svamp,mathqa]",
        "data.sources.mathqa.train_split=dev",
        "data.train_per_source=12",
        "data.test_per_source=4",
    ]
    ended = run(tmp_path, "+experiment=elrea_math", *TINY, QUIET, model, *words)
    assert ended.code == 0 and ended.err.startswith("the tokenizer cannot express all of the data")
    assert len(ended.err.splitlines()) == 1
    assert ended.summary["data"] == "maths (svamp and mathqa)"
    note = "MATH-Combined: svamp 12 and 4, mathqa 12 and 4"
    assert ended.summary["data_note"].startswith(note)
    # Two kinds of answers that cannot be parsed, and overlap with test; no such row is among the four of test.
    assert len(ended.summary["examples"]["left_out"]) == 7  # four say what the tokenizer loses
    tasks = ended.summary["strategies"]["elrea"]["tasks"]
    assert {name: row["n"] for name, row in tasks.items()} == {"mathqa": 4, "svamp": 4}
    rows = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert {"physics", "Subtraction"} & {json.loads(row)["category"] for row in rows}
