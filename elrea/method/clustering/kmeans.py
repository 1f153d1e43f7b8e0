"""K-means clustering of features (step 3), by FAISS."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from elrea.errors import ClusterError, ConfigError
from elrea.method.clustering.auto import choose_k
from elrea.method.clustering.lloyd import nearest, nearest_members, passes, train
from elrea.method.clustering.points import Clustering, Points
from elrea.method.clustering.sizes import by_size, dissolve
from elrea.method.clustering.view import View

IN_MEMORY = 16 * 2**20
"""Largest n·d (16 Mi: 16,384 rows of 1,024) for which all rows are in memory at once, as float32. For more, restarts
use a sample of that size, and then passes over all rows refine the best centres."""


@dataclass(frozen=True)
class FaissKMeans(Clustering):
    """Spherical k-means with restarts: every feature joins the cluster with whose mean its cosine is highest."""

    k: int | Literal["auto"] = 8
    """C, the number of clusters and experts. `auto` takes the one of `candidates` with the highest mean silhouette +
    stability on a sample of 4,000; stability is the adjusted Rand index between the clusters found on its two halves.
    C is then known only after clustering."""
    candidates: list[int] = field(default_factory=lambda: [2, 3, 4, 6, 8, 12, 16])
    """Candidates of `k=auto`; those whose clusters could not all have `min_size` members are skipped."""
    restarts: int = 10
    """Number of runs from different starts; the one with the highest mean cosine is kept. The best of 5 still merged
    some of 16 equal, slightly overlapping groups in one of six tries."""
    iterations: int = 50
    """Iterations of one run at most: it ends when it gains no more."""
    min_size: int = 32
    """A smaller cluster is dissolved and its members join their next nearest one: too few to train an expert on."""
    pca: int | None = None
    """Number of principal components to reduce features to first (256 in the paper's ablation); null: no reduction.
    Directions are then measured from the mean feature."""
    spherical: bool = True
    """Compare directions only; false: Euclidean distances, for `features.normalise=false`."""

    def __post_init__(self) -> None:
        for name in ("k", "restarts", "iterations", "pca"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"clustering.{name}={value}: must be at least 1")
        if not self.candidates or min(self.candidates) < 2:
            raise ConfigError(
                f"clustering.candidates={self.candidates}: must be numbers of at least 2"
            )

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        """Assigns every point to a cluster; arguments and result as for `Clustering`.

        Raises:
            ClusterError: Fewer points than clusters (or, for `auto`, than the fewest clusters need), fewer
                dimensions than `pca`, or a feature that is not finite.
        """
        if isinstance(self.k, int) and len(points) < self.k:
            raise ClusterError(
                f"{len(points)} training examples cannot make clustering.k={self.k} clusters; "
                "lower it or give more data"
            )
        view = View.of(points, self.spherical, self.pca, seed)
        k = self.k if isinstance(self.k, int) else self._choose(view, seed)
        if len(view) * view.d <= IN_MEMORY:
            rows = view.take(slice(None))
            centres = self.centres(rows, k, seed)
            assignment = nearest(rows, centres)
        else:
            drawn = points.draw(max(IN_MEMORY // view.d, 256 * k), seed)
            centres = self.centres(view.take(drawn), k, seed)
            centres, assignment = passes(view, centres, self.spherical, self.iterations)

        def next_nearest(members: np.ndarray, alive: np.ndarray) -> np.ndarray:
            return np.flatnonzero(alive)[nearest_members(view, members, centres[alive])]

        least = min(self.min_size, len(points) // k)
        return by_size(dissolve(assignment, k, least, next_nearest))

    def known_k(self) -> int | None:
        return self.k if isinstance(self.k, int) else None

    def with_k(self, k: int) -> FaissKMeans:
        return self if isinstance(self.k, int) else replace(self, k=k)

    def centres(self, rows: np.ndarray, k: int, seed: int) -> np.ndarray:
        """Centres [k, d] of rows in memory [n, d]."""
        return train(rows, k, self.spherical, self.restarts, self.iterations, seed)

    def _choose(self, view: View, seed: int) -> int:
        least = max(self.min_size, 1)
        possible = [k for k in sorted(set(self.candidates)) if k * least <= len(view)]
        if not possible:
            fewest = min(self.candidates)
            raise ClusterError(
                f"{len(view)} training examples are too few for clustering.k=auto: {fewest} clusters of "
                f"clustering.min_size={self.min_size} need {fewest * least}; lower it, or set k"
            )
        return choose_k(view, possible, self.centres, seed)
