"""Gradient features δ of prompts (step 2): one batched pass per checkpoint of the base adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from elrea.data.batches import by_tokens, pad
from elrea.errors import ConfigError
from elrea.method.features.adam import AdamState, adam_direction
from elrea.method.features.base import Advance, Batches, Features, finish
from elrea.method.features.per_example import (
    Layers,
    PerExampleGradients,
    decoder_layers,
    largest_entry,
)
from elrea.method.features.projection import Projection
from elrea.method.features.sjlt import Sjlt
from elrea.models.lora import load, set_state
from elrea.models.training.moments import Moments

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from elrea.data.prompts import Encoded
    from elrea.models.footprint import Footprint

PART = 8
"""`cost=cheap` takes the gradients of one decoder layer in so many, rounded up."""


@dataclass(frozen=True)
class GradientFeatures(Features):
    """Gradients of a prompt's own tokens with respect to the base adapter, projected (5.2 to 5.7)."""

    projection: Projection = field(default_factory=Sjlt)
    """How a gradient of 10⁴ to 10⁸ entries is reduced to a feature."""
    form: str = "adam"
    """`adam`: Adam's update direction (as in the paper); `sgd`: the gradient itself."""
    momentum: bool = True
    """Adam form: keep the momentum term, which all examples share (as in the paper)."""
    layers: Literal["all"] | int | list[str] = "all"
    """Layers to take gradients of: `all`, the last k decoder layers, or those with one of these parts in the name. The
    backward pass ends at the lowest of them, and what is below keeps nothing for it."""
    normalise: bool = True
    """Scale a feature to length 1, after the mean over epochs. False is a row of the paper's clustering ablation."""
    epoch_weights: list[float] | None = None
    """Weight of each epoch's checkpoint in the mean; null: equal weights (as in the paper)."""
    cost: Literal["paper", "cheap"] = "paper"
    """`paper`: all layers at every checkpoint. `cheap`: the last eighth of the decoder layers, rounded up, at the first
    checkpoint: one forward pass and a short backward pass. Adam's form has the epoch's mean learning rate as a factor,
    so that with a falling rate the first checkpoint is most of the paper's mean (experiments/features_cost). `layers`
    other than `all` and `epoch_weights` other than null are kept."""
    batch_size: int = 32
    """Prompts in one pass at most. Speed and memory only."""
    batch_tokens: int = 8192
    """Tokens in one pass at most, padding included. Speed and memory only. On a CPU a large model's
    batch is cut further (`per_example.KEPT`)."""
    buffer_mb: int = 96
    """MiB of gradients that are collected before they are projected together. Speed and memory only."""
    recompute: bool = False
    """Activation checkpointing: compute the activations inside the layers again in the backward pass instead of keeping
    them. A third more time for a fraction of the memory."""
    from_base: ClassVar[bool] = True
    by_loss: ClassVar[bool] = True
    added_fields: ClassVar[tuple[str, ...]] = ("cost",)
    speed_fields: ClassVar[tuple[str, ...]] = (*Features.speed_fields, "buffer_mb", "recompute")

    def __post_init__(self) -> None:
        if self.form not in ("adam", "sgd"):
            raise ValueError(f"form is 'adam' or 'sgd', not {self.form!r}")
        if self.cost not in ("paper", "cheap"):
            raise ValueError(f"cost is 'paper' or 'cheap', not {self.cost!r}")
        self.check_sizes("batch_size", "batch_tokens", "buffer_mb")
        weights = self.epoch_weights
        if weights is not None and not (
            all(0 <= w < float("inf") for w in weights) and any(weights)
        ):
            raise ValueError(f"epoch_weights={weights} must be 0 or more each, and one above 0")

    def passes(self, epochs: int) -> int:
        """A forward and a backward pass per checkpoint of positive weight."""
        return 2 * self.checkpoints(epochs)

    def checkpoints(self, epochs: int) -> int:
        """Number of checkpoints of positive weight, of which a prompt's gradient is taken."""
        return sum(weight > 0 for weight in self._weights(epochs))

    def selected(self, model: PeftModel) -> Layers:
        """The layers to take gradients of, with what `cost` decides where `layers` leaves it open."""
        count = decoder_layers(model) if self.cost == "cheap" and self.layers == "all" else 0
        return ceil(count / PART) if count else self.layers

    def check(self, epochs: int | None) -> None:
        """Rejects epoch weights whose number differs from that of the epochs, or when that number is open."""
        if epochs is not None:
            self._weights(epochs)
        elif self.epoch_weights:
            raise ConfigError(
                "features.epoch_weights has a weight for every epoch, and training.early_stop leaves their number "
                "open; set features.epoch_weights=null"
            )

    def fits(self, model: PeftModel) -> None:
        """Rejects `layers` that select no matrix of the adapter."""
        PerExampleGradients(model, self.selected(model))

    def memory(self, footprint: Footprint, length: int) -> tuple[float, str]:
        """Backbone, activations of the largest batch, the adapter, Adam's two moments of the gradient's entries, and
        the buffer of collected gradients."""
        gradients = PerExampleGradients(footprint.model, self.selected(footprint.model))
        fitting = gradients.rows(footprint.device, length)
        prompts = max(1, min(self.batch_size, self.batch_tokens // length, fitting))
        with gradients.selected_only():
            activations = footprint.saved(
                prompts, length, prompts * length, self.recompute, gradients.reach
            )
        buffer = max(4 * gradients.size * self.batch_size, self.buffer_mb * 2**20)
        moments = 2 * gradients.size if self.form == "adam" else 0
        used = activations + buffer + footprint.weights + 4 * (footprint.adapter + moments)
        again = ", recomputed" if self.recompute else ""
        return used, f"{prompts} x {length:,} tokens{again}"

    def reader(
        self,
        model: PeftModel,
        checkpoints: Sequence[Path],
        pad_id: int,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> GradientReader:
        weights = self._weights(len(checkpoints))
        weighed = [(c, w) for c, w in zip(checkpoints, weights, strict=True) if w > 0]
        return GradientReader(self, model, weighed, pad_id)

    def _weights(self, epochs: int) -> list[float]:
        plain = [1.0] * epochs if self.cost == "paper" else [1.0, *[0.0] * (epochs - 1)]
        weights = self.epoch_weights or plain
        if len(weights) != epochs:
            raise ConfigError(
                f"features.epoch_weights: {len(weights)} weights for {epochs} epochs; give one per epoch, or null"
            )
        return [weight / sum(weights) for weight in weights]


class GradientReader:
    """Mean of the projected gradients over the checkpoints: δ before it is scaled to length 1 (5.2).

    Args:
        features: The settings.
        model: A PEFT model of the base adapter's shape; its adapter is replaced by each checkpoint's in turn.
        checkpoints: Folders with the adapter and Adam's moments, each with its weight; the weights sum to 1.
        pad_id: Token id of padding.
    """

    def __init__(
        self,
        features: GradientFeatures,
        model: PeftModel,
        checkpoints: Sequence[tuple[Path, float]],
        pad_id: int,
    ) -> None:
        self.features, self.model, self.checkpoints = features, model, checkpoints
        self.pad_id = pad_id
        self.gradients = PerExampleGradients(model, features.selected(model), features.recompute)
        self.dimension = features.projection.dimension(self.gradients.size)
        self.rounds = len(checkpoints)
        self.device = next(model.parameters()).device

    def __call__(self, batches: Batches, advance: Advance) -> tuple[Tensor, Tensor]:
        """As for `Reader`; prompts whose gradient is zero at every checkpoint, or not finite, have no feature."""
        count = sum(len(batch) for batch in batches)
        total = torch.zeros(count, self.dimension)
        # Checked before Adam's form, in which the momentum would hide a zero gradient.
        largest = torch.zeros(count)
        room = max(
            self.features.batch_size, self.features.buffer_mb * 2**20 // (4 * self.gradients.size)
        )
        collected = torch.empty(min(room, count), self.gradients.size, device=self.device)
        for checkpoint, weight in self.checkpoints:
            set_state(self.model, load(checkpoint)[0])
            state = self._state(checkpoint) if self.features.form == "adam" else None
            start = end = 0  # rows that are collected and not projected yet
            for number, batch in enumerate(batches, 1):
                self._gradients(batch, collected[end - start : end - start + len(batch)])
                end += len(batch)
                following = len(batches[number]) if number < len(batches) else room
                if end - start + following > room:
                    got, rows = collected[: end - start], slice(start, end)
                    largest[rows] = torch.maximum(largest[rows], largest_entry(got).cpu())
                    if state is not None:
                        adam_direction(got, state, self.features.momentum)
                    total[rows] += weight * self.features.projection(got).cpu()
                    start = end
                advance(len(batch))
        return total, (largest > 0) & largest.isfinite()

    def _gradients(self, batch: Sequence[Encoded], out: Tensor) -> None:
        """Writes the gradients [b, |θ|] to `out`; 0 for prompts of a single token, in which nothing is predicted."""
        ids, mask = pad([prompt.prompt for prompt in batch], self.pad_id)
        if ids.shape[1] < 2:
            out.zero_()
            return
        counted = _loss_mask(batch, mask).to(self.device)
        self.gradients(ids.to(self.device), mask.to(self.device), counted, out)

    def _state(self, checkpoint: Path) -> AdamState:
        moments = Moments.load(checkpoint)
        beta1, beta2 = moments.betas
        m, v = (self.gradients.flat(group) for group in (moments.exp_avg, moments.exp_avg_sq))
        return AdamState(
            m.to(self.device), v.to(self.device),
            moments.step, moments.learning_rate, beta1, beta2, moments.eps,
        )  # fmt: skip


def extract(
    model: PeftModel,
    checkpoints: Sequence[Path],
    prompts: Sequence[Encoded],
    features: Features,
    *,
    pad_id: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
    advance: Advance = lambda _n: None,
) -> Tensor:
    """Features of a few prompts, in memory; `to_disk.stream` writes those of many to a file.

    Args:
        model: A PEFT model of the base adapter's shape; its adapter may be replaced.
        checkpoints: One folder per epoch with the adapter and Adam's moments.
        prompts: Prompts without responses.
        features: The settings.
        pad_id: Token id of padding.
        tokenizer: The backbone's, for features that need a prompt's text.
        advance: Called after each batch with the number of finished passes over one prompt.

    Returns:
        [n, d] in float32 on the CPU, of length 1 if `features.normalise`; zeros for prompts without a feature.
    """
    reader = features.reader(model, checkpoints, pad_id, tokenizer)
    lengths = [len(prompt.prompt) for prompt in prompts]
    batches = by_tokens(lengths, features.batch_size, features.batch_tokens)
    rows, valid = reader([[prompts[i] for i in batch] for batch in batches], advance)
    out = torch.empty_like(rows)
    out[list(chain.from_iterable(batches))] = finish(rows, valid, features.normalise)[0]
    return out


def _loss_mask(batch: Sequence[Encoded], mask: Tensor) -> Tensor:
    """True for tokens whose loss counts [b, t]."""
    counted = mask.clone()
    for row, prompt in enumerate(batch):
        if prompt.loss_mask is not None:
            counted[row, : len(prompt.loss_mask)] &= torch.tensor(prompt.loss_mask)
    return counted
