"""Points as a clustering looks at them: fewer dimensions, or directions only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from elrea.errors import ClusterError
from elrea.method.clustering.points import Points

PCA_SAMPLE = 10_000
"""Points that the principal components are fitted on."""


@dataclass(frozen=True)
class View:
    """Points after a principal component analysis, after normalisation, or both."""

    points: Points
    unit: bool
    """Whether rows get length 1, after the PCA: then only directions count."""
    pca: Any = None
    """A trained `faiss.PCAMatrix`."""

    @classmethod
    def of(cls, points: Points, unit: bool, pca: int | None, seed: int) -> View:
        """Fits the components, if `pca` says how many, on a seeded sample.

        Raises:
            ClusterError: Points have no so many dimensions.
        """
        if pca is None:
            return cls(points, unit)
        import faiss

        sample = points.take(points.draw(PCA_SAMPLE, seed))
        if pca > min(sample.shape):
            raise ClusterError(
                f"{len(points)} training examples of {points.d} dimensions have no clustering.pca={pca} "
                "components; lower it"
            )
        matrix = faiss.PCAMatrix(points.d, pca)
        matrix.train(sample)
        return cls(points, unit, matrix)

    @property
    def d(self) -> int:
        """Dimensions that are left."""
        return self.points.d if self.pca is None else int(self.pca.d_out)

    def __len__(self) -> int:
        return len(self.points)

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """Some points (rising numbers) [m, d], float32; before a PCA no more than a block of them is held."""
        if self.pca is None:
            return self._seen(self.points.take(index))
        chosen = self.points.subset(np.arange(len(self))[index])
        out = np.empty((len(chosen), self.d), dtype=np.float32)
        for part, block in chosen.blocks():
            out[part] = self._seen(block)
        return out

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All points in turn: (which, float32 [m, d])."""
        for part, block in self.points.blocks():
            yield part, self._seen(block)

    def _seen(self, block: np.ndarray) -> np.ndarray:
        if self.pca is not None:
            block = self.pca.apply(block)
        if self.unit and (self.pca is not None or not self.points.unit):
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)
        return block
