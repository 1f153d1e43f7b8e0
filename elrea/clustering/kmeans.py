"""Spherical k-means on features (step 3), by FAISS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elrea.errors import ClusterError, ConfigError


@dataclass(frozen=True)
class FaissKMeans:
    """Groups unit vectors by the cosine to their cluster's mean direction, with restarts."""

    k: int = 8
    """C, the number of clusters and experts."""
    restarts: int = 20
    """Runs from different starts; the one with the highest mean cosine is kept. Five were seen to merge two of eight
    clear clusters."""
    iterations: int = 50
    """Of one run."""
    min_size: int = 32
    """A smaller cluster is dissolved, its members going to their next nearest: too few to train an expert on."""

    def __post_init__(self) -> None:
        for name in ("k", "restarts", "iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"clustering.{name}={getattr(self, name)}: must be at least 1")

    def __call__(self, features: np.ndarray, seed: int) -> np.ndarray:
        """Assigns every row.

        Args:
            features: Unit vectors [n, d], float32.
            seed: Of the starts.

        Returns:
            Cluster of each row [n], int64, numbered from 0 by falling size without gaps.

        Raises:
            ClusterError: Fewer rows than clusters.
        """
        import faiss

        n, d = features.shape
        if n < self.k:
            raise ClusterError(
                f"{n} training examples cannot make clustering.k={self.k} clusters; lower it or give more data"
            )
        features = np.ascontiguousarray(features, dtype=np.float32)
        # FAISS would train on 256 points per centroid only.
        kmeans = faiss.Kmeans(
            d, self.k, niter=self.iterations, nredo=self.restarts, seed=seed % 2**31, spherical=True,
            min_points_per_centroid=1, max_points_per_centroid=n,
        )  # fmt: skip
        kmeans.train(features)
        cosines = features @ np.asarray(kmeans.centroids).T
        return by_size(dissolve(cosines, min(self.min_size, n // self.k)))


def dissolve(cosines: np.ndarray, min_size: int) -> np.ndarray:
    """Assigns each row to its nearest centroid, giving up centroids that too few rows are nearest to.

    The smallest cluster goes first, and the others are counted again with its members.

    Args:
        cosines: Row by centroid [n, C].
        min_size: Fewest members of a cluster that stays; empty ones go in any case.

    Returns:
        Index of a centroid for each row [n].
    """
    cosines = cosines.copy()
    while True:
        assignment = cosines.argmax(1)
        sizes = np.bincount(assignment, minlength=cosines.shape[1])
        alive = np.isfinite(cosines[0])
        smallest = int(np.where(alive, sizes, len(cosines) + 1).argmin())
        if sizes[smallest] >= max(min_size, 1) or alive.sum() == 1:
            return assignment
        cosines[:, smallest] = -np.inf


def by_size(assignment: np.ndarray) -> np.ndarray:
    """Numbers clusters from 0 by falling size (first member first between equals)."""
    labels, first, inverse, sizes = np.unique(
        assignment, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels))
    return rank[inverse]
