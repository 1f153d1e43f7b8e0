"""Compares the gradients of a batch with those of each example alone, on the model that is to be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elrea.data.batches import pad
from elrea.method.features.per_example import Layers, PerExampleGradients, prompt_loss
from elrea.models.lora import parameters

if TYPE_CHECKING:
    from peft import PeftModel


def worst_gradient(
    model: PeftModel, sequences: Sequence[Sequence[int]], layers: Layers, pad_id: int
) -> tuple[float, str]:
    """Largest difference of a matrix's per-example gradient to that of an ordinary backward pass of one example.

    Args:
        model: A PEFT model with any adapter.
        sequences: Token ids, each of 2 or more.
        layers: Which matrices, as for `PerExampleGradients`.
        pad_id: Token id of padding.

    Returns:
        |g - g'| / |g'|, where |g'| is the length of the example's whole gradient, and the matrix's name. NaN if a
        gradient is not finite.
    """
    device = next(model.parameters()).device
    ids, mask = (tensor.to(device) for tensor in pad([list(s) for s in sequences], pad_id))
    gradients = PerExampleGradients(model, layers)
    got = gradients(ids, mask, mask)
    own = parameters(model)
    found = (0.0, "")
    for row, length in enumerate(mask.sum(1).tolist()):
        one = ids[row : row + 1, :length]
        everywhere = torch.ones_like(one, dtype=torch.bool)
        alone = _by_autograd(model, one, everywhere, {s.name: own[s.name] for s in gradients.slots})
        size = torch.stack([g.norm() for g in alone.values()]).norm().clamp(min=1e-30)
        for slot in gradients.slots:
            part = got[row, slot.start : slot.start + slot.size]
            error = float((part - alone[slot.name].flatten()).norm() / size)
            if not error <= found[0]:  # NaN too
                found = (error, slot.name)
    return found


def _by_autograd(
    model: PeftModel, ids: Tensor, mask: Tensor, named: dict[str, torch.nn.Parameter]
) -> dict[str, Tensor]:
    """Gradients of one example's mean token loss in float32; zeros for a matrix that it does not depend on."""
    with torch.enable_grad():
        loss = prompt_loss(model, ids, mask, mask)
        found = torch.autograd.grad(
            loss, list(named.values()), allow_unused=True, materialize_grads=True
        )
    return {name: gradient.float() for name, gradient in zip(named, found, strict=True)}
