"""Extraction shared by several processes of one machine, each with a device of its own, by Lightning's launcher."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessExitedException

from elrea.adapters.lora import Lora, attach
from elrea.adapters.quiet import quiet
from elrea.backbone.device import Device
from elrea.backbone.load import Pretrained
from elrea.data.prompts import Encoded
from elrea.errors import ElreaError
from elrea.features.reader import Advance, Features
from elrea.features.stream import stream

LOOK = 0.2
"""Seconds between two looks at how far the processes are."""


@dataclass(frozen=True)
class Work:
    """All that a process needs to take its share of the features: small, but for the prompts."""

    folder: Path
    """Where the features go, as for `stream`."""
    prompts: Sequence[Encoded]
    features: Features
    backbone: Pretrained
    """Each process loads it for itself."""
    lora: Lora
    """The base adapter's shape."""
    checkpoints: Sequence[Path]
    """One folder per epoch with the base adapter and Adam's moments."""
    device: Device
    """`devices` of it: so many processes."""
    seed: int


class Quiet(DDPStrategy):
    """Says nothing of processes that find each other."""

    def setup_environment(self) -> None:
        with quiet():
            super().setup_environment()


def stream_shares(work: Work, advance: Advance) -> None:
    """Writes every prompt's feature by `work.device.devices` processes: the bytes that `stream` alone writes.

    (On CPUs: with as many threads per process. Another number of threads may round a last digit otherwise.)

    Args:
        work: What to do.
        advance: Told now and then how many passes over one prompt all processes have done.

    Raises:
        ElreaError: What one of the processes raised; the others are stopped.
        OSError: Likewise.
    """
    context = multiprocessing.get_context("spawn")
    done, errors = context.Value("q", 0), context.SimpleQueue()
    fabric = Fabric(
        accelerator=work.device.lightning()["accelerator"],
        devices=work.device.devices,
        strategy=Quiet(start_method="spawn"),
        plugins=[
            LightningEnvironment()
        ],  # not a scheduler's: one job may have started this process
    )
    try:
        with quiet(), _watched(done, advance):
            fabric.launch(partial(_share, work, done, errors))
    except ProcessExitedException as failure:
        if errors.empty():
            raise ElreaError(
                f"{work.folder}: a process of trainer.devices={work.device.devices} died (exit code "
                f"{failure.exit_code}); where memory is short, lower trainer.devices or features.batch_tokens"
            ) from failure
        raise errors.get() from None
    finally:
        for process in multiprocessing.active_children():  # of an interrupted run
            process.terminate()


def _share(work: Work, done: Any, errors: Any, fabric: Fabric) -> None:
    """One process's part."""
    device = replace(work.device, accelerator="cpu" if fabric.device.type == "cpu" else "auto")
    device.apply(fabric.world_size)

    def advance(count: int) -> None:
        with done.get_lock():
            done.value += count

    try:
        backbone = work.backbone.load(device)
        model = attach(backbone.model, work.lora, work.seed)
        reader = work.features.reader(model, work.checkpoints, backbone.pad_id, backbone.tokenizer)
        share = (fabric.global_rank, fabric.world_size)
        stream(work.folder, work.prompts, work.features, reader, share=share, advance=advance)
    except (ElreaError, OSError) as error:
        errors.put(error)
        os._exit(1)  # no traceback: the first process prints the line


@contextmanager
def _watched(done: Any, advance: Advance) -> Iterator[None]:
    """Passes on what the processes count."""
    over, told = threading.Event(), 0

    def look() -> None:
        nonlocal told
        while not over.wait(LOOK):
            now = done.value
            advance(now - told)
            told = now

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        advance(done.value - told)
