"""One cluster per source: the data sets' own labels instead of clusters of features (the paper's M + Q_dataset)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from elrea.method.clustering.points import Clustering, Points
from elrea.method.clustering.sizes import by_size, dissolve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceClusters(Clustering):
    """Groups examples by their source."""

    min_size: int = 32
    """A smaller source joins, as a whole, the source whose mean feature has the highest cosine with its own."""

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        """Assigns every point to a cluster, and logs which sources join; arguments and result as for `Clustering`.

        Raises:
            ClusterError: A feature is not finite.
        """
        names, assignment = np.unique(np.asarray(points.sources), return_inverse=True)
        sums = np.zeros((len(names), points.d))
        for part, block in points.blocks():
            sums += (assignment[part] == np.arange(len(names))[:, None]).astype(np.float32) @ block
        means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-30)
        owner = np.arange(len(names))

        def nearest_source(members: np.ndarray, alive: np.ndarray) -> np.ndarray:
            # A source that others have joined moves together with them, by its own mean feature.
            small = owner[assignment[members[0]]]
            cosines = np.where(alive, means @ means[small], -np.inf)
            owner[owner == small] = taken = int(cosines.argmax())
            log.info(
                "clustering=source: %s (%d examples, fewer than min_size=%d) joins %s",
                names[small], len(members), self.min_size, names[taken],
            )  # fmt: skip
            return np.full(len(members), taken)

        return by_size(dissolve(assignment, len(names), self.min_size, nearest_source))
