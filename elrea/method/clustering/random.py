"""Random clusters of given sizes: the control for grouping by features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from elrea.method.clustering.points import Clustering, Points


@dataclass(frozen=True)
class RandomClusters(Clustering):
    """Clusters of the same number and sizes as another clustering's, with members drawn at random."""

    of: Clustering
    """The clustering that determines number and sizes."""

    def known_k(self) -> int | None:
        return self.of.known_k()

    def with_k(self, k: int) -> RandomClusters:
        return replace(self, of=self.of.with_k(k))

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        """Assigns every point to a cluster; arguments and result as for `Clustering`.

        Raises:
            ClusterError: As the other clustering.
        """
        return random_clusters(self.of(points, seed), seed)


def random_clusters(assignment: np.ndarray, seed: int) -> np.ndarray:
    """Permutes the members of a clustering; sizes stay the same.

    Args:
        assignment: Cluster of each example [n].
        seed: Seed of the permutation.

    Returns:
        A permutation of `assignment` [n].
    """
    return np.random.default_rng([seed, 0x5EED]).permutation(assignment)
