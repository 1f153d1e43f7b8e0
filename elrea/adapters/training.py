"""Steps 1 and 4 of the method: an adapter trained from a start, its epochs' ends kept."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from elrea.errors import ConfigError
from elrea.files import write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from elrea.adapters.loader import Item
    from elrea.adapters.lora import Lora
    from elrea.adapters.plan import Plan
    from elrea.data.prompts import Encoded


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

    def plan(self, examples: Sequence[Item], seed: int, stage: str) -> Plan:
        """The steps that this comes to.

        Args:
            examples: what is trained on.
            seed: of the order and the dropout.
            stage: the training's name.
        """
        from elrea.adapters.plan import Plan

        settings = self.training
        lengths = tuple(len(item.tokens) for item in examples)
        return Plan(
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


def train_adapter(
    model: PeftModel,
    encoded: Sequence[Encoded],
    recipe: Recipe,
    *,
    pad_id: int,
    lora: Lora,
    base_name: str,
    seed: int,
    stage: str,
    folder: Path,
    start: dict[str, Tensor] | None = None,
    keep_moments: bool,
    trainer: dict[str, Any] | None = None,
    dev: Sequence[Encoded] = (),
    advance: Callable[[int], object] = lambda examples: None,
) -> None:
    """Train one adapter into `folder`, or go on where a killed run left it.

    Writes `adapter/` (a PEFT folder) and `curve.json` (a row per optimiser step: step, epoch,
    examples seen, loss, learning_rate; with early stop dev_loss at epochs' ends), and with
    `keep_moments` a folder `epoch_1`, `epoch_2`,
    … per epoch: the adapter at its end and Adam's moments. `checkpoint/` is what a second call
    resumes from; on one CPU and thread count its outcome equals the unbroken run's bit for bit.

    The outcome depends on the arguments alone, not on what the model's adapter held before or
    on the global random state, which is left as it was. The model comes back in eval mode on
    its device, holding the trained adapter.

    Args:
        model: backbone and adapter, as `lora.attach` makes it.
        encoded: the training examples.
        recipe: how to train.
        pad_id: the padding's token id.
        lora: the shape that `model` was attached with; it is written beside the weights.
        base_name: what the PEFT folders call the backbone.
        seed: of the first A (if there is no `start`), the order and the dropout.
        stage: the adapter's name within the job, e.g. "base" or "expert-03".
        folder: where all of it goes.
        start: the adapter to start from; None draws a fresh one. The optimiser is always fresh.
        keep_moments: write the epochs' folders.
        trainer: accelerator, devices, precision and strategy for Lightning's Trainer; what is not
            given follows from where the model is. Of several processes that train together
            (`elrea.adapters.shares`) the first one writes.
        dev: where `training.early_stop` looks; none: the plan is trained to its end.
        advance: called with the number of examples after each step, and on resuming once with
            those of the steps that are done.

    Raises:
        TrainingError: no examples, an example without loss, a loss that is not finite, or a
            checkpoint that cannot be read or is of other settings.
    """
    from elrea.adapters.fit import fit
    from elrea.adapters.folders import publish
    from elrea.adapters.loader import items
    from elrea.adapters.lora import initialise, load, save, set_state, state
    from elrea.adapters.module import AdapterModule
    from elrea.adapters.resume import sums_of
    from elrea.adapters.stopping import EarlyStop, after_best
    from elrea.adapters.together import share

    settings = recipe.training
    examples = items(encoded, settings.loss_on)
    plan = recipe.plan(examples, seed, stage)
    if start is None:
        initialise(model, seed)
    else:
        set_state(model, start)
    module = AdapterModule(model, plan, examples, settings, pad_id)
    transposed = bool(getattr(model.peft_config[model.active_adapter], "fan_in_fan_out", False))

    def write_adapter(place: Path) -> None:
        save(place, state(model), lora, base_name, transposed=transposed)

    def end_epoch(epoch: int) -> None:
        def write(place: Path) -> None:
            write_adapter(place)
            module.moments(epoch).save(place)

        if keep_moments:
            publish(folder / f"epoch_{epoch}", write)
            module.epochs[f"epoch_{epoch}"] = sums_of(folder / f"epoch_{epoch}")

    stop, best = None, folder / "checkpoint" / "best"
    if dev and settings.early_stop is not None:
        stop = EarlyStop(items(dev, settings.loss_on), settings.early_stop, best, write_adapter)
    fit(module, folder / "checkpoint", end_epoch, advance, trainer or {}, stop)
    if stop:
        set_state(model, load(best)[0])
    if share()[0] == 0:
        for later in after_best(module.curve):
            shutil.rmtree(folder / later, ignore_errors=True)
        publish(folder / "adapter", write_adapter)
        write_json(folder / "curve.json", module.curve)


def epoch_folders(folder: Path) -> list[Path]:
    """The folders `epoch_1`, `epoch_2`, … that `train_adapter` wrote, in their order."""
    return sorted(folder.glob("epoch_*[0-9]"), key=lambda path: int(path.name.split("_")[1]))


def _need(settings: Training, name: str, holds: bool, what: str) -> None:
    """Raise ConfigError naming the field unless `holds`."""
    if not holds:
        raise ConfigError(f"training.{name}={getattr(settings, name)}: must be {what}")
