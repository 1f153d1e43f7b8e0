"""How adapters are trained: the settings of a run, and of one adapter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from elrea.errors import ConfigError

if TYPE_CHECKING:
    from elrea.models.training.batches import Item
    from elrea.models.training.schedule import Schedule


@dataclass(frozen=True)
class Training:
    """How adapters are trained: the base adapter, and from it the experts."""

    epochs: int = 3
    """Passes of the base adapter over all training data. The paper has 2 or 3."""
    expert_epochs: int = 3
    """Passes of each expert over its cluster. The paper has as many as for the base."""
    learning_rate: float = 5e-5
    """Highest rate of the base adapter; 5e-5 is the paper's, for 2 and 9 billion parameters.
    A backbone of a few million wants about a hundred times that."""
    expert_learning_rate: float = 2e-5
    """Highest rate of the experts: lower, since they start from the trained base adapter."""
    batch_size: int = 16
    """Examples in one forward pass."""
    accumulate: int = 1
    """Forward passes per optimiser step, where memory is short: batch_size=8 with accumulate=2
    trains as batch_size=16 does."""
    warmup: float = 0.0
    """Share of the steps in which the rate rises from 0, before it falls to 0 linearly."""
    loss_on: Literal["response", "all"] = "response"
    """Tokens that carry loss: the response's (as in LESS), or all (as equation (5.1) reads)."""
    beta1: float = 0.9
    """Adam's decay of the gradient's mean; the gradient features use it too."""
    beta2: float = 0.999
    """Adam's decay of the squared gradient's mean."""
    eps: float = 1e-8
    """Added to the root in Adam's quotient."""
    clip: float | None = None
    """Largest norm of a step's gradient, over all parameters; null leaves it as it is."""
    checkpoint_minutes: float = 10
    """A killed run loses at most this much; every epoch's end is kept besides."""
    early_stop: int | None = None
    """End the training of an adapter that learns from all examples (the base adapter, and the controls that are
    trained as it is) once so many epochs in a row have not lowered the loss on dev; its best epoch is what counts, and
    the features are means over the epochs up to that one. null trains all epochs. The rate falls as if all were
    trained. Experts train all of theirs: no dev example belongs to a cluster."""
    max_steps: int | None = None
    """End each training after so many optimiser steps: for trying things out."""
    group_by_length: bool = False
    """Put examples of like length in one step: less padding, so faster, but a step then sees
    few kinds of examples, which trains worse where length goes with kind."""
    recompute: bool = False
    """Keep no activations inside the layers but compute them again in the backward pass
    (activation checkpointing): a third more time, for a fraction of the memory."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train, by their names."""
        for name in ("epochs", "expert_epochs", "batch_size", "accumulate"):
            _need(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "expert_learning_rate", "eps"):
            _need(self, name, 0 < getattr(self, name) < math.inf, "above 0, and finite")
        for name in ("warmup", "beta1", "beta2"):
            _need(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        _need(self, "loss_on", self.loss_on in ("response", "all"), "response or all")
        _need(self, "clip", self.clip is None or self.clip > 0, "above 0, or null")
        _need(self, "checkpoint_minutes", self.checkpoint_minutes >= 0, "0 or more")
        stop = self.early_stop
        _need(self, "early_stop", stop is None or stop >= 1, "at least 1, or null")
        _need(self, "max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1")

    def base(self) -> Recipe:
        """The base adapter's recipe (step 1)."""
        return Recipe(self.epochs, self.learning_rate, self)

    def expert(self) -> Recipe:
        """An expert's recipe (step 4)."""
        return Recipe(self.expert_epochs, self.expert_learning_rate, self)


@dataclass(frozen=True)
class Recipe:
    """One adapter's share of a Training: how long and how fast."""

    epochs: int
    """Passes over its examples."""
    learning_rate: float
    """Its highest rate."""
    training: Training
    """All that base adapter and experts have in common."""

    def steps(self, examples: int) -> int:
        """Optimiser steps of a training on so many examples."""
        step = self.training.batch_size * self.training.accumulate
        total = self.epochs * math.ceil(examples / step)
        return min(total, self.training.max_steps or total)

    def schedule(self, examples: Sequence[Item], seed: int, stage: str) -> Schedule:
        """The schedule of a training.

        Args:
            examples: The training examples.
            seed: Of the order and of dropout.
            stage: The training's name.
        """
        from elrea.models.training.schedule import Schedule

        settings = self.training
        lengths = tuple(len(item.tokens) for item in examples)
        return Schedule(
            examples=len(examples),
            epochs=self.epochs,
            step_size=settings.batch_size * settings.accumulate,
            learning_rate=self.learning_rate,
            warmup=settings.warmup,
            seed=seed,
            stage=stage,
            max_steps=settings.max_steps,
            lengths=lengths if settings.group_by_length else None,
        )


def _need(settings: Training, name: str, holds: bool, what: str) -> None:
    """Raise ConfigError naming the field unless `holds`."""
    if not holds:
        raise ConfigError(f"training.{name}={getattr(settings, name)}: must be {what}")
