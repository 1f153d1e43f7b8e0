"""Step 2: the features of the training prompts, and of the test prompts before any response exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elrea.errors import ConfigError
from elrea.method.features.to_disk import stream
from elrea.models.training.train import epoch_folders
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import Step

if TYPE_CHECKING:
    from elrea.data.corpus import Split
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage


@dataclass(frozen=True)
class FeaturesStep(Step):
    """δ of every prompt of one split, as a memory-mapped file [n, d].

    Attributes:
        split: "train", "dev" or "test".
    """

    kind: ClassVar[str] = "features"
    version: ClassVar[int] = 2
    oom_advice: ClassVar[str] = (
        "features.batch_tokens, features.buffer_mb or features.batch_size, or set features.recompute=true"
    )

    split: Split

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        return [cls.for_split(context, "train")] if context.requirements.clustered else []

    @classmethod
    def for_split(cls, context: Context, split: Split) -> Step:
        """The step of one split."""
        upstream = ("base",) if context.experiment.features.from_base else ()
        return cls(f"features-{split}", upstream, split)

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        experiment = context.experiment
        _check_weights(context)
        identity = experiment.features.identity() if context.here else {}
        inputs = {
            "features": {
                **key_fields(experiment.features, *experiment.features.speed_fields),
                **identity,
            },
            "prompts": context.prompts,
            "examples": experiment.corpus.fingerprint(self.split),
        }
        if experiment.features.from_base:
            inputs["base"] = upstream["base"].key
        if self._masks_template(context):
            inputs["loss_on"] = "the user's words"
        return inputs

    def _masks_template(self, context: Context) -> bool:
        """Whether a template's tokens carry no loss in chats of one turn; in stages of older versions they did."""
        if not (
            context.here and context.experiment.features.by_loss and context.prompter.masks_template
        ):
            return False
        corpus = context.experiment.corpus
        examples = {"train": corpus.train, "dev": corpus.dev}.get(self.split, corpus.test)
        return any(not example.history and not example.plain_text for example in examples)

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        experiment, prompts = context.experiment, context.prompter.routing(context.kept(self.split))
        epochs = epoch_folders(upstream["base"].folder) if experiment.features.from_base else []
        with context.peft(experiment.lora) as model:
            reader = experiment.features.reader(
                model, epochs, context.backbone.pad_id, context.backbone.tokenizer
            )
            text, total = f"features, {self.split} prompts", len(prompts) * reader.rounds
            unit = "prompts" if reader.rounds == 1 else "prompts x epochs"
            with context.task(self.name, text, total, unit=unit) as task:
                if experiment.device.devices == 1:
                    return stream(
                        folder, prompts, experiment.features, reader, advance=task.advance
                    )
                from elrea.method.features.parallel import ExtractionTask, stream_shares

                work = ExtractionTask(
                    folder, prompts, experiment.features, experiment.backbone, experiment.lora, epochs,
                    experiment.device, experiment.seed,
                )  # fmt: skip
                stream_shares(work, task.advance)


def _check_weights(context: Context) -> None:
    """Refuses weights of epochs that do not fit those which the base adapter will have, before it is trained.

    Raises:
        ConfigError: What does not fit.
    """
    features, steps = context.experiment.features, context.experiment.training.max_steps
    if steps is None or not getattr(features, "epoch_weights", None):
        return features.check(max(1, context.base_epochs))  # without an epoch: at the start
    if not context.here:
        return None  # how many examples fit is not known
    epochs = max(1, context.epochs_begun)
    try:
        features.check(epochs)
    except ConfigError as error:
        raise ConfigError(f"{error} (training.max_steps={steps} ends in epoch {epochs})") from error


class FeaturesForTest(FeaturesStep):
    """The test prompts' features: to route by, or to judge a learned router."""

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        return [cls.for_split(context, "test")] if context.compares else []


class FeaturesForDev(FeaturesStep):
    """The dev prompts' features, where dev examples decide in which clusters an expert serves."""

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        routed = context.requirements.decided and not context.learned_router
        return [cls.for_split(context, "dev")] if routed else []
