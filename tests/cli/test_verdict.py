"""`+experiment=does_it_pay` from start to end: what it spends, what it finds, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elrea.config import load_config
from elrea.errors import DataError
from elrea.pipeline import timing
from elrea.reporting import verdict as reporting
from elrea.reporting.progress import duration
from elrea.reporting.runs import read_run, run_folders
from elrea.store.files import write_json
from tests.cli.commands import EXAM, QUIET, ROOT, Command, Ended, run
from tests.experiments.sweeps import SCORE, write_job

ROWS = 160
BUDGET = 1.5
WORDS = [*EXAM, QUIET, "data.train_per_board=80", f"verdict.budget={BUDGET}"]
CANDIDATES = ["compute_matched", "parameter_matched", "elrea", "elrea_top1", "steered"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdict")


@pytest.fixture(scope="module")
def judged(tiny: list[str], place: Path) -> Ended:
    ended = run(place, "+experiment=does_it_pay", *tiny, *WORDS)
    assert (ended.code, ended.err) == (0, "")
    return ended


def verdict(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ended.folder / "out" / "verdict.json").read_text())
    return found


def test_it_spends_what_it_says(judged: Ended) -> None:
    """Against the examples that every training and every pass of features has really seen, as its log counts them."""
    found = verdict(judged)
    assert found["spent"] <= BUDGET
    parts = judged.out.split("\nPart ")[1:]
    for text, part in zip(parts, found["parts"], strict=True):
        seen = {"train": 0, "features, train": 0}
        for kind, name, count in re.findall(r"(features, train|train) ([\w-]+): ([\d,]+) ", text):
            seen[kind] += int(count.replace(",", "")) * (name != "on")
        # Base 2, experts 1, both controls 3, the steered one's 1 and 3; gradients of 2 checkpoints and of 1.
        assert seen == {"train": 13 * part["rows"], "features, train": 3 * part["rows"]}
    rows = [part["rows"] for part in found["parts"]]
    assert rows == sorted(rows) and rows[2] <= ROWS / 2
    assert found["candidates"]["elrea"]["cost"] == pytest.approx(1.0)
    # 3 passes of 3 and 2 of the prompts, which are nearly all of the text.
    assert 0.6 < found["candidates"]["parameter_matched"]["cost"] < 0.65


def test_parts_are_runs_on_nested_examples(judged: Ended) -> None:
    for number, part in enumerate(verdict(judged)["parts"]):
        folder = judged.folder / "out" / str(number)
        data = load_config(folder / "config.yaml")["data"]
        assert (data["rows"], data["of"]["train_per_board"]) == (part["rows"], 80)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["examples"]["train"] == part["rows"]
        assert "scored on dev" in summary["data"] and summary["examples"]["test"] == 8
        assert json.loads((folder / "status.json").read_text())["state"] == "done"


def test_the_lines_go_through_the_runs_scores(judged: Ended) -> None:
    found = verdict(judged)
    assert list(found["candidates"]) == CANDIDATES
    x = np.log2([part["rows"] / ROWS for part in found["parts"]])
    for name, one in found["candidates"].items():
        right, losses = [], []
        for number in range(3):
            path = judged.folder / "out" / str(number) / "predictions.jsonl"
            rows = [json.loads(line)["strategies"][name] for line in path.read_text().splitlines()]
            right.append(np.mean([row["correct"] for row in rows]))
            losses.append(np.mean([row["loss"] for row in rows]))
        for measure, values in (("accuracy", right), ("loss", losses)):
            slope, full = np.polyfit(x, values, 1)
            assert one[measure]["means"] == pytest.approx(values, abs=1e-6)
            assert one[measure]["full"] == pytest.approx(full, abs=1e-5)
            assert one[measure]["per_doubling"] == pytest.approx(slope, abs=1e-5)


def test_the_report_has_the_verdict_and_its_pictures(judged: Ended) -> None:
    page = (judged.folder / "out" / "report.html").read_text()
    found = verdict(judged)
    assert "Verdict: " in judged.out and found["accuracy"]["pick"] in page
    assert page.count("data:image/png;base64,") == 2
    assert f"Spent: {found['spent']:.3f} of a full ELREA run" in page
    assert '<a href="0/report.html">' in page
    assert "<script" not in page


def test_it_has_no_answers_of_its_own(judged: Ended) -> None:
    """So that a sweep of verdicts leaves their intervals out, and compares take the parts."""
    folder = judged.folder / "out"
    with pytest.raises(DataError, match=r"predictions.jsonl: not there"):
        read_run(folder)
    assert [path.name for path in run_folders([folder])[0]] == ["0", "1", "2"]


def test_the_same_command_resumes(judged: Ended, tiny: list[str]) -> None:
    before = verdict(judged)
    last = judged.folder / "out" / "2" / "status.json"
    last.write_text(last.read_text().replace('"done"', '"stopped"'))
    again = run(judged.folder, "+experiment=does_it_pay", *tiny, *WORDS)
    assert (again.code, again.err) == (0, "")
    assert again.out.count("is done already") == 2
    assert " train base" not in again.out and "to do" not in again.out
    assert verdict(again)["accuracy"] == before["accuracy"]


def _known_speed() -> None:
    def measure(*given: Any, **_more: Any) -> None:
        write_json(given[-1] / timing.RATES, {"train": 0.01, "score": 0.002})

    timing.measure = measure


def test_a_plan_says_the_time_and_writes_nothing(
    judged: Ended, tiny: list[str], tmp_path: Path
) -> None:
    """As if each token of a pass took 10 ms to train on, and with each member 2 ms to score."""
    words = ["+experiment=does_it_pay", *tiny, *WORDS, "plan=true"]
    ended = Command(tmp_path, *words, before=_known_speed).wait()
    assert (ended.code, ended.err) == (0, "")
    assert "To spend: 1.4" in ended.out
    found = verdict(judged)
    training = 0.01 * found["spent"] * found["elrea_passes_x_tokens"]
    assert f"time: about {duration(training)} of training and " in " ".join(ended.out.split())
    assert re.search(r"of training and \S+ \S+ for dev, by measured", " ".join(ended.out.split()))
    ended = Command(tmp_path, *words, "clustering.k=auto", before=_known_speed).wait()
    assert (ended.code, ended.err) == (0, "")
    assert "for dev it is not known" in " ".join(ended.out.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verdict.budget=0.5"], "fewer than 4 for each of 2 clusters; say verdict.budget="),
        (["verdict.fractions=[0.5,0.25,0.125]"], "must rise, since each is a part of the next"),
        (["verdict.fractions=[0.125,0.25,0.5]"], "more than verdict.budget=1.5; say verdict.budget="),
        (["evaluation.split=test"], "must not look at test: say evaluation.split=dev"),
        (["data.dev_per_board=0"], "has no dev examples; say data.dev_per_board=<number of questions>"),
        (["evaluation.strategies=[base]"], "needs two candidates besides base and backbone"),
        (["until=clusters"], "a verdict has no stages of its own"),
        (["verdict.measures=loss"], "verdict.measures"),
    ],
)  # fmt: skip
def test_what_is_refused(words: list[str], said: str, tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, "+experiment=does_it_pay", *tiny, *WORDS, *words)
    assert said in ended.error
    assert not (tmp_path / ".elrea").exists() and not (tmp_path / "out").exists()


def test_wrong_settings_are_refused_before_torch_is_imported() -> None:
    script = (
        "import sys; from omegaconf import OmegaConf; from elrea.commands.jobs.verdict import settings_of\n"
        "node = {'_target_': 'elrea.evaluation.verdict.Verdict', 'budget': 0.0}\n"
        "cfg = OmegaConf.create({'verdict': node, 'evaluation': {'split': 'dev'}, 'until': None})\n"
        "try: settings_of(cfg)\n"
        "except Exception as error: print(error)\n"
        "print(sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "verdict.budget=0.0: must be above 0, and finite\n[]\n"


def test_the_loss_that_decides_is_of_plain_text_too(tmp_path: Path) -> None:
    """Beside items with a right answer it is no item, but its loss is why the loss decides."""

    def row(name: str, correct: bool | None, loss: float) -> dict[str, Any]:
        return {
            "id": name,
            "answer": "x",
            "strategies": {"elrea": {"correct": correct, "loss": loss}},
        }

    rows = [row("b", None, 4.0), row("a", True, 1.0)]
    job = write_job(tmp_path, 0, rows[1:], {"strategies": {"elrea": SCORE | {"accuracy": 1.0}}})
    (job / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    found = reporting._scores([read_run(job)], ["elrea"])
    assert found["accuracy"].tolist() == [[[1.0]]] and found["loss"].tolist() == [[[1.0, 4.0]]]
