"""Per-example gradients of the adapter's parameters from one batched forward and backward pass (5.5)."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from elrea.errors import ConfigError
from elrea.models.loss import logits_at, token_losses

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

PREFIX_PARTS = ("lora_A", "lora_B")

TOKENS, KEPT = 512, 3 * 2**28
"""On a CPU, a pass has at most so many tokens, padding included, or as many as keep so many bytes for the backward pass
if that is more. A CPU is no faster with more. Other devices take a whole batch at once."""

Layers = str | int | Sequence[str]
"""Which matrices: `all`, those of the last k decoder layers, or those with one of these parts in their names."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Columns of one LoRA matrix in the flat gradient.

    Attributes:
        name: The parameter's name as PEFT saves it.
        module: The linear layer that applies it.
        start: Number of the first column.
        size: Number of columns, out·in.
    """

    name: str
    module: nn.Module
    start: int
    size: int


class PerExampleGradients:
    """Computes per-example gradients of the linear layers `lora_A` and `lora_B` of a PEFT model.

    For y = W x over a sequence, an example's gradient of W is Σ_t dy_t x_tᵀ: one product of the layer's input and the
    gradient of its output. No other gradient is computed, and the backward pass ends at the first selected layer, so
    that the cost is at most one forward and one backward pass of the batch. Gradient checkpointing works here although
    the model is in eval mode. Where a layer's rows do not tell whose they are (as those of a routed expert), every
    example has a pass of its own, which gives the same gradients.

    Args:
        model: A PEFT model; it is put in eval mode.
        layers: Which matrices.
        recompute: Activation checkpointing for every layer.

    Attributes:
        slots: The matrices in the order of the flat gradient (sorted by name).
        size: |θ_Q|, the length of a flat gradient.
        one_by_one: Whether every example has a pass of its own.

    Raises:
        ConfigError: No matrix is selected, or there are not that many layers.
    """

    def __init__(self, model: PeftModel, layers: Layers = "all", recompute: bool = False) -> None:
        self.model, self.recompute, self.one_by_one = model.eval(), recompute, False
        self._sure = False  # that every layer has the examples first
        found = _matrices(model)
        self.slots: list[Slot] = []
        self.size = 0
        for name in _chosen(sorted(found), layers):
            size = found[name].weight.numel()
            self.slots.append(Slot(name, found[name], self.size, size))
            self.size += size

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """Flattens tensors by parameter name to one vector [|θ|] in the order of the gradient."""
        return torch.cat([tensors[slot.name].flatten().float() for slot in self.slots])

    def __call__(
        self, ids: Tensor, mask: Tensor, carries_loss: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """The gradient of each example's mean token loss.

        Args:
            ids: Token ids [b, t], padded on the right.
            mask: True on tokens, False on padding [b, t].
            carries_loss: True on tokens whose loss counts [b, t]; the first token's is ignored.
            out: Where to write, [b, |θ|] in float32 on the model's device; may be rows of a larger buffer.

        Returns:
            Flat gradients [b, |θ|] in float32. An example's row does not depend on the other examples.
        """
        if out is None:
            out = torch.empty(len(ids), self.size, dtype=torch.float32, device=ids.device)
        if not self.one_by_one and len(ids) > 1:
            try:
                for part in self._passes(ids, mask):
                    rows, length = ids[part].shape
                    if rows == length and not self._sure:  # then [t, b, d] looks like [b, t, d]
                        self._check(ids[part][:1])
                    self._batch(ids[part], mask[part], carries_loss[part], out[part[0]])
                    self._sure |= rows > 1
                return out
            except _RowsUnknown as error:
                log.info("gradients are taken one example at a time: %s", error)
                self.one_by_one = True
        for row, length in enumerate(mask.sum(1).clamp(min=2).tolist()):
            one = (slice(row, row + 1), slice(0, length))
            self._batch(ids[one], mask[one], carries_loss[one], out[row : row + 1])
        return out

    @property
    def reach(self) -> int | None:
        """Decoder layers that the backward pass goes through, down to the lowest selected one; None: all."""
        numbers = sorted({_number(name) for name in _matrices(self.model)})
        lowest = min(_number(slot.name) for slot in self.slots)
        return None if lowest < 0 else len(numbers) - numbers.index(lowest)

    @contextmanager
    def selected_only(self) -> Iterator[None]:
        """Gradients are asked of the selected matrices alone, until the context ends."""
        selected = {id(slot.module.weight) for slot in self.slots}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in selected]
        try:
            for p in others:
                p.requires_grad_(False)
            yield
        finally:
            for p in others:
                p.requires_grad_(True)

    def rows(self, device: str, length: int) -> int:
        """Prompts of this length in one pass at most, on a type of device."""
        if device != "cpu":
            return sys.maxsize
        # A decoder layer keeps about twice what its adapted layers read.
        read = sum(cast("Tensor", slot.module.weight).shape[1] for slot in self.slots)
        token = 2 * read * next(self.model.parameters()).element_size()
        return max(1, max(TOKENS, KEPT // token) // length)

    def _passes(self, ids: Tensor, mask: Tensor) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of ids [b, t] in passes of about equal size, without columns that are padding alone."""
        fitting = self.rows(ids.device.type, ids.shape[1])
        if len(ids) <= fitting:
            yield slice(None), slice(None)
            return
        size = math.ceil(len(ids) / math.ceil(len(ids) / fitting))
        lengths = mask.sum(1).clamp(min=2).tolist()
        for start in range(0, len(ids), size):
            yield slice(start, start + size), slice(0, max(lengths[start : start + size]))

    def _batch(self, ids: Tensor, mask: Tensor, carries_loss: Tensor, out: Tensor) -> None:
        """Writes the gradients [b, |θ|] by one pass over all examples.

        Raises:
            _RowsUnknown: The rows of a layer do not tell to which example they belong.
        """
        sink = Sink(out)
        start = torch.zeros((), device=ids.device, requires_grad=True)
        # Without trainable parameters autograd computes no gradients summed over the batch in addition.
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        handles = [
            s.module.register_forward_hook(_reader(s, sink, start, ids.shape)) for s in self.slots
        ]
        try:
            for p in trainable:
                p.requires_grad_(False)
            with _recomputing(self.model, self.recompute):
                prompt_loss(self.model, ids, mask, carries_loss).backward()
        finally:
            for handle in handles:
                handle.remove()
            for p in trainable:
                p.requires_grad_(True)
        for slot in self.slots:
            if slot.start not in sink.written:  # a layer that the pass did not use
                out[:, slot.start : slot.start + slot.size] = 0

    @torch.no_grad()
    def _check(self, ids: Tensor) -> None:
        """Raises _RowsUnknown if a layer has not the examples first, by one pass of one example [1, t], t > 1."""
        handles = [
            s.module.register_forward_hook(
                lambda _m, inputs, _o, s=s: _examples_first(s, inputs[0], ids.shape)
            )
            for s in self.slots
        ]
        try:
            place = torch.zeros(1, dtype=torch.long, device=ids.device)
            logits_at(cast("PreTrainedModel", self.model), ids, place)
        finally:
            for handle in handles:
                handle.remove()


