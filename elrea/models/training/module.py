"""The LightningModule of base adapter and experts: next-token loss, Adam, linear decay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Adam

from elrea.errors import TrainingError
from elrea.models import lora
from elrea.models.loss import batch_loss
from elrea.models.training import distributed as together
from elrea.models.training import moments
from elrea.models.training.batches import Item, Step, Steps
from elrea.models.training.schedule import Schedule

if TYPE_CHECKING:
    from peft import PeftModel

    from elrea.models.training.settings import Training


class AdapterModule(pl.LightningModule):
    """Trains the active adapter of a PeftModel; the backbone is frozen and never saved.

    To Lightning the whole plan, all epochs of it, is one pass over optimiser steps, and one of
    its "batches" is one whole optimiser step. A resumed run is then always the same case, in the
    middle of that pass, and no step is half done when a checkpoint is written.
    """

    def __init__(
        self,
        model: PeftModel,
        plan: Schedule,
        examples: Sequence[Item],
        settings: Training,
        pad_id: int,
    ) -> None:
        """The adapter must be the model's only trainable part.

        Args:
            model: backbone and adapter.
            plan: the steps and their rates.
            examples: what the plan's indices point at.
            settings: batch size, Adam and clipping.
            pad_id: the padding's token id.
        """
        super().__init__()
        # A step's batches are added up by hand: Lightning's own accumulation divides by a fixed
        # number of batches, which weights the examples of an incomplete last step wrongly.
        self.automatic_optimization = False
        self.model = model
        self.trained = self.parameters_by_name()
        self.plan = plan
        self.examples = examples
        self.settings = settings
        self.pad_id = pad_id
        self.share = together.share()
        self.curve: list[dict[str, float]] = []
        self.epochs: dict[str, dict[str, str]] = {}

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """What is trained.

        Raises:
            TrainingError: anything but the active adapter would be.
        """
        lora.check_trainable(self.model)
        return lora.parameters(self.model)

    def train_dataloader(self) -> Steps:
        """The steps still to do. Lightning asks for it after it has restored its loops."""
        return Steps(
            self.plan,
            self.examples,
            pad_id=self.pad_id,
            batch_size=self.settings.batch_size,
            taken=self.trainer.global_step,
            share=self.share,
        )

    def configure_model(self) -> None:
        """Lightning's hook: where the strategy has a mesh, the backbone is cut up over it."""
        if isinstance(self.trainer.strategy, together.Shards):
            together.shard(self.model, self.trainer.strategy.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Adam:
        """Adam over the adapter, its parameters named; fused, as a step is hundreds of small
        tensors."""
        return Adam(
            list(self.trained.items()),
            lr=self.plan.learning_rate,
            betas=(self.settings.beta1, self.settings.beta2),
            eps=self.settings.eps,
            fused=self.device.type in ("cpu", "cuda"),
        )

    def on_train_batch_start(self, batch: Step, batch_idx: int) -> None:
        """Fix the step's dropout by (seed, stage, step) and the process, whatever ran before."""
        seed = self.plan.dropout_seed(batch.number) + self.share[0]
        if self.device.type == "cpu":
            # torch.manual_seed would besides queue a call for every absent GPU, which is slow.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def training_step(self, batch: Step, batch_idx: int) -> None:
        """One optimiser step.

        Raises:
            TrainingError: the loss is not a finite number.
        """
        optimizer = self.optimizers()
        assert isinstance(optimizer, pl.core.optimizer.LightningOptimizer)
        rate = self.plan.rate(batch.number)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        backbone: Any = self.model.get_base_model()
        total = torch.zeros((), device=self.device)
        for part in batch.batches:
            loss = batch_loss(backbone, part)
            self.manual_backward(loss)
            total += loss.detach()
        if self.share[1] > 1:
            together.sum_gradients(list(self.trained.values()), total)
        value = total.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"{self.plan.stage}: the loss is {value} at step {batch.number} (examples "
                f"{', '.join(batch.names)}); lower the learning rate or set training.clip=1"
            )
        if self.settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.settings.clip)
        optimizer.step()
        self.curve.append(
            {
                "step": batch.number,
                "epoch": self.plan.epoch(batch.number),
                "examples": (self.curve[-1]["examples"] if self.curve else 0) + len(batch.names),
                "loss": value,
                "learning_rate": rate,
            }
        )

    def moments(self, epoch: int) -> moments.Moments:
        """Adam's moments now, with the rate that `epoch` had on average."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Adam)
        return moments.gather(
            optimizer,
            self.trained,
            step=len(self.curve),
            learning_rate=self.plan.mean_rate(epoch),
            betas=(self.settings.beta1, self.settings.beta2),
            eps=self.settings.eps,
        )

    def state_dict(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """The adapter alone, by parameter name."""
        return lora.copied(self.trained)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> None:
        """Set the adapter; names and shapes must be exactly its own, `strict` or not."""
        lora.overwrite(self.trained, state_dict)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve, the checksums of the epochs' folders, and which plan this is."""
        checkpoint["epochs"] = self.epochs
        checkpoint["curve"] = self.curve
        checkpoint["plan"] = self.plan.fingerprint()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the curve back.

        Raises:
            TrainingError: the checkpoint is of another plan or of other parameters.
        """
        (group,) = checkpoint["optimizer_states"][0]["param_groups"]
        if checkpoint["plan"] != self.plan.fingerprint() or group["param_names"] != list(
            self.trained
        ):
            raise TrainingError(
                f"{self.plan.stage}: the checkpoint is of a training with other settings; "
                "delete its folder or go back to them"
            )
        self.curve, self.epochs = checkpoint["curve"], checkpoint.get("epochs", {})
