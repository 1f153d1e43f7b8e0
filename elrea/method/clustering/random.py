"""Random clusters of given sizes: the control that shows what grouping by gradient is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from elrea.method.clustering.points import Clustering, Points


@dataclass(frozen=True)
class RandomClusters(Clustering):
    """Deals the members of another clustering's clusters out at random; sizes stay."""

    of: Clustering
    """The clustering whose number of clusters and sizes are taken."""

    def known_k(self) -> int | None:
        return self.of.known_k()

    def with_k(self, k: int) -> RandomClusters:
        return replace(self, of=self.of.with_k(k))

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        """Assigns every point.

        Returns:
            Cluster of each point [n], int64, numbered from 0 by falling size without gaps.

        Raises:
            ClusterError: What the other clustering raises.
        """
        return random_clusters(self.of(points, seed), seed)


def random_clusters(assignment: np.ndarray, seed: int) -> np.ndarray:
    """Deals the members out at random, sizes copied from a real clustering.

    Args:
        assignment: Cluster of each example [n].
        seed: Of the dealing.

    Returns:
        A permutation of `assignment` [n].
    """
    return np.random.default_rng([seed, 0x5EED]).permutation(assignment)
