"""Computes the features of many prompts with several processes of one machine, each on its own device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from elrea.data.prompts import Encoded
from elrea.method.features.base import Advance, Features
from elrea.method.features.to_disk import stream
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.log import OnlyProgress, Task
from elrea.models.lora import attach
from elrea.models.processes import Rank, launch


@dataclass(frozen=True)
class ExtractionTask:
    """The inputs of every process: small, except for the prompts."""

    folder: Path
    """Where to write, as for `stream`."""
    prompts: Sequence[Encoded]
    features: Features
    backbone: Pretrained
    """Loaded by each process."""
    lora: Lora
    """The base adapter's shape."""
    checkpoints: Sequence[Path]
    """One folder per epoch with the base adapter and Adam's moments."""
    device: Device
    """Its `devices` is the number of processes."""
    seed: int


def stream_shares(work: ExtractionTask, advance: Advance) -> None:
    """Writes every prompt's feature with `work.device.devices` processes: the same bytes as `stream` in one process.

    On CPUs this holds for equal numbers of threads per process; another number may round a last digit differently.

    Args:
        work: The inputs of every process.
        advance: Called from time to time with the number of finished passes over one prompt, of all processes together.

    Raises:
        ElreaError: Raised by one of the processes; the others are stopped.
        OSError, MemoryError: Likewise.
    """
    launch(work.device, partial(_share, work), OnlyProgress(advance))


def _share(work: ExtractionTask, rank: Rank, task: Task) -> None:
    """Computes one process' share."""
    backbone = work.backbone.load(rank.device)
    model = attach(backbone.model, work.lora, work.seed)
    reader = work.features.reader(model, work.checkpoints, backbone.pad_id, backbone.tokenizer)
    share = (rank.number, rank.size)
    stream(work.folder, work.prompts, work.features, reader, share=share, advance=task.advance)
