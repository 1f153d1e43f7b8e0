"""Extraction shared by several processes of one machine, each with a device of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from elrea.data.prompts import Encoded
from elrea.method.features.protocol import Advance, Features
from elrea.method.features.to_disk import stream
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.log import OnlyProgress, Task
from elrea.models.lora import Lora, attach
from elrea.models.processes import Member, launch


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
    launch(work.device, partial(_share, work), OnlyProgress(advance))


def _share(work: Work, member: Member, task: Task) -> None:
    """One process's part."""
    backbone = work.backbone.load(member.device)
    model = attach(backbone.model, work.lora, work.seed)
    reader = work.features.reader(model, work.checkpoints, backbone.pad_id, backbone.tokenizer)
    share = (member.rank, member.size)
    stream(work.folder, work.prompts, work.features, reader, share=share, advance=task.advance)
