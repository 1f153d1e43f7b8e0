"""Points after preprocessing for a clustering: reduced by PCA, normalised, or both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from elrea.errors import ClusterError
from elrea.method.clustering.points import Points

PCA_SAMPLE = 10_000
"""Number of points that the principal components are fitted on."""


@dataclass(frozen=True)
class View:
    """Points after a principal component analysis (if any) and normalisation (if any)."""

    points: Points
    unit: bool
    """Whether rows are scaled to length 1, after the PCA."""
    pca: Any = None
    """A trained `faiss.PCAMatrix`."""

    @classmethod
    def of(cls, points: Points, unit: bool, pca: int | None, seed: int) -> View:
        """Fits `pca` components on a seeded sample; None: no PCA.

        Raises:
            ClusterError: The sample has fewer points or dimensions than `pca`.
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
        """Number of dimensions after the PCA."""
        return self.points.d if self.pca is None else int(self.pca.d_out)

    def __len__(self) -> int:
        return len(self.points)

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """Some points (rising numbers) [m, d], float32; a PCA is applied block by block."""
        if self.pca is None:
            return self._transform(self.points.take(index))
        chosen = self.points.subset(np.arange(len(self))[index])
        out = np.empty((len(chosen), self.d), dtype=np.float32)
        for part, block in chosen.blocks():
            out[part] = self._transform(block)
        return out

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All points in turn: (which, float32 [m, d])."""
        for part, block in self.points.blocks():
            yield part, self._transform(block)

    def _transform(self, block: np.ndarray) -> np.ndarray:
        if self.pca is not None:
            block = self.pca.apply(block)
        if self.unit and (self.pca is not None or not self.points.unit):
            block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)
        return block
