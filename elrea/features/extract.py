"""From prompts to gradient features δ (step 2): one batched pass per epoch's checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor

from elrea.adapters.lora import load, set_state
from elrea.adapters.moments import Moments
from elrea.data.batches import by_length, pad
from elrea.data.prompts import Encoded
from elrea.errors import DataError
from elrea.features.adam import AdamState, adam_direction
from elrea.features.gradients import PerExampleGradients
from elrea.features.projection import Projection, Rademacher


@dataclass(frozen=True)
class GradientFeatures:
    """Gradients of a prompt's own tokens with respect to the base adapter, projected."""

    projection: Projection = field(default_factory=Rademacher)
    """How a gradient of some 10⁴ to 10⁸ entries becomes a feature."""
    form: str = "adam"
    """`adam`: what Adam would do with the gradient (the paper's); `sgd`: the gradient itself."""
    momentum: bool = True
    """Adam form: keep the momentum that all examples share (the paper does)."""
    batch_size: int = 32
    """Prompts in one pass. Changes nothing but speed and memory."""
    buffer_mb: int = 96
    """Gradients are collected up to this size before they are projected together, in MiB."""

    def __post_init__(self) -> None:
        if self.form not in ("adam", "sgd"):
            raise ValueError(f"form is 'adam' or 'sgd', not {self.form!r}")
        for name in ("batch_size", "buffer_mb"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def extract(
    model: PeftModel,
    checkpoints: Sequence[Path],
    prompts: Sequence[Encoded],
    features: GradientFeatures,
    *,
    pad_id: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> Tensor:
    """δ for every prompt: the mean of the projected gradients over the checkpoints, then unit length (5.2).

    Args:
        model: A PEFT model of the base adapter's shape; its adapter is replaced by each checkpoint's in turn.
        checkpoints: One folder per epoch with the adapter and Adam's moments.
        prompts: Prompts without responses; none empty.
        features: What to take and how.
        pad_id: The id that fills up short prompts.
        advance: Told after each batch how many passes over one prompt are done.

    Returns:
        [n, d] in float32 on the CPU, rows of length 1.

    Raises:
        DataError: A prompt whose gradient is zero or not finite, by its id.
    """
    gradients = PerExampleGradients(model)
    device = next(model.parameters()).device
    total = torch.zeros(len(prompts), features.projection.dimension(gradients.size))
    # Adam's momentum would hide a zero gradient: a prompt's own has to be looked at.
    largest = torch.zeros(len(prompts))
    rows = max(features.batch_size, features.buffer_mb * 2**20 // (4 * gradients.size))
    for checkpoint in checkpoints:
        set_state(model, load(checkpoint)[0])
        state = _state(gradients, checkpoint, device) if features.form == "adam" else None
        collected: list[Tensor] = []
        where: list[int] = []
        batches = by_length([len(p.prompt) for p in prompts], features.batch_size)
        for number, batch in enumerate(batches, 1):
            ids, mask = pad([prompts[i].prompt for i in batch], pad_id)
            got = gradients(
                ids.to(device), mask.to(device), _loss_mask(prompts, batch, mask).to(device)
            )
            largest[batch] = torch.maximum(largest[batch], got.abs().amax(1).cpu())
            collected.append(adam_direction(got, state, features.momentum) if state else got)
            where += batch
            if len(where) + features.batch_size > rows or number == len(batches):
                total[where] += features.projection(torch.cat(collected)).cpu()
                collected, where = [], []
            advance(len(batch))
    total /= len(checkpoints)
    length = total.norm(dim=1, keepdim=True)
    fine = (largest > 0) & largest.isfinite() & (length[:, 0] > 0) & length[:, 0].isfinite()
    for row in torch.nonzero(~fine)[:1, 0].tolist():
        raise DataError(
            f"{prompts[row].id}: its gradient is zero or not finite; leave the example out"
        )
    return total / length


def _loss_mask(prompts: Sequence[Encoded], batch: Sequence[int], mask: Tensor) -> Tensor:
    """True where a token's loss counts, [b, t]."""
    carries = mask.clone()
    for row, i in enumerate(batch):
        flags = prompts[i].loss_mask
        if flags is not None:
            carries[row, : len(flags)] &= torch.tensor(flags)
    return carries


def _state(gradients: PerExampleGradients, checkpoint: Path, device: torch.device) -> AdamState:
    moments = Moments.load(checkpoint)
    beta1, beta2 = moments.betas
    return AdamState(
        gradients.flat(moments.exp_avg).to(device), gradients.flat(moments.exp_avg_sq).to(device),
        moments.step, moments.learning_rate, beta1, beta2, moments.eps,
    )  # fmt: skip
