"""A training that dies and resumes ends like an unbroken one, bit for bit."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elrea.errors import TrainingError
from elrea.models.adapter_shape import Lora
from elrea.models.log import OnlyProgress
from elrea.models.training import checkpoint
from elrea.models.training.checkpoint import latest
from elrea.store.files import canonical, read_json, write_json
from tests.models.builders import contents, train

LORA = Lora(r=2, dropout=0.2)


class Died(Exception):
    """For whatever ends a process."""


def dying_after(steps: int) -> OnlyProgress:
    left = itertools.count(steps, -1)
    next(left)

    def count(examples: int) -> None:
        if next(left) == 0:
            raise Died

    return OnlyProgress(count)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder, lora=LORA)
    found = contents(folder)
    # two files in adapter/, four in each of three epochs (two of the moments), and the curve
    assert len(found) == 2 + 3 * 4 + 1
    return found


@pytest.mark.parametrize("steps", range(1, 10))
def test_it_resumes_from_a_checkpoint_after_any_step(
    steps: int, tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    with pytest.raises(Died):
        train(tmp_path, lora=LORA, checkpoint_minutes=0, task=dying_after(steps))
    found = latest(tmp_path / "checkpoint")
    assert found is not None and len(found.progress["curve"]) == steps
    counts: list[int] = []
    train(tmp_path, lora=LORA, task=OnlyProgress(counts.append))
    assert sum(counts) == 30  # including the steps before, which are reported first
    assert contents(tmp_path) == unbroken


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_steps_after_the_last_checkpoint_are_repeated(
    steps: int, tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    """Dies within an epoch; the only checkpoint is at the last epoch's end."""
    with pytest.raises(Died):
        train(tmp_path, lora=LORA, task=dying_after(steps))
    found = latest(tmp_path / "checkpoint")
    assert (len(found.progress["curve"]) if found else 0) == steps // 3 * 3
    train(tmp_path, lora=LORA)
    assert contents(tmp_path) == unbroken


def test_dying_again_and_again(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    for _ in range(8):  # one step each time: the first report on resuming is of the steps before
        with pytest.raises(Died):
            train(tmp_path, lora=LORA, checkpoint_minutes=0, task=dying_after(2))
    train(tmp_path, lora=LORA)
    assert contents(tmp_path) == unbroken


def test_it_resumes_between_accumulated_steps(tmp_path: Path) -> None:
    train(tmp_path / "whole", lora=LORA, batch_size=2, accumulate=2)
    with pytest.raises(Died):
        train(
            tmp_path / "cut",
            lora=LORA,
            batch_size=2,
            accumulate=2,
            checkpoint_minutes=0,
            task=dying_after(4),
        )
    train(tmp_path / "cut", lora=LORA, batch_size=2, accumulate=2)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_checkpoints_come_by_the_clock_and_at_epochs_ends(tmp_path: Path, monkeypatch) -> None:
    """The clock moves a minute each time it is read, so that 2 minutes have passed at every second step."""
    minutes = itertools.count()
    monkeypatch.setattr(checkpoint, "monotonic", lambda: 60.0 * next(minutes))
    seen: list[int] = []

    def look(examples: int) -> None:
        found = latest(tmp_path / "checkpoint")
        seen.append(len(found.progress["curve"]) if found else 0)

    train(tmp_path, lora=LORA, checkpoint_minutes=2, task=OnlyProgress(look))
    assert seen == [0, 2, 3, 3, 5, 6, 6, 8, 9]


def test_a_checkpoint_is_safetensors_and_json(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    (folder,) = (tmp_path / "checkpoint").iterdir()
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["adapter.safetensors", "optimizer.safetensors", "state.json"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 60_000  # without the backbone


def cut_short(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-50] ^= 1
    path.write_bytes(whole)


def lose_the_curve(folder: Path) -> None:
    state = read_json(folder / "state.json")
    del state["state"]["curve"]
    write_json(folder / "state.json", state)


def become_a_list(folder: Path) -> None:
    (folder / "state.json").write_text("[]")


def become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


@pytest.mark.parametrize(
    "damage", [cut_short, flip_a_bit, lose_the_curve, become_a_list, become_a_file]
)
def test_a_damaged_checkpoint_is_logged_and_not_used(
    damage: Callable[[Path], None], tmp_path: Path, unbroken: dict[str, bytes], caplog
) -> None:
    with pytest.raises(Died):
        train(tmp_path, lora=LORA, checkpoint_minutes=0, task=dying_after(5))
    damage(tmp_path / "checkpoint" / "step_00000005")
    train(tmp_path, lora=LORA)
    assert "step_00000005 is damaged" in caplog.text
    assert contents(tmp_path) == unbroken


def test_a_checkpoint_of_an_older_version_is_resumed(
    tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    """Those were Lightning's, with the state of its loops."""
    with pytest.raises(Died):
        train(tmp_path, lora=LORA, checkpoint_minutes=0, task=dying_after(5))
    path = tmp_path / "checkpoint" / "step_00000005" / "state.json"
    written = read_json(path)
    written["state"] |= {"global_step": 5, "loops": {"fit_loop": {}}, "lr_schedulers": []}
    written["own_sha256"] = hashlib.sha256(canonical(written["state"]).encode()).hexdigest()
    write_json(path, written)
    counts: list[int] = []
    train(tmp_path, lora=LORA, task=OnlyProgress(counts.append))
    assert counts == [18, 2, 4, 4, 2]
    assert contents(tmp_path) == unbroken


def test_an_unfinished_checkpoint_is_ignored(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    (tmp_path / "checkpoint" / "step_00000005.partial").mkdir(parents=True)
    assert latest(tmp_path / "checkpoint") is None
    train(tmp_path, lora=LORA)
    assert contents(tmp_path) == unbroken


@pytest.mark.parametrize("change", [{"seed": 4}, {"learning_rate": 0.01}, {"stage": "expert"}])
def test_a_checkpoint_of_other_settings_is_refused(change: dict, tmp_path: Path) -> None:
    with pytest.raises(Died):
        train(tmp_path, checkpoint_minutes=0, task=dying_after(2))
    with pytest.raises(TrainingError, match="of a training with other settings"):
        train(tmp_path, **change)


@pytest.mark.parametrize(
    "name", ["epoch_1/adapter_model.safetensors", "epoch_2/adapter_config.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_epoch_is_logged_and_trained_again(
    name: str, damage: str, tmp_path: Path, unbroken: dict[str, bytes], caplog: Any
) -> None:
    """An epoch's folder changed after a kill: features made from it would be wrong."""
    with pytest.raises(Died):
        train(tmp_path, lora=LORA, task=dying_after(8))
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "cut" else content)
    counts: list[int] = []
    train(tmp_path, lora=LORA, task=OnlyProgress(counts.append))
    assert f"{path.parent} is damaged; training resumes from before it" in caplog.text
    assert len(counts) == 9, "every step is repeated"
    assert contents(tmp_path) == unbroken
