"""Steps 1 and 4 of the method: an adapter trained from a start, its epochs' ends kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.store.files import write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from elrea.data.prompts import Encoded
    from elrea.models.lora import Lora
    from elrea.models.training.settings import Recipe


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
    advance: Callable[[int], object] = lambda examples: None,
) -> None:
    """Train one adapter into `folder`, or go on where a killed run left it.

    Writes `adapter/` (a PEFT folder) and `curve.json` (a row per optimiser step: step, epoch,
    examples seen, loss, learning_rate; with early stop dev_loss at epochs' ends), and with
    `keep_moments` a folder `epoch_1`, `epoch_2`,
    … per epoch: the adapter at its end and Adam's moments. `checkpoint/` is what a second call
    resumes from; on one CPU and thread count its outcome equals the unbroken run's bit for bit.

    The outcome depends on the arguments alone, not on what the model's adapter held before or
    on the global random state, which is left as it was. The model comes back in eval mode on
    its device, holding the trained adapter.

    Args:
        model: backbone and adapter, as `lora.attach` makes it.
        encoded: the training examples.
        recipe: how to train.
        pad_id: the padding's token id.
        lora: the shape that `model` was attached with; it is written beside the weights.
        base_name: what the PEFT folders call the backbone.
        seed: of the first A (if there is no `start`), the order and the dropout.
        stage: the adapter's name within the job, e.g. "base" or "expert-03".
        folder: where all of it goes.
        start: the adapter to start from; None draws a fresh one. The optimiser is always fresh.
        keep_moments: write the epochs' folders.
        trainer: accelerator, devices, precision and strategy for Lightning's Trainer; what is not
            given follows from where the model is. Of several processes that train together
            (`elrea.models.training.parallel`) the first one writes.
        dev: where `training.early_stop` looks; none: the plan is trained to its end.
        advance: called with the number of examples after each step, and on resuming once with
            those of the steps that are done.

    Raises:
        TrainingError: no examples, an example without loss, a loss that is not finite, or a
            checkpoint that cannot be read or is of other settings.
    """
    from elrea.models.lora import initialise, load, save, set_state, state
    from elrea.models.training.batches import items
    from elrea.models.training.distributed import share
    from elrea.models.training.early_stop import EarlyStop, after_best
    from elrea.models.training.loop import fit
    from elrea.models.training.module import AdapterModule
    from elrea.store.files import checksums, publish

    settings = recipe.training
    examples = items(encoded, settings.loss_on)
    plan = recipe.plan(examples, seed, stage)
    if start is None:
        initialise(model, seed)
    else:
        set_state(model, start)
    module = AdapterModule(model, plan, examples, settings, pad_id)
    transposed = bool(getattr(model.peft_config[model.active_adapter], "fan_in_fan_out", False))

    def write_adapter(place: Path) -> None:
        save(place, state(model), lora, base_name, transposed=transposed)

    def end_epoch(epoch: int) -> None:
        def write(place: Path) -> None:
            write_adapter(place)
            module.moments(epoch).save(place)

        if keep_moments:
            publish(folder / f"epoch_{epoch}", write)
            module.epochs[f"epoch_{epoch}"] = checksums(folder / f"epoch_{epoch}")

    stop, best = None, folder / "checkpoint" / "best"
    if dev and settings.early_stop is not None:
        stop = EarlyStop(items(dev, settings.loss_on), settings.early_stop, best, write_adapter)
    fit(module, folder / "checkpoint", end_epoch, advance, trainer or {}, stop)
    if stop:
        set_state(model, load(best)[0])
    if share()[0] == 0:
        for later in after_best(module.curve):
            shutil.rmtree(folder / later, ignore_errors=True)
        publish(folder / "adapter", write_adapter)
        write_json(folder / "curve.json", module.curve)


def epoch_folders(folder: Path) -> list[Path]:
    """The folders `epoch_1`, `epoch_2`, … that `train_adapter` wrote, in their order."""
    return sorted(folder.glob("epoch_*[0-9]"), key=lambda path: int(path.name.split("_")[1]))
