"""The schedule of a training: which examples each optimiser step sees, and its learning rate.

A schedule is a pure function of its fields. A resumed run needs no saved order, learning rate or dropout state: the
step's number determines them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from elrea.data.batches import epoch_order
from elrea.models.seeds import seed_of
from elrea.store.files import sha256_of


@dataclass(frozen=True)
class Schedule:
    """All optimiser steps of one adapter's training. Steps and epochs count from 1."""

    examples: int
    """Training examples, each seen once an epoch."""
    epochs: int
    """Passes over the examples."""
    step_size: int
    """Examples per optimiser step; one step of an epoch has what is left over."""
    learning_rate: float
    """The highest learning rate."""
    warmup: float
    """Share of all steps in which the learning rate rises."""
    seed: int
    """Seed of the order and of dropout."""
    stage: str
    """Name of the training, so that two adapters of one run see different orders."""
    max_steps: int | None = None
    """Stop after this many steps, with the linear decay ending there; None trains all epochs."""
    lengths: tuple[int, ...] | None = None
    """Tokens per example, to put examples of similar length in one step; None shuffles all."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        return math.ceil(self.examples / self.step_size)

    @property
    def total(self) -> int:
        """Optimiser steps of the whole training."""
        steps = self.epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch(self, step: int) -> int:
        """The epoch of a step."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` is the last of an epoch, or of the training."""
        return step % self.steps_per_epoch == 0 or step == self.total

    def rate(self, step: int) -> float:
        """The learning rate of `step`: linear up over the warm-up, then linear down to 0.

        With T steps, W of them warm-up, step s has s/W of the highest rate up to s = W, and
        (T - s + 1)/(T - W) of it after. No step has a rate of 0.
        """
        warm = round(self.warmup * self.total)
        if step <= warm:
            return self.learning_rate * step / warm
        return self.learning_rate * (self.total - step + 1) / (self.total - warm)

    def mean_rate(self, epoch: int) -> float:
        """η_e: the mean learning rate of the epoch's steps."""
        first = (epoch - 1) * self.steps_per_epoch + 1
        last = min(epoch * self.steps_per_epoch, self.total)
        return math.fsum(self.rate(s) for s in range(first, last + 1)) / (last - first + 1)

    def dropout_seed(self, step: int) -> int:
        """Seed of all randomness inside `step`: dropout."""
        return seed_of(self.seed, self.stage, "step", step)

    def order(self, epoch: int) -> list[list[int]]:
        """The steps of an epoch, each a list of indices of examples."""
        return epoch_order(
            self.examples, self.step_size, self.seed, self.stage, epoch - 1, self.lengths
        )

    def fingerprint(self) -> str:
        """SHA-256 of all fields: a training resumes only from a checkpoint of the same schedule."""
        text = ",".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return sha256_of(text).hexdigest()
