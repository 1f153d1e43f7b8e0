"""Trains one adapter whose low-rank space every cluster steers by factors of its own, in batches of mixed clusters.

A layer adds (α/r)·B M_c A x to the rows of cluster c. PEFT computes A x and B; a hook between them multiplies by M_c.
So dropout, precision, quantised and transposed layers are PEFT's own. Experts beside A and B are further rows of A and
columns of B, of which each row of a batch gets those of its cluster: the hook sets the others to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from elrea.models import lora as lora_files
from elrea.models.log import SILENT, Task
from elrea.models.training.batches import Item, items
from elrea.models.training.curve import CURVE
from elrea.models.training.distributed import share
from elrea.models.training.loop import fit
from elrea.models.training.module import AdapterModule
from elrea.models.training.steering import Steering, member_names
from elrea.store.files import publish, write_json

if TYPE_CHECKING:
    from peft import PeftModel

    from elrea.data.prompts import Encoded
    from elrea.models.adapter_shape import Lora
    from elrea.models.training.batches import Batch
    from elrea.models.training.schedule import Schedule
    from elrea.models.training.settings import Recipe, Training

FACTORS = "factors.safetensors"
"""M of every adapted layer [C, r, r], or its diagonals [C, r]."""

_A = ".lora_A.weight"


class ClusterFactors(nn.Module):
    """The factors M_c of every adapted layer, and the hooks by which they act.

    Args:
        model: Backbone and adapter, of rank `steering.rank`.
        steering: Form, number of clusters and ranks.

    Attributes:
        clusters: c of each row of the next pass [rows]. Activations that are computed again in the backward pass need
            them until then.
    """

    def __init__(self, model: PeftModel, steering: Steering) -> None:
        super().__init__()
        self.steering = steering
        self.layers = [
            name.removesuffix(_A) for name in lora_files.parameters(model) if name.endswith(_A)
        ]
        one = torch.eye(steering.trunk) if steering.form == "full" else torch.ones(steering.trunk)
        starts = (one.repeat(steering.clusters, *[1] * one.dim()) for _ in self.layers)
        self.values = nn.ParameterList(starts).requires_grad_(self.trainable)
        self.register_buffer("own", _own(steering), persistent=False)
        self.own: Tensor
        self.clusters = torch.empty(0, dtype=torch.long)

    @property
    def trainable(self) -> bool:
        """Whether M_c is trained."""
        return self.steering.rate > 0 and self.steering.trunk > 0

    def by_name(self) -> dict[str, nn.Parameter]:
        """M of every layer by name."""
        names = [f"{layer}.steering" for layer in self.layers]
        return dict(zip(names, self.values, strict=True))

    def steer(self, low: Tensor, value: Tensor, clusters: Tensor) -> Tensor:
        """M_c·low for the rows of cluster c, and the part of its own expert.

        Args:
            low: A x [rows, t, rank], or [rows·t, rank].
            value: M of the layer.
            clusters: c of each row [rows].
        """
        rows = low.reshape(len(clusters), -1, low.shape[-1])
        shared, experts = rows.split(
            [self.steering.trunk, rows.shape[-1] - self.steering.trunk], -1
        )
        factors = value[clusters].to(low.dtype)
        if self.steering.form == "full":
            shared = torch.bmm(shared, factors.transpose(1, 2))
        else:
            shared = shared * factors[:, None]
        if not experts.shape[-1]:
            return shared.view(low.shape)
        own = self.own[clusters].to(low.dtype)
        return torch.cat([shared, experts * own[:, None]], dim=-1).view(low.shape)

    @contextmanager
    def acting(self, model: PeftModel) -> Iterator[None]:
        """Lets the factors act until the context ends, in passes over rows of `self.clusters`.

        Args:
            model: The model that the factors were made for.
        """
        modules = dict(model.named_modules())
        handles = []
        try:
            for layer, value in zip(self.layers, self.values, strict=True):
                module = modules[f"{layer}.lora_A.{model.active_adapter}"]
                handles.append(module.register_forward_hook(self._hook(value)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, value: Tensor) -> Callable[..., Tensor]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], low: Tensor) -> Tensor:
            return self.steer(low, value, self.clusters)

        return hook


def _own(steering: Steering) -> Tensor:
    """1 where a row of the experts' A is the cluster's own [C, C·added]."""
    return torch.eye(steering.clusters).repeat_interleave(steering.added, dim=1)


class SteeredModule(AdapterModule):
    """A steered adapter in training.

    Args:
        factors: M of every layer; the other arguments are those of `AdapterModule`.
    """

    def __init__(
        self,
        model: PeftModel,
        factors: ClusterFactors,
        schedule: Schedule,
        examples: Sequence[Item],
        settings: Training,
        pad_id: int,
    ) -> None:
        super().__init__(model, schedule, examples, settings, pad_id)
        self.factors = factors
        if factors.trainable:
            self.trained = {**self.trained, **factors.by_name()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The factors in a group of their own, at `rate` times the adapter's learning rate."""
        factors = self.factors.by_name() if self.factors.trainable else {}
        adapter = [(name, p) for name, p in self.trained.items() if name not in factors]
        groups: list[dict[str, Any]] = [{"params": adapter}]
        if factors:
            groups.append({"params": list(factors.items()), "multiple": self.factors.steering.rate})
        return groups

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one pass, each row with its own cluster's factors."""
        self.factors.clusters = batch.groups
        return super().training_step(batch, batch_idx)


