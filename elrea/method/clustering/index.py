"""FAISS index of the features: exact search for the training examples nearest to a prompt.

The index is flat and in half precision, as unit features are on disk, and split into files of bounded size, so that
neither building nor searching needs memory that grows with the number of examples. On disk it is a second copy of the
features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elrea.errors import StoreError

if TYPE_CHECKING:
    from elrea.method.clustering.points import Points

PART_BYTES = 256 << 20
"""Approximate size of one file's rows."""


def write_index(folder: Path, points: Points) -> None:
    """Writes `index-00000.faiss` and so on: rows of length 1, to be searched by inner product.

    Args:
        folder: Where to write.
        points: At least one. An entry's id is its row in the file of the features.
    """
    import faiss

    step = max(1, PART_BYTES // (2 * points.d))
    names = np.arange(len(points)) if points.rows is None else points.rows
    for number, start in enumerate(range(0, len(points), step)):
        flat = faiss.IndexScalarQuantizer(
            points.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        index = faiss.IndexIDMap(flat)
        for _, block in points.part(start, start + step).blocks():
            if not points.unit:
                block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)
            done = start + index.ntotal
            index.add_with_ids(block, names[done : done + len(block)].astype(np.int64))
        faiss.write_index(index, str(folder / f"index-{number:05d}.faiss"))


def search(folder: Path, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The training examples with the highest cosines to each query.

    Args:
        folder: Folder of a finished clustering; its files are memory-mapped.
        queries: Features [q, d].
        k: Number of examples per query.

    Returns:
        Cosines [q, min(k, n)], falling, and the examples' rows in the file of the features.

    Raises:
        StoreError: The index is missing, damaged, or of another dimension.
    """
    import faiss

    queries = np.array(queries, dtype=np.float32)
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
    cosines, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    paths = sorted(folder.glob("index-*.faiss"))
    if not paths:
        raise StoreError(f"{folder} has no index-*.faiss: delete the folder and run again")
    for path in paths:
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise StoreError(
                f"{path} is not a FAISS index: delete its folder and run again"
            ) from error
        if index.d != queries.shape[1]:
            raise StoreError(
                f"{path} has {index.d} dimensions, not {queries.shape[1]}: it is of another projection or model"
            )
        found = index.search(queries, min(k, index.ntotal))
        cosines, rows = np.hstack([cosines, found[0]]), np.hstack([rows, found[1]])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        cosines, rows = np.take_along_axis(cosines, best, 1), np.take_along_axis(rows, best, 1)
    return cosines, rows
