"""Trains the gates of a layerwise strategy (MoLE, D.2), with backbone, base adapter and experts frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elrea.models.log import SILENT, Task
from elrea.models.lora import copied
from elrea.models.training.batches import items
from elrea.models.training.curve import CURVE
from elrea.models.training.loop import fit
from elrea.models.training.module import AdapterModule
from elrea.store.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from elrea.data.prompts import Encoded
    from elrea.method.ensemble.layerwise import LayerwiseModel
    from elrea.models.training.settings import Recipe

GATES = "gates.safetensors"


class GatedModel(nn.Module):
    """A backbone with a trainable gate [members, in] per adapted layer; gates start at 0, with all members alike.

    Args:
        layerwise: The model that mixes the members; its gates are replaced by these.
    """

    def __init__(self, layerwise: LayerwiseModel) -> None:
        super().__init__()
        self.backbone = layerwise.model
        self.names = list(layerwise.layers)
        factors = [a for _, a, _ in layerwise.layers.values()]
        zeros = [torch.zeros(len(a), a.shape[2], device=a.device) for a in factors]
        self.gates = nn.ParameterList(zeros)
        layerwise.gates = dict(self.by_name())

    def by_name(self) -> dict[str, nn.Parameter]:
        """The gates by layer name."""
        return dict(zip(self.names, self.gates, strict=True))

    def get_base_model(self) -> PreTrainedModel:
        """The model of which the loss is computed; the name is that of PeftModel's method."""
        return self.backbone


class GateModule(AdapterModule):
    """Trains the gates by the next-token loss, as an adapter is trained."""

    model: Any

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """The gates."""
        found: dict[str, nn.Parameter] = self.model.by_name()
        return found


def train_gates(
    layerwise: LayerwiseModel,
    encoded: Sequence[Encoded],
    recipe: Recipe,
    *,
    pad_id: int,
    seed: int,
    stage: str,
    folder: Path,
    trainer: dict[str, Any],
    task: Task = SILENT,
) -> None:
    """Trains the gates of a layerwise strategy, or resumes a killed training.

    Writes `gates.safetensors` (layer -> [members, in]) and `curve.json`, as `train_adapter` does.

    Args:
        layerwise: Backbone and members, whose weights are all 1.
        encoded: Training examples.
        recipe: Epochs, learning rate and settings of the training.
        pad_id: Token id of padding.
        seed: Seed of the order of examples.
        stage: Name of the training, for messages.
        folder: Where to write.
        trainer: Accelerator and precision.
        task: As for `train_adapter`.
    """
    model = GatedModel(layerwise)
    examples = items(encoded, recipe.training.loss_on)
    frozen = [p for p in model.backbone.parameters() if p.requires_grad]
    weights = torch.ones(1, layerwise.count, device=model.gates[0].device)
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        schedule = recipe.schedule(examples, seed, stage)
        module = GateModule(model, schedule, examples, recipe.training, pad_id)  # type: ignore[arg-type]
        with layerwise.rows(weights):
            fit(module, folder, lambda epoch, optimizer: None, task, trainer)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    save_file(copied(module.trained), folder / GATES)
    write_json(folder / CURVE, module.curve)


def read_gates(folder: Path) -> dict[str, Tensor]:
    """Reads the gates of a finished training: layer -> [members, in]."""
    return load_file(folder / GATES)
