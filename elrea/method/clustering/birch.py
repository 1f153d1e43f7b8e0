"""The paper's clustering (step 3): BIRCH on a sample, then repeated splits of large clusters."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from elrea.errors import ClusterError, ConfigError
from elrea.method.clustering.lloyd import nearest_members
from elrea.method.clustering.points import Clustering, Points
from elrea.method.clustering.sizes import by_size, dissolve
from elrea.method.clustering.view import View

TRIES = 16
"""Maximum number of trees that are built to find the threshold."""
FIRST = 0.9
"""Threshold of the first tree, as a share of the sample's radius: rows in many dimensions are about that far apart."""
CHUNK = 250
"""Rows that are added to a tree between two counts of its sub-clusters: one with too many is slow, and is abandoned."""


@dataclass(frozen=True)
class Birch(Clustering):
    """Fits BIRCH on a sample, assigns every point to the nearest cluster, and splits clusters that are too large."""

    splits: list[int] = field(default_factory=lambda: [5, 4, 3])
    """Number of clusters of the first fit, and of each round of splits after it (the paper gives 5 and "smaller")."""
    ratio: float = 5.0
    """A cluster is split if it is more than this many times as large as the smallest."""
    sample: int = 5_000
    """Number of points to fit on, drawn at random from all points or from the cluster that is split."""
    leaves: int = 300
    """Wanted number of sub-clusters of the tree, met within a third; at most a third of the sample's points. The
    threshold (the largest radius of a sub-cluster) is found by bisection between 0 and the radius of the whole sample:
    a fixed one fits one spread of the data only (scikit-learn's 0.5 gives a single one if cosines average 0.86)."""
    min_size: int = 32
    """A smaller cluster is dissolved and its members join their next nearest one: too few to train an expert on."""

    def __post_init__(self) -> None:
        if not self.splits or min(self.splits) < 2:
            raise ConfigError(f"clustering.splits={self.splits}: must be numbers of at least 2")
        for name, least in (("ratio", 1), ("sample", 2), ("leaves", 2)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"clustering.{name}={getattr(self, name)}: must be at least {least}"
                )

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        """Assigns every point to a cluster; arguments and result as for `Clustering`.

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
        """Cluster of each point [n], at most k, numbered by falling size."""
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
    """Centres [about `leaves`, d] of a BIRCH tree's sub-clusters, with a threshold found by bisection.

    There are fewer if many rows are duplicates. If no tree comes within a third of `leaves`, the largest one that has
    not too many is used.
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
    """Centres of the sub-clusters of one tree; None if there are more than `most`."""
    from sklearn.cluster import Birch as Tree

    grown = Tree(threshold=threshold, n_clusters=None)
    for start in range(0, len(rows), CHUNK):
        grown.partial_fit(rows[start : start + CHUNK])
        if len(grown.subcluster_centers_) > most:
            return None
    return grown.subcluster_centers_
