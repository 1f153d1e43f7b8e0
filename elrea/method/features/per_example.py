"""Gradients of the adapter's parameters, one per example, from one batched pass (5.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from elrea.errors import ConfigError
from elrea.models.loss import logits_at

PREFIX_PARTS = ("lora_A", "lora_B")

Layers = str | int | Sequence[str]
"""Whose gradients: `all`, the last k decoder layers', or those whose names hold one of these parts."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one LoRA matrix stands in the flat gradient.

    Attributes:
        name: The parameter's name as PEFT saves it.
        module: The linear layer that applies it.
        start: First column.
        size: Number of columns, out x in.
    """

    name: str
    module: nn.Module
    start: int
    size: int


class PerExampleGradients:
    """Reads per-example gradients off the linear layers `lora_A` and `lora_B` of a PEFT model.

    For y = W x over a sequence, an example's gradient is the sum over its tokens of dy xᵀ: one product of what the
    layer was given and of what flows back into it. Nothing else is differentiated, and the backward pass ends at the
    first layer that is wanted, so that the cost is one forward and one backward pass of the batch at most. Where
    gradient checkpointing is switched on, it holds here too, though the model is in eval mode.

    Args:
        model: A PEFT model; it is put in eval mode.
        layers: `all`, the last k decoder layers, or every matrix whose name holds one of these parts.
        recompute: Compute every layer's inside again in the backward pass instead of keeping it.

    Attributes:
        slots: The matrices in the order of the flat gradient (sorted by name).
        size: |θ_Q|, the length of a flat gradient.

    Raises:
        ConfigError: No matrix is left, or there are not that many layers.
    """

    def __init__(self, model: PeftModel, layers: Layers = "all", recompute: bool = False) -> None:
        self.model, self.recompute = model.eval(), recompute
        found = {
            name.replace(".default", "") + ".weight": module
            for name, module in model.named_modules()
            if name.endswith(".default") and name.split(".")[-2] in PREFIX_PARTS
        }
        self.slots: list[Slot] = []
        self.size = 0
        for name in _chosen(sorted(found), layers):
            size = found[name].weight.numel()
            self.slots.append(Slot(name, found[name], self.size, size))
            self.size += size

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """Lays tensors by parameter name out as one vector [|θ|] in the gradient's order."""
        return torch.cat([tensors[slot.name].flatten().float() for slot in self.slots])

    def __call__(
        self, ids: Tensor, mask: Tensor, carries_loss: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """Takes the gradient of each example's mean token loss.

        Args:
            ids: Token ids [b, t], padded on the right.
            mask: True on tokens, False on padding [b, t].
            carries_loss: True on the tokens whose loss counts [b, t]; the first one's never does.
            out: Where to write, [b, |θ|] in float32 on the model's device; rows of a larger buffer will do.

        Returns:
            Flat gradients [b, |θ|] in float32. What an example's row holds does not depend on the others.
        """
        if out is None:
            out = torch.empty(len(ids), self.size, dtype=torch.float32, device=ids.device)
        sink = Sink(out)
        start = torch.zeros((), device=ids.device, requires_grad=True)
        # Without trainable parameters autograd computes no summed weight gradients beside ours.
        wanted = [p for p in self.model.parameters() if p.requires_grad]
        handles = [s.module.register_forward_hook(_reader(s, sink, start)) for s in self.slots]
        try:
            for p in wanted:
                p.requires_grad_(False)
            with _recomputing(self.model, self.recompute):
                prompt_loss(self.model, ids, mask, carries_loss).backward()
        finally:
            for handle in handles:
                handle.remove()
            for p in wanted:
                p.requires_grad_(True)
        for slot in self.slots:
            if slot.start not in sink.written:  # a layer that no token went through
                out[:, slot.start : slot.start + slot.size] = 0
        return out


class Sink:
    """Takes the products of layers into their columns of `out` [b, |θ|]."""

    def __init__(self, out: Tensor) -> None:
        self.out = out
        self.written: set[int] = set()

    def add(self, slot: Slot, back: Tensor, given: Tensor) -> None:
        """Σ_t back_t given_tᵀ of each example, from [b, t, o] and [b, t, i], in float32."""
        back, given = back.float(), given.float()
        thin = back.shape[2] <= given.shape[2]
        left, right = (back, given) if thin else (given, back)
        # A LoRA matrix is r numbers wide: with that side on the left the product is several times faster.
        product = torch.bmm(left.transpose(1, 2), right)
        product = product if thin else product.transpose(1, 2)
        place = self.out[:, slot.start : slot.start + slot.size].view(product.shape)
        if slot.start in self.written:  # a layer that is used twice
            place.add_(product)
        else:
            place.copy_(product)
            self.written.add(slot.start)


class _Tap(torch.autograd.Function):
    """Passes a layer's output on, and hands what flows back to the sink.

    `start` requires a gradient, so that a graph begins here where there was none below. What the layer was given is
    saved the way autograd saves things, so that gradient checkpointing drops it and computes it again.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, given: Tensor, start: Tensor, slot: Slot, sink: Sink
    ) -> Tensor:
        ctx.save_for_backward(given)
        ctx.slot, ctx.sink = slot, sink
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (back,), (given,) = grads, ctx.saved_tensors
        ctx.sink.add(ctx.slot, back, given)
        return back if ctx.needs_input_grad[0] else None, None, None, None, None


def _reader(slot: Slot, sink: Sink, start: Tensor) -> Callable[..., Any]:
    def read(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
        return _Tap.apply(output, inputs[0].detach(), start, slot, sink)

    return read


def _chosen(names: list[str], layers: Layers) -> list[str]:
    """The names that `layers` leaves."""
    if layers == "all":
        return names
    if isinstance(layers, str):
        raise ConfigError(f"features.layers={layers}: give all, a number, or a list of name parts")
    if isinstance(layers, int):
        numbers = sorted({_number(name) for name in names} - {-1})
        if not 1 <= layers <= len(numbers):
            raise ConfigError(
                f"features.layers={layers}: the adapter is in {len(numbers)} decoder layers; give 1 to {len(numbers)}"
            )
        return [name for name in names if _number(name) in numbers[-layers:]]
    for part in layers:
        if not any(part in name for name in names):
            raise ConfigError(f"features.layers: no adapted matrix has {part!r} in its name")
    chosen = [name for name in names if any(part in name for part in layers)]
    if not chosen:
        raise ConfigError("features.layers=[] leaves nothing; give all, a number, or name parts")
    return chosen


def _number(name: str) -> int:
    """Which decoder layer a parameter is in; -1 for none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


@contextmanager
def _recomputing(model: PeftModel, every: bool) -> Iterator[None]:
    """Checkpoints every layer, or those that are set to, in eval mode too.

    Layers do so by themselves in training mode alone, and that would switch some models' dropout on.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer)
        and (every or module.gradient_checkpointing)
    ]
    for layer in layers:
        again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        layer.__dict__["forward"] = again
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def largest_entry(gradients: Tensor) -> Tensor:
    """max |g| of each row [b]: 0 says that a prompt has no gradient, NaN or infinity that it has no good one."""
    # Two passes that only read, without a copy of all absolute values.
    return torch.maximum(gradients.amax(1), -gradients.amin(1))


def prompt_loss(model: PeftModel, ids: Tensor, mask: Tensor, carries_loss: Tensor) -> Tensor:
    """Sum over examples of the mean next-token loss over each example's own tokens, in nats.

    The mean is the training loss's scale, which Adam's moments have; the sum makes an example's
    gradient independent of its batch.
    """
    counted = (carries_loss & mask)[:, 1:]
    tokens = counted.sum(1, keepdim=True).clamp(min=1).expand_as(counted)
    # One column shorter than ids: the place of a token is where it is predicted from.
    before = torch.cat([counted, torch.zeros_like(counted[:, :1])], dim=1)
    places = before.flatten().nonzero()[:, 0]
    losses = cross_entropy(
        logits_at(cast(PreTrainedModel, model), ids, places).float(),
        ids[:, 1:][counted],
        reduction="none",
    )
    return (losses / tokens[counted]).sum()
