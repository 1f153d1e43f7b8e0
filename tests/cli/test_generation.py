"""Runs that are scored by what strategies write: whole, killed, and with what cannot be."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from elrea.evaluation.similarity import MEASURES
from tests.cli.commands import EXAM, QUIET, Command, Ended, run

NAMES = ["backbone", "base", "elrea", "moe_routing", "self_consistency", "oracle"]
WORDS = [
    QUIET, "evaluation.by=generation", "evaluation.max_new_tokens=24", "evaluation.batch_size=2",
    f"evaluation.strategies=[{','.join(NAMES)}]",
]  # fmt: skip


def predictions(ended: Ended) -> list[dict[str, Any]]:
    lines = (ended.folder / "out" / "predictions.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def without_stages(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name != "stages"}


@pytest.fixture(scope="module")
def written(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return run(tmp_path_factory.mktemp("written"), *tiny, *EXAM, *WORDS, plots=True)


def test_texts_and_what_was_read_out_of_them(written: Ended) -> None:
    assert (written.code, written.err) == (0, "")
    summary, rows = written.summary["strategies"], predictions(written)
    assert list(summary) == NAMES or sorted(summary) == sorted(NAMES)
    total = 0
    for name, row in summary.items():
        each = [line["strategies"][name] for line in rows]
        assert row["unparsed"] == sum(one["extracted"] is None for one in each)
        assert row["accuracy"] == pytest.approx(sum(one["correct"] for one in each) / 12, abs=1e-6)
        assert row["loss"] is None and not any(
            one["correct"] for one in each if one["extracted"] is None
        )
        assert all(isinstance(one["text"], str) for one in each)
        assert all(one["extracted"] in (None, *"ABCD") for one in each)
        assert all("letter" in one["why"] for one in each) and "free_text" not in row
        total += row["unparsed"]
    assert total > 0, "a model that knows nothing writes nothing that can be read"
    assert "Texts without an answer count as wrong" in written.out
    assert summary["self_consistency"]["forward_passes"] == 5
    texts = [[line["strategies"][name]["text"] for line in rows] for name in NAMES]
    assert texts[0] != texts[1] != texts[2]


def test_killed_it_goes_on_behind_the_last_batch(
    written: Ended, tiny: list[str], tmp_path: Path
) -> None:
    def begun() -> bool:
        files = list((tmp_path / ".elrea" / "answers").glob("*.partial/texts.jsonl"))
        return any(path.read_bytes().count(b"\n") >= 4 for path in files)

    killed = Command(tmp_path, *tiny, *EXAM, *WORDS).signal_when(begun, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    (left,) = (tmp_path / ".elrea" / "answers").glob("*.partial/texts.jsonl")
    before = left.read_bytes()
    again = run(tmp_path, *tiny, *EXAM, *WORDS)
    assert (again.code, again.err) == (0, "")
    kept = (left.parents[1] / left.parent.name.partition(".")[0] / "texts.jsonl").read_bytes()
    assert kept.startswith(before[: before.rfind(b"\n") + 1])
    assert without_stages(again.summary) == without_stages(written.summary)
    assert predictions(again) == predictions(written)


def test_one_strategys_texts_and_no_more(tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *tiny, *EXAM, *WORDS, "until=answers-base")
    assert (ended.code, ended.err) == (0, "")
    stages = {path.name for path in (tmp_path / ".elrea").iterdir()}
    assert "answers" in stages and "scores" not in stages
    assert len(list((tmp_path / ".elrea" / "answers").glob("*/manifest.json"))) == 1


def test_a_vote_on_free_responses(tiny: list[str], tmp_path: Path) -> None:
    """With `auto` the strategy that has nothing else to vote on writes; others are judged by likelihood."""
    lines = [{"instruction": f"Say {n}.", "response": f"{n}"} for n in range(30)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [
        *tiny, QUIET, "data=jsonl", f"data.train={tmp_path / 'mine.jsonl'}", "ensemble=self_consistency",
        "evaluation.strategies=[base]", "evaluation.max_new_tokens=4", "training.max_steps=1",
    ]  # fmt: skip
    ended = run(tmp_path, *words)
    assert (ended.code, ended.err) == (0, "")
    rows = predictions(ended)
    assert all("text" in row["strategies"]["self_consistency"] for row in rows)
    assert not any("text" in row["strategies"]["base"] for row in rows)
    losses = {n: row["loss"] for n, row in ended.summary["strategies"].items()}
    assert losses["base"] == losses["self_consistency"] is not None
    assert not any(
        "free_text" in row for n, row in ended.summary["strategies"].items() if n == "base"
    )
    voted = ended.summary["strategies"]["self_consistency"]["free_text"]
    assert voted["n"] == len(rows) and voted["f1_delta_to_base"] is None, "base wrote nothing"
    assert all(0 <= voted[name] <= 1 for name in MEASURES) and "Free responses" in ended.out
    refused = run(tmp_path, *words, "evaluation.by=likelihood", "hydra.run.dir=other")
    assert refused.error.startswith("ensemble=self_consistency votes on given choices, and ")
    assert refused.error.endswith("evaluation.by=generation, or leave this strategy out")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("evaluation.max_new_tokens=400", "evaluation.max_new_tokens=400 leaves no room for a prompt in the 400"),
        ("evaluation.max_new_tokens=0", "evaluation.max_new_tokens=0: must be at least 1"),
        ("evaluation.by=text", "evaluation.by: wants 'auto' or 'likelihood' or 'generation', not 'text'"),
        ("evaluation.stop=['']", "evaluation.stop: an empty text would end every text at once"),
    ],
)  # fmt: skip
def test_what_cannot_be_written(word: str, line: str, tiny: list[str], tmp_path: Path) -> None:
    ended = run(
        tmp_path, *tiny, *EXAM, *WORDS, "evaluation.strategies=[base]", "ensemble=base", word
    )
    assert ended.error.startswith(line)
    assert not (tmp_path / ".elrea" / "base").exists(), "said before anything is trained"
