"""FAISS' index of the features, saved with the clusters: the training examples nearest to a prompt, exactly.

The index is flat, in half precision as unit features are themselves, and cut into files of bounded size: neither
making nor searching it needs memory that grows with the number of examples. On disk it is a second copy of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from elrea.errors import StoreError
from elrea.method.clustering.points import Points

PART_BYTES = 256 << 20
"""Of one file's rows, about."""


def write_index(folder: Path, points: Points) -> None:
    """Writes `index-00000.faiss` and so on: rows of length 1, searched by inner product, named by their rows.

    Args:
        folder: Where to.
        points: At least one; a row's number is that of the features' file.
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
    """The rows with the highest cosines to each query.

    Args:
        folder: Of a finished clustering; its files are mapped, not loaded.
        queries: [q, d].
        k: How many.

    Returns:
        Cosines [q, min(k, rows)], falling, and the rows' numbers.

    Raises:
        StoreError: There is no index, it is damaged, or it is of features of another dimension.
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
            raise StoreError(f"{path} is no index: delete its folder and run again") from error
        if index.d != queries.shape[1]:
            raise StoreError(
                f"{path} is of {index.d} dimensions, not {queries.shape[1]}: of another projection or model"
            )
        found = index.search(queries, min(k, index.ntotal))
        cosines, rows = np.hstack([cosines, found[0]]), np.hstack([rows, found[1]])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        cosines, rows = np.take_along_axis(cosines, best, 1), np.take_along_axis(rows, best, 1)
    return cosines, rows
