"""Early stop: the dev examples' loss after every epoch, which epoch was best, and when to give up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from elrea.errors import TrainingError
from elrea.models.loss import batch_loss
from elrea.models.training.batches import Item, Step, collate
from elrea.store.files import publish

if TYPE_CHECKING:
    from elrea.models.training.module import AdapterModule

DEV_LOSS = "dev_loss"
"""What the row of an epoch's last step in the training curve has besides: nats per token, mean over dev examples."""


class EarlyStop(pl.Callback):
    """Measures each epoch's end on dev, keeps the best adapter, ends the training when waiting is over.

    Args:
        dev: The examples; in no step of the training.
        patience: Epochs in a row without a lower loss after which it ends.
        best: Folder of the best epoch's adapter, replaced whole.
        write: Fills that folder with the module's adapter.
    """

    def __init__(
        self, dev: Sequence[Item], patience: int, best: Path, write: Callable[[Path], None]
    ) -> None:
        # Like lengths together: less padding. The sum does not ask for an order.
        self.dev = sorted(dev, key=lambda item: len(item.tokens))
        self.patience = patience
        self.best = best
        self.write = write

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Step,
        batch_idx: int,
    ) -> None:
        """After an epoch's last step; comes before the checkpoint that has this epoch behind it.

        Raises:
            TrainingError: The loss on dev is not a finite number.
        """
        module: AdapterModule = pl_module  # type: ignore[assignment]
        if not module.plan.ends_epoch(batch.number):
            return
        loss = self.measure(module)
        if not math.isfinite(loss):
            raise TrainingError(
                f"{module.plan.stage}: the loss on dev is {loss} after epoch {module.plan.epoch(batch.number)}; "
                "lower the learning rate or set training.clip=1"
            )
        module.curve[-1][DEV_LOSS] = loss
        if best_epoch(module.curve) == module.plan.epoch(batch.number) and trainer.is_global_zero:
            publish(self.best, self.write)
        if self.over(module.curve):
            trainer.should_stop = True

    def measure(self, module: AdapterModule) -> float:
        """The loss that training has, on dev and without dropout: mean over examples of the mean over their tokens."""
        model, size = module.model, module.settings.batch_size
        backbone: Any = model.get_base_model()
        total = torch.zeros((), device=module.device)
        model.eval()
        with torch.no_grad():
            for start in range(0, len(self.dev), size):
                part = collate(self.dev[start : start + size], module.pad_id, len(self.dev))
                total += batch_loss(backbone, type(part)(*(t.to(module.device) for t in part)))
        model.train()
        return total.item()

    def over(self, curve: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the training of this curve ends here."""
        losses = dev_losses(curve)
        return bool(losses) and max(losses) - best_epoch(curve) >= self.patience


def dev_losses(curve: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Epoch -> loss on dev at its end, of a training curve; empty where there was no early stop."""
    return {int(row["epoch"]): row[DEV_LOSS] for row in curve if DEV_LOSS in row}


def after_best(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the epochs' folders behind the best one; none where there was no early stop."""
    losses = dev_losses(curve)
    return [f"epoch_{epoch}" for epoch in losses if epoch > best_epoch(curve)]


def best_epoch(curve: Sequence[Mapping[str, Any]]) -> int:
    """The epoch with the lowest loss on dev, the earliest of equals."""
    losses = dev_losses(curve)
    return min(losses, key=lambda epoch: (losses[epoch], epoch))
