"""The LightningModule of base adapter and experts: next-token loss and Adam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from torch.optim import Adam

from elrea.errors import TrainingError
from elrea.models import lora
from elrea.models.loss import batch_loss
from elrea.models.training.moments import Moments, gather

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

    from elrea.models.training.batches import Batch, Item
    from elrea.models.training.schedule import Schedule
    from elrea.models.training.settings import Training


class AdapterModule(pl.LightningModule):
    """An adapter in training. Its frozen backbone is never saved.

    `elrea.models.training.loop.fit` trains it by Fabric: one optimiser step is one or several calls of `training_step`.

    Attributes:
        trained: The trainable parameters by name.
        curve: One row per optimiser step taken.
        epochs: Checksums of the epochs' folders that have been written, by folder name.
    """

    def __init__(
        self,
        model: PeftModel,
        schedule: Schedule,
        examples: Sequence[Item],
        settings: Training,
        pad_id: int,
    ) -> None:
        """The adapter must be the model's only trainable part.

        Args:
            model: Backbone and adapter.
            schedule: The steps and their learning rates.
            examples: What the schedule's indices point at.
            settings: Batch size, Adam and clipping.
            pad_id: The padding's token id.
        """
        super().__init__()
        self.model = model
        self.trained = self.parameters_by_name()
        self.schedule = schedule
        self.examples = examples
        self.settings = settings
        self.pad_id = pad_id
        self.curve: list[dict[str, Any]] = []
        self.epochs: dict[str, dict[str, str]] = {}

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """The parameters to train.

        Raises:
            TrainingError: The model has other trainable parameters than its active adapter's.
        """
        lora.check_trainable(self.model)
        return lora.parameters(self.model)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What Adam optimises, by name; `multiple` of a group is its learning rate over the schedule's."""
        return [{"params": list(self.trained.items())}]

    def configure_optimizers(self) -> Adam:
        """Adam over the named parameters; fused, since a step updates hundreds of small tensors."""
        return Adam(
            self.parameter_groups(),
            lr=self.schedule.learning_rate,
            betas=(self.settings.beta1, self.settings.beta2),
            eps=self.settings.eps,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one forward pass; summed over a step's passes it is the step's loss."""
        backbone: Any = self.model.get_base_model()
        return batch_loss(backbone, batch)

    def moments(self, epoch: int, optimizer: Adam) -> Moments:
        """Adam's moments now, with the mean learning rate of `epoch`."""
        return gather(
            optimizer,
            self.trained,
            step=len(self.curve),
            learning_rate=self.schedule.mean_rate(epoch),
            betas=(self.settings.beta1, self.settings.beta2),
            eps=self.settings.eps,
        )

    def progress(self) -> dict[str, Any]:
        """What a checkpoint keeps besides adapter and optimiser, as JSON."""
        return {"curve": self.curve, "epochs": self.epochs, "plan": self.schedule.fingerprint()}

    def resume(
        self, adapter: Mapping[str, Tensor], names: Sequence[str], progress: Mapping[str, Any]
    ) -> None:
        """Sets adapter, curve and the epochs' checksums to those of a checkpoint.

        Args:
            adapter: The trained parameters by name.
            names: Their names in the optimiser's order.
            progress: What `progress` gave.

        Raises:
            TrainingError: The checkpoint is of another schedule or of other parameters.
        """
        if progress["plan"] != self.schedule.fingerprint() or list(names) != list(self.trained):
            raise TrainingError(
                f"{self.schedule.stage}: the checkpoint is of a training with other settings; "
                "delete its folder or go back to them"
            )
        lora.overwrite(self.trained, adapter)
        self.curve, self.epochs = progress["curve"], progress.get("epochs", {})
