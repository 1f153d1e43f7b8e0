"""Says where a clustering has fewer clusters than were asked for, and what may help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from elrea.method.clustering.assignment import read_clusters
from elrea.method.clustering.kmeans import FaissKMeans

if TYPE_CHECKING:
    from elrea.pipeline.graph import Branch, Graph

COMPONENTS = 64
"""Principal components that are advised: with 8 to 128 the groups of real prompts were nearly the same."""


def fewer_clusters(graph: Graph) -> Iterator[str]:
    """A line for each clustering that dropped small clusters.

    Gradients of a real model share a direction (cosines of 0.7 to 0.8 between any two prompts), so that k-means sets a
    few odd ones apart from all others. PCA measures directions from the mean feature.

    Args:
        graph: The run's stages; clusters that are not made yet are passed over.
    """
    for branch in graph.branches:
        context, found = branch.context, branch.clusters
        wanted = context.experiment.clustering.known_k()
        if not context.requirements.clustered or wanted is None or found is None or found >= wanted:
            continue
        part = f"{context.part}: " if context.part else ""
        yield (
            f"{part}{found} cluster{'s' * (found > 1)} instead of {wanted}: the others had too few training examples "
            f"(clustering.min_size){_advice(branch)}"
        )


def _advice(branch: Branch) -> str:
    clustering = branch.context.experiment.clustering
    if not isinstance(clustering, FaissKMeans) or clustering.pca or not clustering.spherical:
        return ""
    made = read_clusters(branch.stages["clusters"].folder)
    components = min(COMPONENTS, len(made["assignment"]) // 4, made["centroids"].shape[1])
    return f"; clustering.pca={components} may set them apart" if components > 1 else ""
