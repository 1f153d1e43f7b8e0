"""The input of every clustering, features that may be larger than memory, and the base class of clusterings."""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elrea.errors import ClusterError

BLOCK_BYTES = 32 << 20
"""Bytes of float32 rows that are read at once: enough that the matrix product costs more than reading."""
STEP = 128
"""Rows after which a file's pages are released: rows drawn at random are far apart, and each loads 64 KiB."""


@dataclass(frozen=True)
class Points:
    """Rows to be grouped.

    The array may be a read-only `np.memmap`: it is never converted as a whole, and its pages are released after each
    block, so that memory does not grow with the number of rows.
    """

    features: np.ndarray
    """All rows of the file [N, d], float16 or float32."""
    sources: Sequence[str]
    """Source of each point [n]."""
    unit: bool = True
    """Whether rows have length 1."""
    rows: np.ndarray | None = None
    """The rows of `features` that are points [n], int64, rising; None: all rows, n = N."""

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.sources) != len(self):
            raise ClusterError(
                f"features of shape {list(self.features.shape)} do not fit {len(self.sources)} sources: "
                "give one row per example"
            )

    def __len__(self) -> int:
        return len(self.features) if self.rows is None else len(self.rows)

    @property
    def d(self) -> int:
        """Dimension of a feature."""
        return int(self.features.shape[1])

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """Some points as float32 [m, d], a copy.

        Args:
            index: Numbers of points (not of the file's rows), as a slice or rising, so that a file is read forward.

        Raises:
            ClusterError: A feature is not finite.
        """
        places = np.arange(len(self))[index]
        rows = places if self.rows is None else self.rows[places]
        block = np.empty((len(rows), self.d), dtype=np.float32)
        for start in range(0, len(rows), STEP):
            part = rows[start : start + STEP]
            block[start : start + STEP] = self.features[part]
            _release_pages(self.features)
        # A finite sum proves that all parts are finite, without an array of booleans; another may have overflowed.
        with np.errstate(over="ignore", invalid="ignore"):
            total = block.sum()
        if not np.isfinite(total) and not (finite := np.isfinite(block).all(1)).all():
            raise ClusterError(
                f"feature {rows[~finite][0]} is not finite ({(~finite).sum()} of {len(block)} rows read): "
                "remove such examples"
            )
        return block

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All points in turn: (which, float32 [m, d])."""
        step = max(1, BLOCK_BYTES // (4 * self.d))
        for start in range(0, len(self), step):
            part = slice(start, min(start + step, len(self)))
            yield part, self.take(part)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Numbers of at most `count` points, drawn without replacement, rising [m], int64."""
        if count >= len(self):
            return np.arange(len(self))
        return np.sort(np.random.default_rng([seed, 0xD8A3]).permutation(len(self))[:count])

    def part(self, start: int, stop: int) -> Points:
        """The points `start` to `stop` - 1."""
        return self.subset(np.arange(start, min(stop, len(self))))

    def subset(self, index: np.ndarray) -> Points:
        """Some of the points (rising numbers); the features are not copied."""
        rows = index if self.rows is None else self.rows[index]
        return replace(self, rows=rows, sources=[self.sources[i] for i in index.tolist()])


class Clustering(ABC):
    """Groups the features of the training examples (step 3).

    A new clustering is a frozen dataclass that derives from this class, in a file of this package, and a YAML file in
    conf/clustering.
    """

    @abstractmethod
    def __call__(self, points: Points, seed: int) -> np.ndarray:
        """Assigns every point to a cluster.

        Args:
            points: Features to group.
            seed: Seed of anything drawn at random.

        Returns:
            Cluster of each point [n], int64, numbered from 0 by falling size without gaps.
        """

    def known_k(self) -> int | None:
        """C if the settings alone determine it (small clusters may still be dissolved), else None."""
        return None

    def with_k(self, k: int) -> Clustering:
        """The same clustering with k clusters, if it would choose their number itself; else this one."""
        return self


def _release_pages(array: Any) -> None:
    """Lets the system drop the pages of a read-only file mapping; they are read again when needed."""
    if array.flags.writeable or not hasattr(mmap, "MADV_DONTNEED"):
        return  # a private mapping would lose what was written to it
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    if array is not None:
        array.madvise(mmap.MADV_DONTNEED)
