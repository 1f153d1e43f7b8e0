"""Two clusters, one on each side of the mean along the first principal component."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elrea.method.clustering.points import Clustering, Points
from elrea.method.clustering.sizes import by_size


@dataclass(frozen=True)
class Halves(Clustering):
    """Splits the points by a plane that is fitted on a sample."""

    sample: int = 1_000

    def known_k(self) -> int:
        return 2

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        rows = points.take(points.draw(self.sample, seed))
        mean = rows.mean(0)
        direction = np.linalg.svd(rows - mean, full_matrices=False)[2][0]
        sides = [(block - mean) @ direction > 0 for _, block in points.blocks()]
        return by_size(np.concatenate(sides).astype(np.int64))
