"""Says where a clustering has fewer clusters than were asked for, and what may help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from elrea.method.clustering.assignment import read_clusters
from elrea.method.clustering.kmeans import FaissKMeans

if TYPE_CHECKING:
    from elrea.pipeline.graph import Branch, Graph

COMPONENTS = 16
"""Principal components that are advised: few enough for nearly all data. With 8 to 256 the groups of real prompts were
nearly the same."""


def fewer_clusters(graph: Graph) -> Iterator[str]:
    """A line for each clustering that dropped small clusters.

    Gradients of a real model share a direction, so that k-means sets a few odd prompts apart from all others. With PCA
    directions are measured from the mean feature.

    Args:
        graph: The run's stages; clusters that are not made yet are passed over.
    """
    for branch in graph.branches:
        context, found = branch.context, branch.clusters
        wanted = context.experiment.clustering.known_k()
        if not context.requirements.clustered or wanted is None or found is None or found >= wanted:
            continue
        part = f"{context.part}: " if context.part else ""
        clusters, others = f"cluster{'s' * (found > 1)}", f"other{'s' * (wanted - found > 1)}"
        yield (
            f"{part}{found} {clusters} instead of {wanted}: the {others} had too few training examples "
            f"(clustering.min_size){_advice(branch, wanted)}"
        )


def _advice(branch: Branch, wanted: int) -> str:
    clustering = branch.context.experiment.clustering
    least = getattr(clustering, "min_size", 0)
    if wanted * least > (rows := len(branch.context.experiment.corpus.train)):
        return f"; lower it: {rows:,} examples cannot make {wanted} clusters of {least:,}"
    if not isinstance(clustering, FaissKMeans) or clustering.pca or not clustering.spherical:
        return ""
    made = read_clusters(branch.stages["clusters"].folder)
    if min(int((made["assignment"] >= 0).sum()), made["centroids"].shape[1]) < COMPONENTS:
        return ""
    return f"; clustering.pca={COMPONENTS} may set them apart"
