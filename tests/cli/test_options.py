"""data.options from the command to the reports: letters, which are the default, and text."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from elrea.reporting.sweeps import as_csv, read_job
from tests.cli.commands import QUIET, Ended, run

TEXTS = ["red", "a rather long shade of blue", "green", "pink"]


def rows(names: str) -> str:
    made = [
        {"question_stem": f"Which colour has {name}?", "answerKey": "ABCD"[i % 4],
         "choices": {"text": TEXTS, "label": list("ABCD")}}
        for i, name in enumerate(names)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in made)


@pytest.fixture(scope="module")
def runs(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """A run of each form on the same rows."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "train.jsonl").write_text(rows("abcdefghijklmnop"))
    (folder / "test.jsonl").write_text(rows("uvwxyz"))
    data = [f"data.{split}={folder / f'{split}.jsonl'}" for split in ("train", "test")]
    words = [*tiny, QUIET, "data=jsonl", *data, f"store={folder / 'store'}"]
    words += ["evaluation.strategies=[base,elrea]", "clustering.min_size=1"]
    return {
        "letters": run(folder / "letters", *words),
        "text": run(folder / "text", *words, "data.options=text"),
    }


def predictions(ended: Ended) -> list[dict[str, Any]]:
    lines = (ended.folder / "out" / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def page(ended: Ended) -> str:
    return (ended.folder / "out" / "report.html").read_text().replace("<wbr>", "")


def ensemble(ended: Ended, small_model: Path) -> Ensemble:
    folder = ended.folder / "out" / "ensemble"
    return Ensemble.load(folder, backbone=str(small_model), device=Device("cpu", threads=1))


def test_letters_are_the_default_and_their_texts_stay_readable(
    runs: dict[str, Ended], small_model: Path
) -> None:
    ended = runs["letters"]
    assert (ended.code, ended.err) == (0, "")
    for i, row in enumerate(predictions(ended)):
        assert (row["answer"], row["answer_text"]) == ("ABCD"[i % 4], TEXTS[i % 4])
        for told in row["strategies"].values():
            assert told["choice_text"] == TEXTS["ABCD".index(told["choice"])]
            assert "choice_norm" not in told
    assert "acc_norm" not in ended.out and "acc_norm" not in ended.summary["strategies"]["base"]
    assert "Right answer: B. a rather long shade of blue" in page(ended)
    assert ensemble(ended, small_model).saved.options == "letters"


def test_text_has_both_accuracies_everywhere(runs: dict[str, Ended], small_model: Path) -> None:
    ended = runs["text"]
    assert (ended.code, ended.err) == (0, "")
    rows = predictions(ended)
    assert [row["answer"] for row in rows] == [TEXTS[i % 4] for i in range(6)]
    figures = ended.summary["strategies"]
    for name, figure in figures.items():
        told = [row["strategies"][name] for row in rows]
        norm = [t["choice_norm"] == row["answer"] for t, row in zip(told, rows, strict=True)]
        plain = [t["choice"] == row["answer"] for t, row in zip(told, rows, strict=True)]
        assert figure["acc_norm"] == pytest.approx(sum(norm) / 6, abs=1e-6)
        assert figure["acc"] == figure["accuracy"] == pytest.approx(sum(plain) / 6, abs=1e-6)
        assert figure["acc_bytes"] == figure["acc_norm"], "ASCII"
    assert any(
        told["choice"] != told["choice_norm"] for row in rows for told in row["strategies"].values()
    )
    assert "acc_norm %" in ended.out
    assert "acc_norm: by the choices' likelihood per character" in ended.out
    assert ">acc_norm %</th>" in page(ended) and "as in lm-eval" in page(ended)
    job = read_job(ended.folder / "out")
    table = list(csv.DictReader(io.StringIO(as_csv([job]))))
    assert {r["strategy"]: float(r["acc_norm"]) for r in table} == {
        name: figure["acc_norm"] for name, figure in figures.items()
    }
    assert ensemble(ended, small_model).saved.options == "text"


def test_the_forms_share_no_stage(runs: dict[str, Ended]) -> None:
    keys = {
        name: {stage["key"] for stage in ended.summary["stages"].values()}
        for name, ended in runs.items()
    }
    assert keys["letters"] and not keys["letters"] & keys["text"]


def test_an_unknown_form_is_one_line(tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *tiny, QUIET, "data=jsonl", "data.train=x.jsonl", "data.options=letter")
    assert "data.options" in ended.error