def train_steered(
    model: PeftModel,
    encoded: Sequence[Encoded],
    clusters: Sequence[int],
    recipe: Recipe,
    steering: Steering,
    *,
    pad_id: int,
    lora: Lora,
    base_name: str,
    seed: int,
    stage: str,
    folder: Path,
    start: dict[str, Tensor] | None = None,
    trainer: dict[str, Any] | None = None,
    task: Task = SILENT,
) -> None:
    """Trains A, B and the factors of all clusters together, or resumes a killed training.

    Args:
        model: Backbone and adapter of rank `steering.rank`.
        encoded: The training examples.
        clusters: The cluster of each, 0 to C - 1.
        recipe: Epochs, learning rate of A and B, settings.
        steering: How the clusters steer.
        pad_id: The padding's token id.
        lora: The shape that `model` was attached with.
        base_name: The backbone's name in the PEFT folders.
        seed: Of the first A, the order and dropout.
        stage: Name of the training.
        folder: Gets a PEFT folder per cluster (`steered-0` ..., with M_c folded into B), the factors alone
            (`factors.safetensors`), `curve.json` and `checkpoint/`.
        start: A and B to start from; None draws A, and B is 0.
        trainer: As for `train_adapter`.
        task: As for `train_adapter`.

    Raises:
        TrainingError: As `train_adapter`.
    """
    examples = items(encoded, recipe.training.loss_on, clusters)
    if start is None:
        lora_files.initialise(model, seed)
    else:
        lora_files.set_state(model, start)
    factors = ClusterFactors(model, steering)
    schedule = recipe.schedule(examples, seed, stage)
    module = SteeredModule(model, factors, schedule, examples, recipe.training, pad_id)
    with factors.acting(model):
        fit(module, folder, lambda epoch, optimizer: None, task, trainer or {})
    if share()[0] == 0:
        _write(module, lora, base_name, folder)


def _write(module: SteeredModule, lora: Lora, base_name: str, folder: Path) -> None:
    """Writes every cluster's adapter, the factors and the curve."""
    model, steering = module.model, module.factors.steering
    tensors = lora_files.state(model)
    factors = lora_files.copied(module.factors.by_name())
    write = partial(
        lora_files.save, lora=steering.member(lora), base_name=base_name, **lora_files.saved_as(model, lora),
    )  # fmt: skip
    for cluster, name in enumerate(member_names(steering.clusters)):
        publish(folder / name, partial(write, tensors=folded(tensors, factors, steering, cluster)))
    save_file(factors, folder / FACTORS)
    write_json(folder / CURVE, module.curve)


def folded(
    tensors: Mapping[str, Tensor], factors: Mapping[str, Tensor], steering: Steering, cluster: int
) -> dict[str, Tensor]:
    """One cluster's adapter as plain LoRA: A' = [A; A_c] and B' = [B M_c, B_c].

    Args:
        tensors: The whole adapter by name, A [rank, in] and B [out, rank].
        factors: M by name [C, r, r], or diagonals [C, r].
        steering: Form and ranks.
        cluster: c.
    """
    found: dict[str, Tensor] = {}
    first = steering.trunk + cluster * steering.added
    own = slice(first, first + steering.added)
    for name, a in tensors.items():
        if not name.endswith(_A):
            continue
        layer = name.removesuffix(_A)
        b, m = (
            tensors[f"{layer}.lora_B.weight"].double(),
            factors[f"{layer}.steering"][cluster].double(),
        )
        shared = b[:, : steering.trunk]
        steered = shared @ m if steering.form == "full" else shared * m
        found[name] = torch.cat([a[: steering.trunk], a[own]])
        found[f"{layer}.lora_B.weight"] = torch.cat([steered, b[:, own]], dim=1).to(a.dtype)
    return found
