"""Trains one adapter: step 1 of the method (base adapter) and step 4 (experts)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.models.log import SILENT, Task
from elrea.store.files import checksums, publish, write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from torch.optim import Adam

    from elrea.data.prompts import Encoded
    from elrea.models.adapter_shape import Lora
    from elrea.models.training.early_stop import EarlyStop
    from elrea.models.training.module import AdapterModule
    from elrea.models.training.settings import Recipe, Training


def train_adapter(
    model: PeftModel,
    encoded: Sequence[Encoded],
    recipe: Recipe,
    *,
    pad_id: int,
    lora: Lora,
    base_name: str,
    seed: int,
    stage: str,
    folder: Path,
    start: dict[str, Tensor] | None = None,
    keep_moments: bool,
    trainer: dict[str, Any] | None = None,
    dev: Sequence[Encoded] = (),
    clusters: Sequence[int] | None = None,
    task: Task = SILENT,
) -> None:
    """Trains one adapter into `folder`, or resumes a killed training there.

    The outcome depends on the arguments alone, not on the model's adapter before the call or the global random state,
    which is left as it was. On one CPU and thread count a resumed training equals an unbroken one bit for bit. The
    model comes back on its device, in eval mode, with the trained adapter.

    Args:
        model: Backbone and adapter, as `lora.attach` makes it.
        encoded: The training examples.
        recipe: Epochs, learning rate and settings.
        pad_id: The padding's token id.
        lora: The shape that `model` was attached with; it is written beside the weights.
        base_name: The backbone's name in the PEFT folders.
        seed: Of the first A (without `start`), the order and dropout.
        stage: The adapter's name within the run, as "base" or "expert-3".
        folder: Gets `adapter/` (a PEFT folder), `curve.json` (one row per optimiser step, see `models.log.Task`), and
            `checkpoint/`, from which a second call resumes.
        start: The adapter to start from; None draws a fresh one. The optimiser is always fresh.
        keep_moments: Write `epoch_1`, … (`epoch_0` without an epoch): the adapter at its end, and Adam's moments.
        trainer: accelerator, precision and strategy, see `Device`; the accelerator follows from the model if it is
            missing. Of several processes that train together (see `parallel`) the first one writes.
        dev: The held-out examples of `training.early_stop`; without any, all epochs are trained.
        clusters: Of each example, the cluster whose gradient is projected (`surgery`); None: the plain sum.
        task: Gets each step's number of examples and row of the curve; on resuming, first those of earlier steps.

    Raises:
        TrainingError: No examples, an example without loss, a loss or parameters that are not finite, or a checkpoint
            that cannot be read or is of other settings.
    """
    from elrea.models.lora import load, set_state
    from elrea.models.training.loop import fit

    module = _module(model, encoded, recipe, pad_id, seed, stage, start, clusters)
    write = partial(_write_adapter, model, lora, base_name)
    stop = _early_stop(dev, recipe.training, folder / "checkpoint" / "best", write)
    end_epoch = partial(_write_epoch, module, folder, write) if keep_moments else _write_no_epoch
    fit(module, folder, end_epoch, task, trainer or {}, stop)
    if keep_moments and not recipe.epochs:
        _write_start(module, folder, write)
    if stop:
        set_state(model, load(stop.best)[0])
    _write_result(module, folder, write)


def _module(
    model: PeftModel,
    encoded: Sequence[Encoded],
    recipe: Recipe,
    pad_id: int,
    seed: int,
    stage: str,
    start: dict[str, Tensor] | None,
    clusters: Sequence[int] | None,
) -> AdapterModule:
    """The model with its adapter at the start of the training."""
    from elrea.models.lora import initialise, set_state
    from elrea.models.training.batches import items
    from elrea.models.training.module import AdapterModule

    examples = items(encoded, recipe.training.loss_on, clusters)
    if start is None:
        initialise(model, seed)
    else:
        set_state(model, start)
    schedule = recipe.schedule(examples, seed, stage)
    if clusters is not None:
        from elrea.models.training.surgery import ProjectedModule

        return ProjectedModule(model, schedule, examples, recipe.training, pad_id)
    return AdapterModule(model, schedule, examples, recipe.training, pad_id)


def _early_stop(
    dev: Sequence[Encoded], settings: Training, best: Path, write: Callable[[Path], None]
) -> EarlyStop | None:
    """None without dev examples, or if the settings train all epochs."""
    from elrea.models.training.batches import items
    from elrea.models.training.early_stop import EarlyStop

    if not dev or settings.early_stop is None:
        return None
    return EarlyStop(items(dev, settings.loss_on), settings.early_stop, best, write)


def _write_adapter(model: PeftModel, lora: Lora, base_name: str, folder: Path) -> None:
    """Writes the model's adapter as a PEFT folder."""
    from elrea.models.lora import save, saved_as, state

    save(folder, state(model), lora, base_name, **saved_as(model, lora))


def _write_epoch(
    module: AdapterModule,
    folder: Path,
    write_adapter: Callable[[Path], None],
    epoch: int,
    optimizer: Adam,
) -> None:
    """Writes `epoch_<epoch>`: adapter and moments."""

    def write(place: Path) -> None:
        write_adapter(place)
        module.moments(epoch, optimizer).save(place)

    name = f"epoch_{epoch}"
    publish(folder / name, write)
    module.epochs[name] = checksums(folder / name)


def _write_start(
    module: AdapterModule, folder: Path, write_adapter: Callable[[Path], None]
) -> None:
    """Writes `epoch_0`, in the first process: the adapter before its first step, and what Adam starts from."""
    import torch

    from elrea.models.training.distributed import share
    from elrea.models.training.moments import Moments

    def write(place: Path) -> None:
        write_adapter(place)
        first, second = (
            {name: torch.zeros(p.shape) for name, p in module.trained.items()} for _ in range(2)
        )
        settings = module.settings
        Moments(
            first, second, step=0, learning_rate=module.schedule.learning_rate,
            betas=(settings.beta1, settings.beta2), eps=settings.eps,
        ).save(place)  # fmt: skip

    if share()[0] == 0:
        publish(folder / "epoch_0", write)


def _write_no_epoch(epoch: int, optimizer: Adam) -> None:
    """For an adapter whose moments nobody needs."""


def _write_result(
    module: AdapterModule, folder: Path, write_adapter: Callable[[Path], None]
) -> None:
    """Writes the trained adapter and its curve, in the first process; deletes the epochs after the best one."""
    from elrea.models.training.curve import CURVE, after_best
    from elrea.models.training.distributed import share

    if share()[0] != 0:
        return
    for later in after_best(module.curve):
        shutil.rmtree(folder / later, ignore_errors=True)
    publish(folder / "adapter", write_adapter)
    write_json(folder / CURVE, module.curve)


def epoch_folders(folder: Path) -> list[Path]:
    """The folders `epoch_1`, `epoch_2`, … that `train_adapter` wrote, in order."""
    return sorted(folder.glob("epoch_*[0-9]"), key=lambda path: int(path.name.split("_")[1]))
