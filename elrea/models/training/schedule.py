"""The plan of a training run: which examples each optimiser step sees, and at what rate.

A plan is a pure function of its fields. Nothing about the order, the rate or the dropout of a
step has to be saved for a resumed run: the step's number is enough.
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
    """The highest rate."""
    warmup: float
    """Share of all steps in which the rate rises."""
    seed: int
    """Of the order and the dropout."""
    stage: str
    """Name of the training, so that two adapters of one job see different orders."""
    max_steps: int | None = None
    """End after so many steps, with the decay fitted to them; None: all epochs whole."""
    lengths: tuple[int, ...] | None = None
    """Tokens per example, to put examples of similar length in one step; None: plain shuffle."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of a whole epoch."""
        return math.ceil(self.examples / self.step_size)

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        steps = self.epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch(self, step: int) -> int:
        """The epoch in which step number `step` lies."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch's state is due after `step` (the run's last step always is one)."""
        return step % self.steps_per_epoch == 0 or step == self.total

    def seen(self, step: int) -> int:
        """Examples seen by the end of `step`, repeats counted."""
        epoch = self.epoch(step)
        within = step - (epoch - 1) * self.steps_per_epoch
        return (epoch - 1) * self.examples + sum(map(len, self.order(epoch)[:within]))

    def rate(self, step: int) -> float:
        """The learning rate of `step`: linear up over the warm-up, then linear down to 0.

        With T steps and W of warm-up, step s has s/W of the highest rate up to s = W and
        (T - s + 1)/(T - W) after: no step is wasted on a rate of 0.
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
        """Seed of everything random inside `step`."""
        return seed_of(self.seed, self.stage, "step", step)

    def order(self, epoch: int) -> list[list[int]]:
        """The epoch's steps, each a list of indices of examples."""
        return epoch_order(
            self.examples, self.step_size, self.seed, self.stage, epoch - 1, self.lengths
        )

    def fingerprint(self) -> str:
        """SHA-256 of all fields: a checkpoint of another plan must not be gone on with."""
        text = ",".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return sha256_of(text).hexdigest()