class _RowsUnknown(Exception):
    """The rows of a layer do not tell to which example they belong."""


def _examples_first(slot: Slot, given: Tensor, shape: Sequence[int]) -> None:
    """Checks that a layer's input is [b, ..., in] or [b·t, in], for token ids [b, t]. One example has every row."""
    b, t = shape
    fits = given.shape[0] == b if given.dim() > 2 else given.shape[0] == b * t
    if not fits:
        rows = " x ".join(map(str, given.shape))
        raise _RowsUnknown(f"{slot.name} gets {rows} numbers for {b} x {t} tokens")


class Sink:
    """Writes the gradients of layers to their columns of `out` [b, |θ|]."""

    def __init__(self, out: Tensor) -> None:
        self.out = out
        self.written: set[int] = set()

    def add(self, slot: Slot, back: Tensor, given: Tensor) -> None:
        """Adds Σ_t back_t given_tᵀ of each example, from [b, t, out] and [b, t, in], in float32.

        Both may have the same rows in other shapes, all of the first example's before those of the second: [b·t, d].
        """
        b = len(self.out)
        back, given = (x.float().reshape(b, -1, x.shape[-1]) for x in (back, given))
        thin = back.shape[2] <= given.shape[2]
        left, right = (back, given) if thin else (given, back)
        # One side of a LoRA matrix is r, much smaller than the other; with that side on the left the product is several
        # times faster.
        product = torch.bmm(left.transpose(1, 2), right)
        product = product if thin else product.transpose(1, 2)
        place = self.out[:, slot.start : slot.start + slot.size].view(product.shape)
        if slot.start in self.written:  # a layer that is used twice
            place.add_(product)
        else:
            place.copy_(product)
            self.written.add(slot.start)


