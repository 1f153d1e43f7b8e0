"""Steps 1 and 4: the base adapter, and every adapter beside it (experts, controls)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elrea.errors import ConfigError
from elrea.method.clustering.assignment import read_clusters
from elrea.method.ensemble.strategy import BASE, AdapterSpec
from elrea.method.ensemble.tags import tagged
from elrea.models.log import PASSES
from elrea.models.start import folder_of, weights
from elrea.models.training.settings import Recipe
from elrea.models.training.train import train_adapter
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import TO_DO, Step

if TYPE_CHECKING:
    from elrea.data.prompts import Encoded
    from elrea.models.training.parallel import Fitting
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage

log = logging.getLogger(__name__)

NOT_KEYED = (
    "checkpoint_minutes", "recompute", "early_stop",
    "epochs", "expert_epochs", "learning_rate", "expert_learning_rate",
)  # fmt: skip
"""Fields of the training that do not change an adapter, or that its spec replaces; early_stop counts where it acts."""


@dataclass(frozen=True)
class Adapter(Step):
    """One adapter of a strategy, as "expert-0": trained on all examples, a cluster's or a source's.

    Attributes:
        spec: Its shape, its start, on what and how long it is trained.
    """

    kind: ClassVar[str] = "adapter"
    version: ClassVar[int] = 1
    sharded: ClassVar[bool] = True
    oom_advice: ClassVar[str] = (
        "training.batch_size (training.accumulate makes up for it) or backbone.max_length, or set "
        "training.recompute=true"
    )

    spec: AdapterSpec

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        if clusters is None:  # their stages are listed when others have been made already
            for name, spec in context.requirements.adapters(2).items():
                found = cls(name, (), spec)
                found._check_clusters(context)
                found._starts(context)
        return [
            cls(name, ("base",) * spec.from_base + ("clusters",) * spec.clustered, spec)
            for name, spec in context.requirements.adapters(clusters).items()
        ]

    @classmethod
    def later(cls, context: Context, clusters: int | None) -> Sequence[tuple[str, str]]:
        known = context.requirements
        listed = known.adapters(clusters)
        names = replace(known, sources=known.sources or ("?",)).adapters(clusters or 1)
        patterns = (re.sub(r"-\d+$", "-*", name) for name in names if name not in listed)
        return [(pattern, TO_DO) for pattern in dict.fromkeys(patterns)]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        experiment, spec = context.experiment, self.spec
        inputs: dict[str, Any] = {
            "name": self.name,
            "lora": key_fields(spec.lora, "start", *(() if spec.lora.rslora else ("rslora",))),
            "epochs": spec.epochs,
            "learning_rate": spec.learning_rate,
            "training": key_fields(experiment.training, *NOT_KEYED),
            "precision": experiment.device.precision,
            "seed": experiment.seed,
        }
        if spec.draw:
            inputs["draw"] = spec.draw
        if experiment.device.together > 1 and (spec.lora.dropout or context.backbone_draws):
            # Each process draws its own dropout masks.
            inputs["processes"] = experiment.device.together
        if self._starts(context) and context.start:
            inputs["start"] = context.start
        if spec.from_base:
            inputs["base"] = upstream["base"].key
        else:
            inputs |= {"prompts": context.prompts, "train": experiment.corpus.fingerprint("train")}
        if experiment.training.early_stop and spec.stops_early:
            dev = experiment.corpus.fingerprint("dev")
            inputs |= {"early_stop": experiment.training.early_stop, "dev": dev}
        if spec.source is not None:
            inputs["source"] = spec.source
        if spec.steering is not None:
            inputs["steering"] = key_fields(spec.steering)
            if spec.clustered:
                inputs["clusters"] = upstream["clusters"].key
        if spec.cluster is not None:
            inputs |= {
                "clusters": upstream["clusters"].key,
                "examples": spec.examples,
                "cluster": spec.cluster,
            }
        if spec.by_cluster is not None:
            self._check_clusters(context)
            inputs |= {"clusters": upstream["clusters"].key, "by_cluster": spec.by_cluster}
            if spec.by_cluster == "tag":
                inputs["tag"] = spec.tag
        return inputs

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        experiment, spec = context.experiment, self.spec
        # Balanced draws are of all epochs together.
        epochs = 1 if spec.by_cluster == "balance" else spec.epochs
        recipe = Recipe(epochs, spec.learning_rate, experiment.training)
        seed, base = spec.seed(experiment.seed), self.name == BASE
        clusters: Sequence[int] = ()
        if spec.steering is not None:
            encoded, clusters = grouped(spec.steering.by, context, upstream)
        elif spec.by_cluster == "project":
            encoded, clusters = grouped("found", context, upstream)
        else:
            encoded = examples_of(spec, context, upstream)
        start = upstream["base"].folder / "adapter" if spec.from_base else None
        if self._starts(context):
            start = folder_of(str(spec.lora.start))
        fitting, dev = _must_fit(context) if base else [], self._dev(context)
        total, steps = len(encoded) * recipe.epochs, recipe.steps(len(encoded))
        unit = "examples" if recipe.epochs == 1 else PASSES
        with context.task(self.name, f"train {self.name}", total, steps, unit) as task:
            if experiment.device.together > 1:
                from elrea.models.training.parallel import TrainingTask, train_shares

                work = TrainingTask(
                    folder, encoded, recipe, experiment.backbone, spec.lora, seed, self.name, start, base,
                    experiment.device, fitting, dev, spec.steering, clusters,
                )  # fmt: skip
                return train_shares(work, task)
            with context.peft(spec.lora) as model:
                for part in fitting:
                    part.fits(model)
                shared: dict[str, Any] = {
                    "pad_id": context.backbone.pad_id, "lora": spec.lora, "base_name": context.backbone.name,
                    "seed": seed, "stage": self.name, "folder": folder, "start": weights(start) if start else None,
                    "trainer": experiment.device.lightning(), "task": task,
                }  # fmt: skip
                if spec.steering is not None:
                    from elrea.models.training.steered import train_steered

                    return train_steered(model, encoded, clusters, recipe, spec.steering, **shared)
                train_adapter(
                    model,
                    encoded,
                    recipe,
                    keep_moments=base,
                    dev=dev,
                    clusters=clusters or None,
                    **shared,
                )

    def _check_clusters(self, context: Context) -> None:
        """Refuses what a training by clusters cannot do, before anything is trained.

        Raises:
            ConfigError: Gradients to project are spread over processes, or texts have no instruction to tag.
        """
        plain = next((e for e in context.experiment.corpus.train if e.plain_text), None)
        if self.spec.by_cluster == "tag" and plain is not None:
            raise ConfigError(
                f"{self.name}: {plain.id} is plain text, which has no instruction to write a tag before; leave its "
                "strategy out"
            )
        if self.spec.by_cluster == "project" and context.experiment.device.together > 1:
            raise ConfigError(
                f"{self.name}: clusters' gradients are projected in one process; leave its strategy out, or set "
                "trainer.devices=1"
            )

    def _starts(self, context: Context) -> bool:
        """Whether it starts from `adapter.start`, as all adapters do that do not start from the base adapter.

        Raises:
            ConfigError: It has another shape than the start.
        """
        lora = self.spec.lora
        if self.spec.from_base or lora.start is None:
            return False
        if lora != context.experiment.lora:
            raise ConfigError(
                f"{self.name}: has rank {lora.r}, so it cannot start from adapter.start, which has rank "
                f"{context.experiment.lora.r}; leave its strategy out, or say adapter.start=null"
            )
        return True

    def _dev(self, context: Context) -> list[Encoded]:
        """Where an early stop measures the loss, if this training has one.

        Raises:
            DataError: No dev example fits.
        """
        experiment = context.experiment
        if experiment.training.early_stop is None or not self.spec.stops_early:
            return []
        return context.prompter.train(experiment.corpus.dev, "dev")[0]


@dataclass(frozen=True)
class BaseAdapter(Adapter):
    """Step 1: the adapter that is trained on all examples, with Adam's moments at each epoch's end."""

    kind: ClassVar[str] = "base"

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        experiment = context.experiment
        spec = AdapterSpec(
            experiment.lora,
            context.base_epochs,
            experiment.training.learning_rate,
            "all",
            from_base=False,
        )
        return [cls(BASE, (), spec)]

    @classmethod
    def later(cls, context: Context, clusters: int | None) -> Sequence[tuple[str, str]]:
        return ()


def examples_of(
    spec: AdapterSpec, context: Context, upstream: Mapping[str, Stage]
) -> list[Encoded]:
    """The training examples that an adapter sees."""
    if spec.by_cluster == "tag":
        found = _with_cluster("found", context, upstream)
        kept = context.kept("train")
        named = tagged([kept[i] for i, _ in found], spec.tag, [cluster for _, cluster in found])
        fitting, too_long = context.prompter.train(named)
        if too_long:
            log.warning(
                "%d training examples are too long with their cluster's tag, and left out of that adapter: %s",
                len(too_long), ", ".join(too_long[:5]),
            )  # fmt: skip
        return fitting
    encoded = context.encoded_train[0]
    if spec.by_cluster == "balance":
        from elrea.models.training.balanced import balanced

        kept_encoded, clusters = grouped("found", context, upstream)
        draws, seed = spec.epochs * len(kept_encoded), spec.seed(context.experiment.seed)
        return [kept_encoded[i] for i in balanced(clusters, draws, seed)]
    if spec.examples == "all":
        return encoded
    if spec.examples == "source":
        theirs = {e.id for e in context.kept("train") if e.source == spec.source}
        return [example for example in encoded if example.id in theirs]
    column = "assignment" if spec.examples == "cluster" else "random"
    members = read_clusters(upstream["clusters"].folder)[column].tolist()
    return [e for e, cluster in zip(encoded, members, strict=True) if cluster == spec.cluster]


def grouped(
    by: str, context: Context, upstream: Mapping[str, Stage]
) -> tuple[list[Encoded], list[int]]:
    """The training examples that have a cluster, and its number.

    Args:
        by: Field `by` of `Steering`.
        context: Of the experiment.
        upstream: With "clusters", unless sources are the clusters.
    """
    encoded, pairs = context.encoded_train[0], _with_cluster(by, context, upstream)
    return [encoded[index] for index, _ in pairs], [cluster for _, cluster in pairs]


def _with_cluster(
    by: str, context: Context, upstream: Mapping[str, Stage]
) -> list[tuple[int, int]]:
    """Number and cluster of each training example that fits and has a cluster; arguments as for `grouped`."""
    if by == "source":
        names = list(context.requirements.sources)
        found = [names.index(example.source) for example in context.kept("train")]
    else:
        column = "assignment" if by == "found" else "random"
        found = read_clusters(upstream["clusters"].folder)[column].tolist()
    pairs = [(index, cluster) for index, cluster in enumerate(found) if cluster >= 0]
    if missing := len(found) - len(pairs):
        log.warning("%d training examples have no feature and so no cluster: left out", missing)
    return pairs


def _must_fit(context: Context) -> list[Fitting]:
    """What the base adapter's model has to suit, checked before it is trained."""
    experiment = context.experiment
    found: list[Fitting] = [experiment.features] if context.requirements.clustered else []
    if context.learned_router:
        found.append(context.learned_router)
    return found
