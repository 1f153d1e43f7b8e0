"""The paper's clustering (step 3): BIRCH on a sample, and large clusters split again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from elrea.errors import ClusterError, ConfigError
from elrea.method.clustering.lloyd import nearest_members
from elrea.method.clustering.points import Clustering, Points
from elrea.method.clustering.sizes import by_size, dissolve
from elrea.method.clustering.view import View

TRIES = 16
"""Trees that are built at most to find the threshold."""
FIRST = 0.9
"""Threshold of the first tree, as a share of the sample's radius: in many dimensions all rows lie as far apart."""
CHUNK = 250
"""Rows that a tree grows by before its sub-clusters are counted: one with too many is slow, and given up early."""


@dataclass(frozen=True)
class Birch(Clustering):
    """Fits on a sample, assigns every point by it, and clusters again what came out too large."""

    splits: list[int] = field(default_factory=lambda: [5, 4, 3])
    """K of the first fit, and of each round of re-splitting after it (the paper gives 5 and "smaller")."""
    ratio: float = 5.0
    """A cluster more than so many times the smallest is clustered again."""
    sample: int = 5_000
    """Points that are fitted on, drawn at random, of all or of the cluster that is split."""
    leaves: int = 300
    """Sub-clusters that the tree is to have on the sample, within a third; at most a third of the sample's points.
    The threshold (the largest radius of a sub-cluster) is searched for by bisection between 0 and the radius of the
    whole sample: a fixed one fits no other spread (scikit-learn's 0.5 leaves one once cosines average 0.86)."""
    min_size: int = 32
    """A smaller cluster is dissolved, its members going to their next nearest: too few to train an expert on."""

    def __post_init__(self) -> None:
        if not self.splits or min(self.splits) < 2:
            raise ConfigError(f"clustering.splits={self.splits}: wants numbers of at least 2")
        for name, least in (("ratio", 1), ("sample", 2), ("leaves", 2)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"clustering.{name}={getattr(self, name)}: must be at least {least}"
                )

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        """Assigns every point.

        Returns:
            Cluster of each point [n], int64, numbered from 0 by falling size without gaps.

        Raises:
            ClusterError: Fewer points than clusters of the first fit, or a feature that is not finite.
        """
        if len(points) < self.splits[0]:
            raise ClusterError(
                f"{len(points)} training examples cannot make clustering.splits[0]={self.splits[0]} clusters; "
                "lower it or give more data"
            )
        assignment = self._fit(points, self.splits[0], seed)
        for k in self.splits[1:]:
            sizes = np.bincount(assignment)
            large = np.flatnonzero(sizes > self.ratio * sizes.min())
            for cluster in large.tolist():
                members = np.flatnonzero(assignment == cluster)
                parts = self._fit(points.subset(members), k, seed)
                assignment[members[parts > 0]] = assignment.max() + parts[parts > 0]
            if not len(large):
                break
        return by_size(assignment)

    def _fit(self, points: Points, k: int, seed: int) -> np.ndarray:
        """At most k clusters, by falling size."""
        from sklearn.cluster import AgglomerativeClustering

        view = View(points, unit=False)
        drawn = view.take(points.draw(self.sample, seed))
        centres = sub_clusters(drawn, max(min(self.leaves, len(drawn) // 3), min(k, len(drawn))))
        labels = np.arange(len(centres))
        if len(centres) > k:
            labels = AgglomerativeClustering(k).fit_predict(centres)
        count = int(labels.max()) + 1

        def closest(members: np.ndarray, alive: np.ndarray) -> np.ndarray:
            kept = alive[labels]
            return labels[kept][nearest_members(view, members, centres[kept])]

        assignment = closest(np.arange(len(points)), np.ones(count, dtype=bool))
        return by_size(dissolve(assignment, count, min(self.min_size, len(points) // k), closest))


def sub_clusters(rows: np.ndarray, leaves: int) -> np.ndarray:
    """Centres [about `leaves`, d] of a BIRCH tree's sub-clusters, its threshold found by bisection.

    Fewer come out where rows are duplicates of each other, and the nearest of all trees where none is near enough.
    """
    low, high = 0.0, float(np.sqrt(rows.var(axis=0, dtype=np.float64).sum()))
    threshold, best = FIRST * high, rows[:1]
    for _ in range(TRIES):
        if threshold <= 0:  # all rows are the same
            break
        centres = tree(rows, threshold, most=leaves * 4 // 3)
        if centres is not None and len(centres) > len(best):
            best = centres
        if 3 * len(best) >= 2 * leaves:
            break
        low, high = (threshold, high) if centres is None else (low, threshold)
        threshold = (low + high) / 2
    return np.ascontiguousarray(best, dtype=np.float32)


def tree(rows: np.ndarray, threshold: float, most: int) -> np.ndarray | None:
    """Centres of the sub-clusters of one tree, None once they are more than `most`: they never become fewer."""
    from sklearn.cluster import Birch as Tree

    grown = Tree(threshold=threshold, n_clusters=None)
    for start in range(0, len(rows), CHUNK):
        grown.partial_fit(rows[start : start + CHUNK])
        if len(grown.subcluster_centers_) > most:
            return None
    return grown.subcluster_centers_