class _Tap(torch.autograd.Function):
    """Identity on a layer's output, whose backward pass adds the layer's gradient to the sink.

    `start` requires a gradient, so that the graph begins here if nothing below requires one. The layer's input is saved
    by `save_for_backward`, so that gradient checkpointing can drop it and compute it again.
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


def _reader(slot: Slot, sink: Sink, start: Tensor, shape: Sequence[int]) -> Callable[..., Any]:
    def read(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
        if shape[0] > 1:
            _examples_first(slot, inputs[0], shape)
        return _Tap.apply(output, inputs[0].detach(), start, slot, sink)

    return read


def _matrices(model: PeftModel) -> dict[str, nn.Linear]:
    """The linear layers of the adapter's matrices, by the names under which PEFT saves their weights."""
    return {
        name.replace(".default", "") + ".weight": cast("nn.Linear", module)
        for name, module in model.named_modules()
        if name.endswith(".default") and name.split(".")[-2] in PREFIX_PARTS
    }


def decoder_layers(model: PeftModel) -> int:
    """Number of decoder layers that the adapter is in."""
    return len({_number(name) for name in _matrices(model)} - {-1})


def _chosen(names: list[str], layers: Layers) -> list[str]:
    """The names that `layers` selects."""
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
            raise ConfigError(f"features.layers: no matrix of the adapter has {part!r} in its name")
    chosen = [name for name in names if any(part in name for part in layers)]
    if not chosen:
        raise ConfigError("features.layers=[] selects nothing; give all, a number, or name parts")
    return chosen


def _number(name: str) -> int:
    """Number of the decoder layer that a parameter is in; -1 if it is in none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


@contextmanager
def _recomputing(model: PeftModel, every: bool) -> Iterator[None]:
    """Activation checkpointing of every layer, or of those with gradient checkpointing switched on, in eval mode.

    transformers' layers do it in training mode only, which would also switch on dropout in some models.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

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
    """max |g| of each row [b]: 0 for a prompt without gradient, NaN or infinite if the gradient is not finite."""
    # Two passes that only read are faster than a copy of all absolute values.
    return torch.maximum(gradients.amax(1), -gradients.amin(1))


def prompt_loss(model: PeftModel, ids: Tensor, mask: Tensor, carries_loss: Tensor) -> Tensor:
    """Sum over the examples of each one's mean next-token loss, in nats.

    The mean over tokens has the scale of the training loss, and so of Adam's moments. The sum over examples makes an
    example's gradient independent of its batch.
    """
    counted = (carries_loss & mask)[:, 1:]
    tokens = counted.sum(1, keepdim=True).clamp(min=1).expand_as(counted)
    # A token is predicted at the position before it.
    before = torch.cat([counted, torch.zeros_like(counted[:, :1])], dim=1)
    places = before.flatten().nonzero()[:, 0]
    losses = token_losses(cast("PreTrainedModel", model), ids, places, ids[:, 1:][counted])
    return (losses / tokens[counted]).sum()
