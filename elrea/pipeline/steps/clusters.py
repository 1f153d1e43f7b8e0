"""Step 3: clusters of the training examples, their centroids and quality figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elrea.errors import ClusterError
from elrea.method.clustering.assignment import make_clusters
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.step import Step

if TYPE_CHECKING:
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage


@dataclass(frozen=True)
class Clusters(Step):
    """Groups the training examples by their features."""

    kind: ClassVar[str] = "clusters"
    version: ClassVar[int] = 3
    sharded: ClassVar[bool] = True  # it does not touch the backbone
    oom_advice: ClassVar[str] = "clustering.pca (fewer dimensions) or data.limit_train"

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        return cls.always() if context.requirements.clustered else []

    @classmethod
    def always(cls) -> Sequence[Step]:
        """The step, whether a strategy needs it or not."""
        return [cls("clusters", ("features-train",))]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        """As `Step.inputs`.

        Raises:
            ClusterError: Fewer examples than clusters or principal components; said before anything is trained.
        """
        experiment = context.experiment
        count, k = len(experiment.corpus.train), experiment.clustering.known_k()
        if context.here and k is not None and count < k:
            raise ClusterError(
                f"{count} training examples cannot make clustering.k={k} clusters; lower it or give more data"
            )
        pca = getattr(experiment.clustering, "pca", None)
        if context.here and pca is not None and count < pca:
            raise ClusterError(
                f"{count} training examples have no clustering.pca={pca} principal components; lower it or give more "
                "data"
            )
        return {
            "features": upstream["features-train"].key,
            "clustering": key_fields(experiment.clustering),
            "seed": experiment.seed,
        }

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        experiment = context.experiment
        make_clusters(
            folder, upstream["features-train"].folder, context.kept("train"), experiment.clustering, experiment.seed,
            unit=experiment.features.normalise,
        )  # fmt: skip
