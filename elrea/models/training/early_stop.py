"""Early stop: the loss on dev after every epoch, which epoch was best, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elrea.errors import TrainingError
from elrea.models.loss import batch_loss
from elrea.models.training.batches import Item, collate
from elrea.models.training.curve import DEV_LOSS, after_best, best_epoch, dev_losses
from elrea.models.training.distributed import agreed, share
from elrea.store.files import publish

if TYPE_CHECKING:
    from elrea.models.training.module import AdapterModule

__all__ = ["DEV_LOSS", "EarlyStop", "after_best", "best_epoch", "dev_losses"]


class EarlyStop:
    """Measures the loss on dev at each epoch's end, keeps the best adapter, and says when to stop.

    Args:
        dev: Held-out examples; in no step of the training.
        patience: Epochs in a row without a lower loss after which training stops.
        best: Folder of the best epoch's adapter, replaced whole.
        write: Writes the module's adapter into that folder.
    """

    def __init__(
        self, dev: Sequence[Item], patience: int, best: Path, write: Callable[[Path], None]
    ) -> None:
        # Similar lengths together: less padding. The order does not change the mean.
        self.dev = sorted(dev, key=lambda item: len(item.tokens))
        self.patience = patience
        self.best = best
        self.write = write

    def end_epoch(self, module: AdapterModule, epoch: int) -> None:
        """Adds the loss on dev to the curve's last row; keeps the adapter if it is the best so far.

        Raises:
            TrainingError: The loss on dev is not a finite number.
        """
        # One loss for all processes: sums that differ in the last digit would let one of them stop alone.
        loss = agreed(self.measure(module))
        if not math.isfinite(loss):
            raise TrainingError(
                f"{module.schedule.stage}: the loss on dev is {loss} after epoch {epoch}; "
                "lower the learning rate or set training.clip=1"
            )
        module.curve[-1][DEV_LOSS] = loss
        if best_epoch(module.curve) == epoch and share()[0] == 0:
            publish(self.best, self.write)

    def measure(self, module: AdapterModule) -> float:
        """The training loss on dev, without dropout: mean over examples of the mean over their tokens."""
        model, size = module.model, module.settings.batch_size
        backbone: Any = model.get_base_model()
        total = torch.zeros((), device=module.device)
        model.eval()
        with torch.no_grad():
            for start in range(0, len(self.dev), size):
                part = collate(self.dev[start : start + size], module.pad_id, len(self.dev))
                total += batch_loss(backbone, part.to(module.device))
        model.train()
        return total.item()

    def over(self, curve: Sequence[Mapping[str, Any]]) -> bool:
        """Whether training stops after the last epoch of this curve."""
        losses = dev_losses(curve)
        return bool(losses) and max(losses) - best_epoch(curve) >= self.patience
