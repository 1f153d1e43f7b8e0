"""Keeps a training run's state on disk while it goes, and finds it again."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytorch_lightning as pl

from elrea.adapters.checkpoint import SafetensorsIO
from elrea.adapters.loader import Step
from elrea.adapters.plan import Plan
from elrea.adapters.stopping import after_best
from elrea.errors import StoreError, TrainingError
from elrea.files import sha256, walk

log = logging.getLogger(__name__)


class Keeper(pl.Callback):
    """Hands over every epoch's end and writes the checkpoints, one kept at a time."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        minutes: float,
        end_epoch: Callable[[int], None],
        advance: Callable[[int], object],
    ) -> None:
        """Nothing is written before the first step.

        Args:
            folder: where the checkpoints go.
            plan: the run's.
            minutes: write one when so many have gone by since the last; epochs' ends besides.
            end_epoch: called with the epoch's number, before its checkpoint is written, so
                that whatever a checkpoint has behind it is on disk.
            advance: called with the number of examples after each step, last of all.
        """
        self.folder = folder
        self.plan = plan
        self.seconds = 60 * minutes
        self.end_epoch = end_epoch
        self.advance = advance
        self.last = monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; setting up does not count."""
        self.last = monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Step,
        batch_idx: int,
    ) -> None:
        """After an optimiser step: the epoch's state, a checkpoint, the progress, if due."""
        ended = self.plan.ends_epoch(batch.number)
        if ended and trainer.is_global_zero:
            self.end_epoch(self.plan.epoch(batch.number))
        due = ended or monotonic() - self.last >= self.seconds
        if trainer.strategy.broadcast(due):  # the first process's clock counts for all
            self._save(trainer, batch.number)
        if trainer.is_global_zero:
            self.advance(len(batch.names))

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        """Write a checkpoint, then drop the older ones."""
        older = _checkpoints(self.folder)
        trainer.save_checkpoint(self.folder / f"step_{step:08d}", weights_only=False)
        for number, path in older.items():
            if number != step:
                trainer.strategy.remove_checkpoint(path)
        self.last = monotonic()


def latest(folder: Path) -> tuple[int, Path] | None:
    """The newest whole checkpoint under `folder` and its step, or None; damaged ones are said and deleted.

    Damaged is also one whose epochs' folders, beside `folder`, are no longer as it knows them.
    """
    for step, path in sorted(_checkpoints(folder).items(), reverse=True):
        try:
            checkpoint = SafetensorsIO().load_checkpoint(path)
            given_up = after_best(checkpoint["curve"])
            for name, sums in checkpoint.get("epochs", {}).items():
                if name in given_up and not (folder.parent / name).exists():
                    continue  # an early stop's tidying up was under way
                if sums != sums_of(folder.parent / name):
                    raise TrainingError(f"{folder.parent / name} is damaged")
        except (TrainingError, StoreError) as error:
            log.warning("%s; training goes on from before it", error)
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        else:
            return step, path
    return None


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(walk(folder))}


def _checkpoints(folder: Path) -> dict[int, Path]:
    """step -> path of every whole checkpoint; parts of one have another name."""
    if not folder.is_dir():
        return {}
    named = ((re.fullmatch(r"step_(\d+)", path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in named if match}
