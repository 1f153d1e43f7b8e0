"""Several processes train one adapter in the steps of one process, and resume after a kill."""

from __future__ import annotations

import multiprocessing
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor

from elrea.errors import ElreaError, TrainingError
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.log import OnlyProgress, Task
from elrea.models.lora import load
from elrea.models.processes import Rank, launch
from elrea.models.training.moments import Moments
from elrea.models.training.parallel import TrainingTask, train_shares
from elrea.models.training.settings import Recipe, Training
from elrea.pipeline.run import memory_explained
from elrea.pipeline.steps.adapters import BaseAdapter
from elrea.store.files import read_json
from tests.models.builders import BUILDERS, Recorder, contents, examples, train
from tests.pipeline.test_memory_advice import blank

pytestmark = pytest.mark.usefixtures("forked")
TWO = Device("cpu", threads=1, devices=2)
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"batch_size": 1, "accumulate": 4},
    "uneven": {"batch_size": 3},  # 10 examples: the last step has one, and the second process none
    "clipped": {"clip": 0.1, "kind": "gemma2"},
}


def _all(place: Path, rank: Rank, task: Task) -> None:
    """One of two processes, for all tests: starting processes takes longer than the training."""

    def run(name: str, strategy: str, **given: Any) -> PeftModel:
        trainer = {"accelerator": "cpu", "strategy": strategy}
        model: PeftModel = train(place / name, trainer=trainer, **given)
        return model

    for name, settings in SETTINGS.items():
        run(f"ddp-{name}", "ddp", **settings)
        run(f"sharded-{name}", "sharded", **settings)
    broken = place / "broken"

    def copy(_: int) -> None:
        if (folder := place / "unbroken" / "checkpoint" / "step_00000005").exists():
            shutil.copytree(folder, broken / "checkpoint" / folder.name, dirs_exist_ok=True)
            shutil.copytree(place / "unbroken" / "epoch_1", broken / "epoch_1", dirs_exist_ok=True)

    run(
        "unbroken",
        "ddp",
        checkpoint_minutes=0,
        lora=Lora(r=2, dropout=0.2),
        task=OnlyProgress(copy),
    )
    torch.distributed.barrier()
    run("broken", "ddp", lora=Lora(r=2, dropout=0.2), task=task)
    model = run("parts", "sharded")
    held = [p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor)]
    whole = sum(p.numel() for p in BUILDERS["llama"]().parameters())
    (place / f"share-{rank.number}").write_text(f"{sum(held)} {whole}", encoding="utf-8")


@pytest.fixture(scope="module")
def place(forked: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("together")
    recorder = Recorder()
    launch(TWO, partial(_all, folder), recorder)
    assert sum(recorder.counts) == 30, "10 examples, 3 epochs, those before the kill in one report"
    assert recorder.rows == read_json(folder / "broken" / "curve.json")
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_take_the_steps_of_one(
    place: Path, tmp_path: Path, name: str, strategy: str
) -> None:
    train(tmp_path, **SETTINGS[name])
    folder = place / f"{strategy}-{name}"
    assert contents(tmp_path).keys() == contents(folder).keys()
    mine, theirs = (read_json(path / "curve.json") for path in (tmp_path, folder))
    assert len(mine) == len(theirs) and mine[-1]["loss"] < mine[0]["loss"]
    for a, b in zip(mine, theirs, strict=True):
        assert b.pop("loss") == pytest.approx(a.pop("loss"), rel=1e-4)
        assert a == b
    one, two = load(tmp_path / "adapter")[0], load(folder / "adapter")[0]
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-5)
    one_m, two_m = (Moments.load(path / "epoch_2") for path in (tmp_path, folder))
    for key, tensor in one_m.exp_avg.items():
        torch.testing.assert_close(two_m.exp_avg[key], tensor, rtol=1e-3, atol=1e-6)


def test_a_killed_run_of_two_processes_resumes_bit_for_bit(place: Path) -> None:
    assert contents(place / "broken") == contents(place / "unbroken")


def test_each_process_holds_a_part_of_the_backbone(place: Path) -> None:
    parts = [(place / f"share-{rank}").read_text(encoding="utf-8").split() for rank in (0, 1)]
    whole = int(parts[0][1])
    assert sum(int(held) for held, _ in parts) == whole
    assert max(int(held) for held, _ in parts) < 0.6 * whole


def _short_of_memory(error: Exception, member: Rank, task: Task) -> None:
    """One process has too little memory, and the other waits for it."""
    if member.number == 1:
        raise error
    torch.distributed.barrier()


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_process_without_memory_ends_in_the_advice_of_one_line(error: Exception) -> None:
    advice = blank(BaseAdapter)
    with (
        pytest.raises(ElreaError, match=r"^base: out of memory; lower .*recompute=true") as caught,
        memory_explained("base", advice),
    ):
        launch(TWO, partial(_short_of_memory, error), Recorder())
    assert len(str(caught.value).splitlines()) == 1
    assert not multiprocessing.active_children()


def test_an_error_in_a_process_is_raised_here(tmp_path: Path, small_model: Path) -> None:
    training = Training(learning_rate=1e30, batch_size=4)
    backbone = Pretrained(name=str(small_model))
    recipe, lora = Recipe(3, 1e30, training), Lora(r=2, dropout=0.0)
    work = TrainingTask(tmp_path, examples(10), recipe, backbone, lora, 3, "base", None, True, TWO)
    with pytest.raises(TrainingError, match=r"base: the loss is \w+ at step"):
        train_shares(work)
    assert not multiprocessing.active_children()
