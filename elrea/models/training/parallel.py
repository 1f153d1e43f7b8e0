"""Trains one adapter by several processes of one machine: each calls `train_adapter` with its share of every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from elrea.data.prompts import Encoded
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import Pretrained
from elrea.models.device import Device
from elrea.models.log import SILENT, Task
from elrea.models.lora import attach
from elrea.models.processes import Rank, launch
from elrea.models.start import weights
from elrea.models.training.settings import Recipe
from elrea.models.training.steering import Steering
from elrea.models.training.train import train_adapter

if TYPE_CHECKING:
    from peft import PeftModel


class Fitting(Protocol):
    """A part of the method that works with some models only."""

    def fits(self, model: PeftModel) -> None:
        """Raises ElreaError if it does not work with the model, before anything is trained."""


@dataclass(frozen=True)
class TrainingTask:
    """The arguments of a training by several processes; each gets a copy."""

    folder: Path
    """Where the adapter goes, as for `train_adapter`."""
    encoded: Sequence[Encoded]
    recipe: Recipe
    backbone: Pretrained
    """Every process loads its own."""
    lora: Lora
    seed: int
    stage: str
    start: Path | None
    """The adapter's folder to start from; None draws a fresh one."""
    keep_moments: bool
    device: Device
    """`device.devices` is the number of processes."""
    fitting: Sequence[Fitting] = ()
    dev: Sequence[Encoded] = ()
    """As for `train_adapter`."""
    steering: Steering | None = None
    """How clusters steer the adapter; None for a plain one."""
    clusters: Sequence[int] = ()
    """The cluster of each example, where clusters steer."""


def train_shares(work: TrainingTask, task: Task = SILENT) -> None:
    """Trains one adapter by `work.device.devices` processes.

    The result is that of one process, except for rounding and for the elements that dropout picks.

    Args:
        work: The arguments of `train_adapter`.
        task: As for `train_adapter`; it gets its reports a few times a second.

    Raises:
        ElreaError: The error of one of the processes; the others are stopped.
        OSError, MemoryError: Likewise.
    """
    launch(work.device, partial(_share, work), task)


def _share(work: TrainingTask, rank: Rank, task: Task) -> None:
    """One process: loads the backbone and trains."""
    sharded = work.device.strategy == "sharded"
    where, pretrained = rank.device, work.backbone
    if sharded:  # load the whole backbone where there is room for it; training moves this process's part to its device
        if pretrained.dtype == "auto" and where.resolve() == "cuda":
            pretrained = replace(pretrained, dtype="bfloat16")
        where = replace(where, accelerator="cpu")
    backbone = pretrained.load(where)
    model = attach(backbone.model, work.lora, work.seed)
    for part in work.fitting:
        part.fits(model)
    trainer = {**rank.device.lightning(), "strategy": work.device.strategy}
    start = weights(work.start) if work.start else None
    if work.steering is not None:
        from elrea.models.training.steered import train_steered

        return train_steered(
            model, work.encoded, work.clusters, work.recipe, work.steering, pad_id=backbone.pad_id, lora=work.lora,
            base_name=backbone.name, seed=work.seed, stage=work.stage, folder=work.folder, start=start,
            trainer=trainer, task=task,
        )  # fmt: skip
    train_adapter(
        model, work.encoded, work.recipe, pad_id=backbone.pad_id, lora=work.lora, base_name=backbone.name,
        seed=work.seed, stage=work.stage, folder=work.folder, start=start,
        keep_moments=work.keep_moments, trainer=trainer, dev=work.dev, task=task,
    )  # fmt: skip
