"""Checkpoints of a training as safetensors and JSON: nothing in them can run code.

A checkpoint is a folder `step_00000123` of
    adapter.safetensors     the adapter by parameter name
    optimizer.safetensors   Adam's state as KIND/NAME (exp_avg/…, exp_avg_sq/…, step/…)
    state.json              the training curve, the optimiser's settings; checksums of all three files
Checkpoints of older versions have Lightning's loops in state.json besides; they are read too.
"""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor

from elrea.errors import StoreError, TrainingError
from elrea.models.training.curve import after_best
from elrea.store.files import (
    checksums,
    json_checksum,
    jsonable,
    publish,
    read_json,
    sha256,
    write_json,
)

log = logging.getLogger(__name__)

ADAPTER = "adapter.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after an optimiser step."""

    adapter: dict[str, Tensor]
    """The trained parameters by name."""
    optimizer: dict[str, Any]
    """As the optimiser's `state_dict` gives it; the parameters of its groups are named."""
    progress: dict[str, Any]
    """Plain JSON: `curve`, `epochs` (checksums of the epochs' folders) and `plan` (the schedule's fingerprint)."""

    @property
    def names(self) -> list[str]:
        """The trained parameters' names in the optimiser's order."""
        groups = self.optimizer["param_groups"]
        return [name for group in groups for name in group["param_names"]]

    def save(self, folder: Path) -> None:
        """Writes the folder, whole or not at all.

        Raises:
            StoreError: The progress holds what JSON cannot, or a file cannot be written.
            OSError: No space left, or no permission.
        """
        from safetensors.torch import save_file

        names = self.names
        moments = {
            f"{kind}/{names[index]}": _plain(tensor)
            for index, entry in self.optimizer["state"].items()
            for kind, tensor in entry.items()
        }
        settings = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer["param_groups"]
        ]
        state = jsonable(
            {**self.progress, "optimizer": settings[0] if len(settings) == 1 else settings}
        )

        def write(place: Path) -> None:
            save_file({n: _plain(t) for n, t in self.adapter.items()}, place / ADAPTER)
            save_file(moments, place / OPTIMIZER)
            sums = {name: sha256(place / name) for name in (ADAPTER, OPTIMIZER)}
            write_json(
                place / STATE, {"state": state, "sha256": sums, "own_sha256": json_checksum(state)}
            )

        publish(folder, write)

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Reads what `save` wrote, tensors on the CPU.

        Raises:
            TrainingError: A file is missing, or is not the one that was written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            written = read_json(folder / STATE)
            state: dict[str, Any] = written["state"]
            sums = {name: sha256(folder / name) for name in (ADAPTER, OPTIMIZER)}
            if written["sha256"] != sums or written["own_sha256"] != json_checksum(state):
                raise ValueError("checksum mismatch")
            settings = state.pop("optimizer")
            groups = settings if isinstance(settings, list) else [settings]
            names = [name for group in groups for name in group["param_names"]]
            indices = {name: index for index, name in enumerate(names)}
            entries: dict[int, dict[str, Tensor]] = {index: {} for index in indices.values()}
            for key, tensor in load_file(folder / OPTIMIZER).items():
                kind, _, name = key.partition("/")
                entries[indices[name]][kind] = tensor
            for group in groups:
                group["betas"] = tuple(group["betas"])
                group["params"] = [indices[name] for name in group["param_names"]]
            optimizer = {"state": entries, "param_groups": groups}
            return cls(load_file(folder / ADAPTER), optimizer, state)
        except (
            StoreError, OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError
        ) as error:  # fmt: skip
            raise TrainingError(f"checkpoint {folder} is damaged ({error})") from error


class Checkpoints:
    """The checkpoints of one training, of which the newest is kept.

    Args:
        folder: Where they go.
        minutes: Time after which another one is due.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder = folder
        self.seconds = 60 * minutes
        self.last = monotonic()

    def due(self) -> bool:
        """Whether the last checkpoint, or the start, is `minutes` ago."""
        return monotonic() - self.last >= self.seconds

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then deletes the older ones."""
        older, step = _by_step(self.folder), len(checkpoint.progress["curve"])
        checkpoint.save(self.folder / f"step_{step:08d}")
        for number, path in older.items():
            if number != step:
                shutil.rmtree(path, ignore_errors=True)
        self.last = monotonic()


def latest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint under `folder`; damaged ones are logged and deleted.

    A checkpoint counts as damaged, too, if the epochs' folders beside `folder` have changed since.
    """
    for _, path in sorted(_by_step(folder).items(), reverse=True):
        try:
            checkpoint = Checkpoint.load(path)
            _check_epochs(checkpoint.progress, folder.parent)
        except (TrainingError, StoreError) as error:
            log.warning("%s; training resumes from before it", error)
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        else:
            return checkpoint
    return None


def _check_epochs(progress: dict[str, Any], folder: Path) -> None:
    """Raises TrainingError if an epoch's folder has changed since the checkpoint."""
    discarded = after_best(progress["curve"])
    for name, sums in progress.get("epochs", {}).items():
        if name in discarded and not (folder / name).exists():
            continue  # killed while an early stop was deleting the epochs after the best one
        if sums != checksums(folder / name):
            raise TrainingError(f"{folder / name} is damaged")


def _by_step(folder: Path) -> dict[int, Path]:
    """Step -> path of every whole checkpoint; unfinished ones have another name."""
    if not folder.is_dir():
        return {}
    named = ((re.fullmatch(r"step_(\d+)", path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in named if match}


def _plain(tensor: Tensor) -> Tensor:
    """The tensor as safetensors takes it."""
    return tensor.detach().cpu().contiguous()
