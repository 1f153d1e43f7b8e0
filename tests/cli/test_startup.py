"""What is wrong with a command is said before the libraries are imported that only a run needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import ROOT

SLOW = {
    "transformers", "peft", "pytorch_lightning", "lightning_fabric", "faiss", "sklearn", "scipy", "matplotlib", "wandb",
    "datasets", "pandas",
}  # fmt: skip
"""Libraries that take seconds to import, besides torch."""

SCRIPT = f"""
import atexit, runpy, sys

def loaded():
    print(*sorted({SLOW | {"torch"}!r} & set(sys.modules)))

atexit.register(loaded)
sys.argv = [{str(ROOT / "run.py")!r}, *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def refused(folder: Path, *words: str) -> tuple[str, set[str]]:
    """The one line of a refusal, and the slow libraries that it had imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "+experiment=elrea_mmlu", *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: "), done
    assert len(done.stderr.splitlines()) == 1
    return done.stderr, set(done.stdout.split())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data=exams", "did you mean exam?"),
        ("trainin.epochs=2", "did you mean"),
        ("adapter.r=0", "adapter.r=0"),
        ("training.epochs=0", "training.epochs=0"),
        ("training.epochs=two", "training.epochs"),
        ("trainer.precision=half", "precision"),
        ("clustering.k=many", "clustering.k"),
        ("evaluation.resamples=-1", "resamples"),
        ("tracking.mode=maybe", "tracking.mode"),
        ("seed=-1", "seed=-1"),
        ("data.boards=99", "boards"),
    ],
)
def test_most_refusals_need_no_torch(word: str, said: str, tmp_path: Path) -> None:
    line, loaded = refused(tmp_path, word)
    assert said in line and not loaded


def test_a_missing_file_needs_no_torch(tmp_path: Path) -> None:
    line, loaded = refused(tmp_path, "data=jsonl", "data.train=nowhere.jsonl")
    assert "nowhere.jsonl" in line and not loaded


@pytest.mark.parametrize(
    "word",
    ["features.form=adamw", "routing.temperature=0", "ensemble=elrea_top3 ensemble.top_k=0"],
)  # fmt: skip
def test_a_wrong_value_of_the_method_needs_torch_alone(word: str, tmp_path: Path) -> None:
    _, loaded = refused(tmp_path, *word.split())
    assert loaded <= {"torch"}
