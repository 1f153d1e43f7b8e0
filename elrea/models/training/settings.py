"""Settings of the training: those of all adapters, and those of one."""

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
    """Passes of the base adapter over all training data. The paper uses 2 or 3. At least 1 with adapter.start too: the
    gradient features need Adam's moments from it."""
    expert_epochs: int = 3
    """Passes of each expert over its cluster. The paper uses as many as for the base adapter."""
    learning_rate: float = 5e-5
    """Highest learning rate of the base adapter. 5e-5 is the paper's, for backbones of 2 and 9 billion parameters;
    a backbone of a few million needs about a hundred times that."""
    expert_learning_rate: float = 2e-5
    """Highest learning rate of the experts; lower, since they start from the trained base adapter."""
    batch_size: int = 16
    """Examples in one forward pass."""
    accumulate: int = 1
    """Forward passes per optimiser step, to save memory: batch_size=8 with accumulate=2 trains like batch_size=16."""
    warmup: float = 0.0
    """Share of the steps in which the learning rate rises from 0, before it falls linearly to 0."""
    loss_on: Literal["response", "all"] = "response"
    """Tokens that carry loss: the response's (as in LESS), or all (as in equation (5.1))."""
    beta1: float = 0.9
    """Adam's decay rate of the mean gradient; the gradient features use it too."""
    beta2: float = 0.999
    """Adam's decay rate of the mean squared gradient."""
    eps: float = 1e-8
    """Added to the square root in Adam's denominator."""
    clip: float | None = None
    """Maximum norm of a step's gradient over all parameters; null does not clip."""
    checkpoint_minutes: float = 10
    """Time between checkpoints, which is what a killed run loses at most; every epoch's end is saved as well."""
    early_stop: int | None = None
    """Patience of early stop, for adapters trained on all examples (the base adapter and the controls like it): stop
    after this many epochs in a row without a lower loss on dev, and keep the best epoch. The features are then means
    over the epochs up to the best one. null trains all epochs. The learning rate falls as if all epochs were trained.
    Experts train all their epochs, since dev examples belong to no cluster."""
    max_steps: int | None = None
    """Stop each training after this many optimiser steps, for a quick try."""
    group_by_length: bool = False
    """Put examples of similar length in one step: less padding, so faster, but worse where length and kind of example
    are related, since a step then sees few kinds."""
    recompute: bool = False
    """Recompute the activations inside the layers in the backward pass (activation checkpointing): a third more time
    for a fraction of the memory."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that cannot train."""
        for name in ("epochs", "expert_epochs", "batch_size", "accumulate"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "expert_learning_rate", "eps"):
            _require(self, name, 0 < getattr(self, name) < math.inf, "above 0, and finite")
        for name in ("warmup", "beta1", "beta2"):
            _require(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        _require(self, "loss_on", self.loss_on in ("response", "all"), "response or all")
        _require(self, "clip", self.clip is None or self.clip > 0, "above 0, or null")
        _require(self, "checkpoint_minutes", self.checkpoint_minutes >= 0, "0 or more")
        stop = self.early_stop
        _require(self, "early_stop", stop is None or stop >= 1, "at least 1, or null")
        _require(self, "max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1")


@dataclass(frozen=True)
class Recipe:
    """Settings of one adapter: its epochs, its learning rate, and those it shares with all."""

    epochs: int
    """Passes over its examples."""
    learning_rate: float
    """Its highest learning rate."""
    training: Training
    """The settings that base adapter and experts share."""

    def steps(self, examples: int) -> int:
        """Optimiser steps of a training on so many examples."""
        total = self.epochs * self._steps_per_epoch(examples)
        return min(total, self.training.max_steps or total)

    def share(self, examples: int) -> float:
        """Share of its epochs' steps that a training makes: 1, or less where training.max_steps ends it."""
        total = self.epochs * self._steps_per_epoch(examples)
        return self.steps(examples) / total if total else 1.0

    def epochs_begun(self, examples: int) -> int:
        """Epochs that a training begins: all, or fewer where training.max_steps ends it. Each leaves a checkpoint."""
        return math.ceil(self.steps(examples) / max(1, self._steps_per_epoch(examples)))

    def _steps_per_epoch(self, examples: int) -> int:
        return math.ceil(examples / (self.training.batch_size * self.training.accumulate))

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


def _require(settings: Training, name: str, valid: bool, condition: str) -> None:
    """Raises ConfigError that names the field unless it is valid."""
    if not valid:
        raise ConfigError(f"training.{name}={getattr(settings, name)}: must be {condition}")
