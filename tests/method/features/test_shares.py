"""Features by several processes: the bytes of one, errors in one line, nothing left running."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from elrea.errors import BackboneError, ConfigError
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.parallel import ExtractionTask, stream_shares
from elrea.method.features.projection import Rademacher
from elrea.method.features.to_disk import cut, stream
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.log import SILENT
from elrea.models.lora import attach
from elrea.models.processes import Rank, launch
from elrea.models.training.train import epoch_folders
from tests.method.features import by_hand
from tests.models.builders import train

pytestmark = pytest.mark.usefixtures("forked")
LORA = Lora(r=2)
COUNT = 700
FILES = ("features.safetensors", "ids.json", "skipped.json")


@pytest.fixture(scope="module")
def work(tmp_path_factory, small_model: Path) -> ExtractionTask:
    """Prompts in three chunks, a backbone in a folder, and two epochs of an adapter on it."""
    place = tmp_path_factory.mktemp("shares")
    backbone, device = Pretrained(name=str(small_model)), Device("cpu", threads=1, devices=2)
    train(place / "base", "llama", lora=LORA, epochs=2)
    prompts, features = by_hand.prompts(COUNT), GradientFeatures(Rademacher(d=32))
    assert len(cut(prompts, features, 32)) == 3
    folders = epoch_folders(place / "base")
    return ExtractionTask(
        place / "features", prompts, features, backbone, LORA, folders, device, seed=0
    )


def test_two_processes_make_the_bytes_of_one(work: ExtractionTask, tmp_path: Path) -> None:
    told: list[int] = []
    stream_shares(replace(work, folder=tmp_path / "two"), told.append)
    assert sum(told) == COUNT * 2, "every prompt, at both epochs"
    notes = {path.name for path in (tmp_path / "two" / "checkpoint").iterdir()}
    assert {"extract.json", "extract-1.json"} <= notes, "both had a share"
    backbone = work.backbone.load(work.device)
    reader = work.features.reader(
        attach(backbone.model, LORA, 0), work.checkpoints, backbone.pad_id
    )
    stream(tmp_path / "one", work.prompts, work.features, reader)
    for name in FILES:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_what_goes_wrong_in_a_process_is_one_line_here(
    work: ExtractionTask, tmp_path: Path
) -> None:
    away = replace(work.backbone, name=str(tmp_path / "no such model"))
    with pytest.raises(BackboneError, match="no such model"):
        stream_shares(replace(work, folder=tmp_path / "f", backbone=away), lambda _n: None)
    assert not multiprocessing.active_children()


def test_more_devices_than_there_are_is_an_error_of_one_line(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert Device(devices=2).resolve() == "cuda"
    with pytest.raises(ConfigError, match=r"trainer\.devices=3: torch finds 2 here"):
        Device(devices=3).resolve()


def test_the_processes_of_a_killed_run_end(work: ExtractionTask, tmp_path: Path) -> None:
    """Each waits for the other, as in a sum of gradients; nobody comes to end them."""
    context = multiprocessing.get_context("forkserver")
    ids = context.SimpleQueue()
    parent = context.Process(target=_launch_and_wait, args=(work.device, ids))
    parent.start()
    children = [ids.get(), ids.get()]
    parent.kill()
    parent.join()
    until = time.monotonic() + 30
    while any(_runs(child) for child in children):
        assert time.monotonic() < until, "they still run"
        time.sleep(0.05)


def _launch_and_wait(device: Device, ids: Any) -> None:
    launch(device, partial(_wait, ids), SILENT)


def _wait(ids: Any, _rank: Rank, _task: Any) -> None:
    ids.put(os.getpid())
    time.sleep(600)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
