"""Every training step reports its loss at once, and curve.json grows while an adapter trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from elrea.models.training import curve
from elrea.models.training.early_stop import DEV_LOSS, best_epoch
from elrea.store.files import read_json
from tests.models.builders import Recorder, train
from tests.models.test_early_stop import LONG
from tests.models.test_resume import LORA, Died


class Reader(Recorder):
    """Notes after each step how many rows curve.json has; raises after a given number of steps."""

    def __init__(self, folder: Path, steps: int | None = None) -> None:
        super().__init__()
        self.path = folder / "curve.json"
        self.steps = steps
        self.lengths: list[int] = []

    def step(self, row: Mapping[str, Any]) -> None:
        super().step(row)
        self.lengths.append(len(read_json(self.path)))
        if len(self.rows) == self.steps:
            raise Died


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two writes."""
    monkeypatch.setattr(curve, "INTERVAL", 0.0)
    monkeypatch.setattr(curve, "SHARE", float("inf"))


@pytest.mark.usefixtures("every_step")
def test_the_curve_grows_while_it_trains(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    train(tmp_path, task=reader)
    assert reader.lengths == list(range(1, 10)), "each row is on disk when its step is reported"
    assert reader.counts == [4, 4, 2] * 3
    assert reader.rows == read_json(tmp_path / "curve.json")


def test_it_is_written_every_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ticks 0.9 s at every look: one look a step, two more for a write."""
    ticks = iter(range(1000))
    monkeypatch.setattr(curve, "SHARE", 1.0)
    monkeypatch.setattr(curve, "monotonic", lambda: 0.9 * next(ticks))
    reader = Reader(tmp_path)
    train(tmp_path, task=reader)
    assert reader.lengths == [1, 1, 1, 4, 4, 4, 7, 7, 7]
    assert len(read_json(tmp_path / "curve.json")) == 9


@pytest.mark.usefixtures("every_step")
def test_a_resumed_run_reports_the_rows_of_its_checkpoint_first(tmp_path: Path) -> None:
    with pytest.raises(Died):  # after step 5; the last checkpoint is step 3, at the end of epoch 1
        train(tmp_path, lora=LORA, task=Reader(tmp_path, 5))
    assert len(read_json(tmp_path / "curve.json")) == 5
    reader = Reader(tmp_path)
    train(tmp_path, lora=LORA, task=reader)
    assert reader.lengths == [3, 3, 3, *range(4, 10)], "what the killed run did later is gone"
    assert reader.counts == [10, 4, 4, 2, 4, 4, 2], "the examples of steps 1 to 3 at once"
    assert reader.rows == read_json(tmp_path / "curve.json")
    assert [row["step"] for row in reader.rows] == list(range(1, 10))


def test_a_finished_training_reports_all_rows_again(tmp_path: Path) -> None:
    train(tmp_path)
    again = Recorder()
    train(tmp_path, task=again)
    assert again.counts == [30] and again.rows == read_json(tmp_path / "curve.json")


def test_with_early_stop_the_loss_on_dev_is_in_the_reported_row(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    train(tmp_path, **LONG, task=reader)
    assert reader.rows == read_json(tmp_path / "curve.json")
    last = reader.rows[-1]["epoch"]
    assert last == best_epoch(reader.rows) + 2
    assert sum(DEV_LOSS in row for row in reader.rows) == last
