"""The learned router: its training, and the test prompts' cosines as it predicts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch.nn.functional import one_hot

from elrea.method.clustering.assignment import read_clusters
from elrea.method.clustering.centroids import cosines
from elrea.method.features.to_disk import NAME, open_features
from elrea.method.routing.student import write_cosines
from elrea.models.training.train import epoch_folders
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import Step

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.method.routing.weights import LearnedRouter
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage

SMALLER = "backbone.max_length (long prompts), or set routing=gradient"


@dataclass(frozen=True)
class LearnedRouterStep(Step):
    """The learned router, trained on the training prompts' cosines or clusters.

    Attributes:
        router: Its settings.
    """

    kind: ClassVar[str] = "router"
    version: ClassVar[int] = 2
    oom_advice: ClassVar[str] = SMALLER

    router: LearnedRouter

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        router, upstream = context.learned_router, ("base", "features-train", "clusters")
        return [] if router is None else [cls("router", upstream, router)]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        experiment = context.experiment
        return {
            "base": upstream["base"].key,
            "clusters": upstream["clusters"].key,
            "router": key_fields(self.router, *self.router.fixed_fields),
            "dev": experiment.corpus.fingerprint("dev"),
            "seed": experiment.seed,
        }

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        experiment, base = context.experiment, upstream["base"].folder
        kept, dev, judged = context.kept("train"), list(experiment.corpus.dev), None
        by_cosines = self.router.learns == "cosines"
        if by_cosines:
            learned = cosines_of(upstream["features-train"], upstream["clusters"], len(kept))
        else:  # an example without a feature has no cluster to learn
            found = read_clusters(upstream["clusters"].folder)
            grouped = found["assignment"] >= 0
            kept = [example for example, has in zip(kept, grouped.tolist(), strict=True) if has]
            assigned = found["assignment"][grouped].long()
            learned = one_hot(assigned, len(found["centroids"])).float()
        if dev and by_cosines:
            features = context.features_of(dev, epoch_folders(base), "features, dev prompts")
            centroids = read_clusters(upstream["clusters"].folder)["centroids"]
            judged = context.prompter.routing(dev), cosines(features.numpy(), centroids)
        with context.peft(experiment.lora) as model:
            self.router.train(
                folder, model, base / "adapter", (context.prompter.routing(kept), learned), judged,
                seed=experiment.seed, pad_id=context.backbone.pad_id, progress=context.progress,
            )  # fmt: skip


@dataclass(frozen=True)
class LearnedRouting(Step):
    """The test prompts' cosines by the learned router, without any gradient.

    Attributes:
        router: Its settings.
    """

    kind: ClassVar[str] = "routing"
    version: ClassVar[int] = 1
    oom_advice: ClassVar[str] = SMALLER

    router: LearnedRouter

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        router = context.learned_router
        return [] if router is None else [cls("routing", ("base", "router"), router)]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        return {
            "router": upstream["router"].key,
            "test": context.experiment.corpus.fingerprint("test"),
        }

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        prompts = context.prompter.routing(context.kept("test"))
        with (
            context.peft(context.experiment.lora) as model,
            context.progress("route, test prompts", len(prompts), "prompts") as advance,
        ):
            found = self.router.predict(
                upstream["router"].folder, model, upstream["base"].folder / "adapter", prompts,
                pad_id=context.backbone.pad_id, advance=advance,
            )  # fmt: skip
        write_cosines(folder, found)


def cosines_of(features: Stage, clusters: Stage, count: int) -> Tensor:
    """cos_c of `count` prompts by their features (5.8): [count, C]."""
    rows = open_features(features.folder / NAME, count)
    return cosines(rows, read_clusters(clusters.folder)["centroids"])
