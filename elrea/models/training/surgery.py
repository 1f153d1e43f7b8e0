"""Gradient surgery: the clusters' gradients of a step are projected where they conflict (PCGrad, Yu et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elrea.models.training.module import AdapterModule

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from elrea.models.training.batches import Batch


def project(gradients: Tensor, generator: torch.Generator) -> Tensor:
    """Σ_c ĝ_c: each gradient without its parts that point against the others, which are taken in random order.

    Every ĝ_c is a combination of the gradients, so that their products with each other are all that is needed.

    Args:
        gradients: One row per cluster [k, p].
        generator: Draws the orders, on the CPU.

    Returns:
        [p].
    """
    count = len(gradients)
    products = (gradients @ gradients.T).cpu().double()  # not every device has float64
    combined = torch.eye(count, dtype=torch.float64)
    for own in range(count):
        for other in torch.randperm(count, generator=generator).tolist():
            inner = combined[own] @ products[:, other]
            if other != own and inner < 0:
                combined[own, other] -= inner / products[other, other]
    return combined.sum(0).to(gradients) @ gradients


class ProjectedModule(AdapterModule):
    """An adapter in training by the projected sum of its clusters' gradients; examples have their clusters as groups.

    The forward and backward passes are made cluster by cluster, over as many tokens as without.
    """

    def __init__(self, *args: Any) -> None:
        """`args` as for `AdapterModule`."""
        super().__init__(*args)
        self._sums: dict[int, Tensor] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one forward pass, without a graph: its clusters' gradients are kept."""
        parameters = list(self.trained.values())
        total = torch.zeros((), device=batch.ids.device)
        for cluster in batch.groups.unique().tolist():
            loss = super().training_step(batch.of_group(cluster), batch_idx)
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            flat = torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
            self._sums[cluster] = self._sums[cluster] + flat if cluster in self._sums else flat
            total += loss.detach()
        return total

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Nothing: the gradients are taken already."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Gives every parameter its part of the projected sum."""
        step = len(self.curve) + 1  # the curve gets its row after the step
        generator = torch.Generator().manual_seed(self.schedule.dropout_seed(step))
        rows = torch.stack([self._sums[cluster] for cluster in sorted(self._sums)])
        self._sums = {}
        parameters = list(self.trained.values())
        parts = project(rows, generator).split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
