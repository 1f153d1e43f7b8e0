"""The folders of runs: hydra.job.chdir, plans and refusals that leave nothing, and lines that fit the screen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.commands import QUIET, TINY, Ended, run

NAMED = [word for word in TINY if not word.startswith("hydra.run.dir")]
"""The words of a small run in the default folder, outputs/<day>/<time>."""


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and test.jsonl, to be named by relative paths."""
    folder = tmp_path_factory.mktemp("own")
    for name, start, count in (("train", 0, 16), ("test", 100, 6)):
        rows = [
            {"instruction": f"Say {i}.", "response": f"{i}"} for i in range(start, start + count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def words_of(small_model: Path) -> list[str]:
    return [
        *NAMED, "data=jsonl", "data.train=train.jsonl", "data.test=[test.jsonl]", "clustering.k=2",
        "clustering.min_size=1", f"backbone.name={small_model}", "store=shared", QUIET,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def plain(own_data: Path, small_model: Path) -> Ended:
    """A run with relative paths, without hydra.job.chdir."""
    return run(own_data, *words_of(small_model))


def runs_of(folder: Path, pattern: str) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"{pattern}/summary.json"))


@pytest.mark.parametrize("many", [False, True])
def test_chdir_keeps_store_data_and_folders(
    many: bool, plain: Ended, own_data: Path, small_model: Path
) -> None:
    """Every stage is found in the store of the run before it, and nothing is written into a wrong folder."""
    assert (plain.code, plain.err) == (0, "")
    (first,) = runs_of(own_data, "outputs/*/*")
    words = [*words_of(small_model), "hydra.job.chdir=true"]
    words = ["-m", *words, "seed=0,1"] if many else [*words, "hydra.run.dir=there/once"]
    ended = run(own_data, *words)
    assert (ended.code, ended.err) == (0, "")
    found = runs_of(own_data, "multirun/*/*/*" if many else "there/once")
    assert len(found) == (2 if many else 1)
    for folder in found:
        assert (folder / "predictions.jsonl").is_file() and not (folder / "shared").exists()
        assert not (folder / "out").exists() and not (folder / "multirun").exists()
    one, again = (json.loads((folder / "summary.json").read_text()) for folder in (first, found[0]))
    assert all(stage["reused"] for stage in again["stages"].values())
    assert again["strategies"] == one["strategies"]
    shown = found[0].relative_to(own_data)
    assert f"Everything is in {shown}\n" in ended.out
    assert {path.name for path in own_data.iterdir()} <= {
        "train.jsonl", "test.jsonl", "shared", "outputs", "there", "multirun", "stdout", "stderr",
    }  # fmt: skip


def left(folder: Path) -> set[str]:
    """Everything in a folder but the output of the command."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return paths - {"stdout", "stderr"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan=true"], 0),
        (["clustering.k=99", "clustering.min_size=1"], 1),
        (["data.boards=99"], 1),
        (["until=experts"], 1),
        (["-m", "plan=true", "seed=0,1"], 0),
        (["-m", "plan=true", "data.boards=2,99"], 1),
        (["-m", "data=exams", "seed=0,1"], 1),
    ],
)
def test_plans_and_refusals_leave_nothing(
    words: list[str], code: int, tiny: list[str], tmp_path: Path
) -> None:
    given = [word for word in tiny if not word.startswith("hydra.run.dir")]
    small = ["data.boards=2", "data.train_per_board=16", "data.test_per_board=6"]
    many = words[0] == "-m"
    words = [*given, *small, "store=made/store", QUIET, *words[many:]]
    ended = run(tmp_path, *["-m"] * many, *words)
    assert ended.code == code, ended
    # A plan keeps the steps that it has measured, for the next one.
    assert {path for path in left(tmp_path) if not path.startswith("made")} == set()


def test_a_refusal_or_a_plan_leaves_an_older_run_valid(
    plain: Ended, own_data: Path, small_model: Path
) -> None:
    assert plain.code == 0
    (first,) = runs_of(own_data, "outputs/*/*")
    before = (first / "status.json").read_text()
    there = f"hydra.run.dir={first.relative_to(own_data)}"
    for word in ("plan=true", "clustering.k=99"):
        run(own_data, *words_of(small_model), there, word)
        assert (first / "status.json").read_text() == before
    assert json.loads(before)["state"] == "done"


def test_a_folder_that_was_there_is_kept(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert run(tmp_path, *tiny, "hydra.run.dir=mine/new", "plan=true", QUIET).code == 0
    assert {path for path in left(tmp_path) if not path.startswith(".elrea")} == {"mine"}


def test_a_device_that_is_not_here_is_refused_before_the_plan(
    tiny: list[str], tmp_path: Path
) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("there is an MPS device")
    for_mps = [*tiny, "trainer.accelerator=mps", QUIET]
    ended = run(tmp_path, *for_mps)
    assert ended.error == "trainer.accelerator=mps: torch finds none here; say cpu or auto"
    assert ended.out == ""
    planned = run(tmp_path, *for_mps, "plan=true")  # for the machine that has one
    assert planned.code == 0 and "memory, training" in planned.out
    assert "Not on this machine: trainer.accelerator=mps: torch finds none here" in planned.out


def test_no_line_is_longer_than_the_screen(plain: Ended, tmp_path: Path) -> None:
    assert max(map(len, plain.out.splitlines())) <= 100
    help_text = run(tmp_path, "--help").out
    assert max(map(len, help_text.splitlines())) <= 100
    assert re.search(r"^ensemble: .*,\n(    .*\n)*    .*uniform$", help_text, re.MULTILINE)
