"""Training shared by several processes of one machine: `train_adapter`, by all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from elrea.data.prompts import Encoded
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.log import SILENT, Task
from elrea.models.lora import Lora, attach, load
from elrea.models.processes import Member, launch
from elrea.models.training.settings import Recipe
from elrea.models.training.train import train_adapter

if TYPE_CHECKING:
    from peft import PeftModel


class Fitting(Protocol):
    """What must suit the model, and says so before anything is trained."""

    def fits(self, model: PeftModel) -> None: ...


@dataclass(frozen=True)
class Work:
    """All that a process needs to train with the others."""

    folder: Path
    """Where the adapter goes, as for `train_adapter`."""
    encoded: Sequence[Encoded]
    recipe: Recipe
    backbone: Pretrained
    """Each process loads it for itself."""
    lora: Lora
    seed: int
    stage: str
    start: Path | None
    """The adapter's folder to start from; None draws a fresh one."""
    keep_moments: bool
    device: Device
    """`devices` of it: so many processes."""
    fitting: Sequence[Fitting] = ()
    dev: Sequence[Encoded] = ()
    """As for `train_adapter`."""


def train_shares(work: Work, task: Task = SILENT) -> None:
    """Trains one adapter by `work.device.devices` processes, to the adapter of one (but for rounding, and dropout).

    Args:
        work: What to do.
        task: As for `train_adapter`; told a few times a second.

    Raises:
        ElreaError: What one of the processes raised; the others are stopped.
        OSError: Likewise.
    """
    launch(work.device, partial(_share, work), task)


def _share(work: Work, member: Member, task: Task) -> None:
    """One process's part."""
    sharded = work.device.strategy == "sharded"
    where, pretrained = member.device, work.backbone
    if sharded:  # what is to be cut up is loaded where there is room for the whole
        if pretrained.dtype == "auto" and where.resolve() == "cuda":
            pretrained = replace(pretrained, dtype="bfloat16")
        where = replace(where, accelerator="cpu")
    backbone = pretrained.load(where)
    model = attach(backbone.model, work.lora, work.seed)
    for part in work.fitting:
        part.fits(model)
    trainer = {**member.device.lightning(), "strategy": work.device.strategy}
    train_adapter(
        model, work.encoded, work.recipe, pad_id=backbone.pad_id, lora=work.lora, base_name=backbone.name,
        seed=work.seed, stage=work.stage, folder=work.folder, start=load(work.start)[0] if work.start else None,
        keep_moments=work.keep_moments, trainer=trainer, dev=work.dev, task=task,
    )  # fmt: skip
