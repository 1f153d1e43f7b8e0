"""Lightning checkpoints as safetensors + JSON: a folder that can be read, and trusted.

Lightning's own `.ckpt` is pickle, which runs what it reads, and holds the backbone. Here:
    adapter.safetensors     the adapter by parameter name
    optimizer.safetensors   Adam's state as KIND/NAME (exp_avg/…, exp_avg_sq/…, step/…)
    state.json              the loops' progress, the loss curve, the optimiser's settings; checksums of all three
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor

from elrea.errors import StoreError, TrainingError
from elrea.models.training.batches import Step
from elrea.models.training.early_stop import after_best
from elrea.models.training.schedule import Schedule
from elrea.store.files import (
    checksums,
    json_checksum,
    jsonable,
    publish,
    read_json,
    sha256,
    write_json,
)

ADAPTER = "adapter.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


class SafetensorsIO(CheckpointIO):
    """Reads and writes such folders; each is written aside and renamed into place."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write one checkpoint folder.

        Args:
            checkpoint: Lightning's, with one optimiser whose parameters are named.
            path: the folder to make.
            storage_options: not used.

        Raises:
            StoreError: the checkpoint holds what JSON cannot, or a file cannot be written.
            OSError: no space left, or no permission.
        """
        from safetensors.torch import save_file

        rest = dict(checkpoint)
        adapter = {name: _plain(tensor) for name, tensor in rest.pop("state_dict").items()}
        (optimizer,) = rest.pop("optimizer_states")
        (group,) = optimizer["param_groups"]
        names = group["param_names"]
        moments = {
            f"{kind}/{names[index]}": _plain(tensor)
            for index, entry in optimizer["state"].items()
            for kind, tensor in entry.items()
        }
        rest["optimizer"] = {key: value for key, value in group.items() if key != "params"}

        def write(folder: Path) -> None:
            save_file(adapter, folder / ADAPTER)
            save_file(moments, folder / OPTIMIZER)
            sums = {name: sha256(folder / name) for name in (ADAPTER, OPTIMIZER)}
            state = jsonable(rest)
            write_json(
                folder / STATE, {"state": state, "sha256": sums, "own_sha256": json_checksum(state)}
            )

        publish(Path(path), write)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint folder back into Lightning's form, tensors on the CPU.

        Args:
            path: the folder.
            map_location: not used; Lightning moves the tensors to where the model is.
            weights_only: not used; there is nothing in the files that could run.

        Raises:
            TrainingError: a file is missing or not, to the bit, what `save_checkpoint` wrote.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(path)
        try:
            written = read_json(folder / STATE)
            checkpoint: dict[str, Any] = written["state"]
            sums = {name: sha256(folder / name) for name in (ADAPTER, OPTIMIZER)}
            if written["sha256"] != sums or written["own_sha256"] != json_checksum(checkpoint):
                raise ValueError("its checksums do not hold")
            group = checkpoint.pop("optimizer")
            group["betas"] = tuple(group["betas"])
            indices = {name: index for index, name in enumerate(group["param_names"])}
            state: dict[int, dict[str, Tensor]] = {index: {} for index in indices.values()}
            for key, tensor in load_file(folder / OPTIMIZER).items():
                kind, _, name = key.partition("/")
                state[indices[name]][kind] = tensor
            group["params"] = list(state)
            checkpoint["state_dict"] = load_file(folder / ADAPTER)
            checkpoint["optimizer_states"] = [{"state": state, "param_groups": [group]}]
        except (StoreError, OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
            raise TrainingError(f"checkpoint {folder} is damaged ({error})") from error
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint folder, if it is there."""
        shutil.rmtree(path, ignore_errors=True)


def _plain(tensor: Tensor) -> Tensor:
    """The tensor as safetensors takes it."""
    return tensor.detach().cpu().contiguous()


log = logging.getLogger(__name__)


class Keeper(pl.Callback):
    """Hands over every epoch's end and writes the checkpoints, one kept at a time."""

    def __init__(
        self,
        folder: Path,
        plan: Schedule,
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
                if sums != checksums(folder.parent / name):
                    raise TrainingError(f"{folder.parent / name} is damaged")
        except (TrainingError, StoreError) as error:
            log.warning("%s; training goes on from before it", error)
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        else:
            return step, path
    return None


def _checkpoints(folder: Path) -> dict[int, Path]:
    """step -> path of every whole checkpoint; parts of one have another name."""
    if not folder.is_dir():
        return {}
    named = ((re.fullmatch(r"step_(\d+)", path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in named if match}
