"""K-means: starts, restarts on rows in memory by FAISS, and passes over a file of rows that is larger than memory.

The k-means++ starts are written here: scikit-learn's `kmeans_plusplus` needs 3 to 4.7 times as long and 10 to 50 MiB
more (float64 copies of blocks), finds no better optimum (mean cosine over 10 seeds 0.617 ± 0.014, here 0.625 ± 0.013),
and its draws may change with its version, as recorded clusters would then.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elrea.method.clustering.view import View

GAIN = 1e-5
"""Relative gain of the objective over `STEP` iterations below which a run ends."""
STEP = 5
"""Iterations between two looks at the objective."""
TOGETHER = 2**21
"""Distances that the starts of several restarts compute at once: 8 MiB."""
MOVED = 1e-4
"""Share of the points that change cluster in a pass over the file below which passes end."""


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centre nearest to each row, by Euclidean distance (for rows and centres of length 1: by cosine).

    Args:
        rows: [m, d], float32.
        centres: [k, d].

    Returns:
        [m], int64.
    """
    import faiss

    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(np.ascontiguousarray(centres, dtype=np.float32))
    return index.search(rows, 1)[1][:, 0]


def nearest_members(view: View, members: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """`nearest` for some points (rising numbers), read in blocks of bounded size."""
    step = max(1, (8 << 20) // view.d)
    parts = [
        nearest(view.take(members[start : start + step]), centres)
        for start in range(0, len(members), step)
    ]
    return np.concatenate(parts)


def train(
    rows: np.ndarray, k: int, spherical: bool, restarts: int, iterations: int, seed: int
) -> np.ndarray:
    """The best centres [k, d] of several k-means runs on rows [n, d] in memory.

    Each run starts from k-means++ rows: k-means cannot separate two groups that share one centre, and with uniform
    starts the best of five runs merged some of 16 equal, well separated groups in most tries.

    Args:
        rows: float32, of length 1 if `spherical`.
        k: Number of centres, at most n.
        spherical: Whether centres are normalised after each iteration.
        restarts: Number of runs.
        iterations: Iterations of a run at most.
        seed: Seed of the starts.
    """
    import faiss

    best, centres = -np.inf, rows[:k]
    for at in _all_starts(rows, k, restarts, seed):
        before = np.inf
        for done in range(0, iterations, STEP):
            # Without max_points_per_centroid FAISS would train on 256 rows per centre only.
            kmeans = faiss.Kmeans(
                rows.shape[1], k, niter=min(STEP, iterations - done), seed=seed % 2**31, spherical=spherical,
                min_points_per_centroid=1, max_points_per_centroid=len(rows),
            )  # fmt: skip
            kmeans.train(rows, init_centroids=at)
            at = np.asarray(kmeans.centroids)
            # FAISS sums cosines in a spherical run (higher is better), else squared distances (lower is better).
            now = float(np.asarray(kmeans.obj)[-1]) * (1 if spherical else -1)
            if abs(now - before) <= GAIN * abs(now):
                break
            before = now
        if now > best:
            best, centres = now, at
    return centres


def _all_starts(rows: np.ndarray, k: int, restarts: int, seed: int) -> Iterator[np.ndarray]:
    """The rows [k, d] that each restart begins with; so many restarts at once as `TOGETHER` allows."""
    draws = [np.random.default_rng([seed, restart, 0x57A7]) for restart in range(restarts)]
    size = max(1, TOGETHER // (len(rows) * _candidates(k)))
    for first in range(0, restarts, size):
        yield from starts(rows, k, draws[first : first + size])


def _candidates(k: int) -> int:
    """Rows that are drawn in a step of greedy k-means++, of which the best is chosen."""
    return 2 + int(log(k))


def starts(rows: np.ndarray, k: int, draws: Sequence[np.random.Generator]) -> np.ndarray:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): k rows that are far from each other, [restarts, k, d].

    Candidates for the next row are drawn with probabilities in proportion to the squared distance from the nearest row
    chosen so far; of 2 + ⌊ln k⌋ candidates, the one that leaves the smallest sum of squared distances is chosen. All
    restarts take a step together: one product with all their candidates reads the rows once.

    Args:
        rows: float32 [n, d].
        k: Number of rows to choose.
        draws: A generator per restart.
    """
    squares = np.einsum("nd,nd->n", rows, rows)

    def distances(picked: np.ndarray) -> np.ndarray:
        return np.maximum(squares[:, None] + squares[picked] - 2 * (rows @ rows[picked].T), 0)

    count = _candidates(k)
    chosen = np.array([[draw.integers(len(rows))] for draw in draws])
    left = distances(chosen[:, 0])
    while chosen.shape[1] < k:
        candidates = np.stack(
            [_draw(left[:, run], chosen[run], count, draw) for run, draw in enumerate(draws)]
        )
        found = distances(candidates.ravel())
        best = []
        for run in range(len(draws)):
            closer = np.minimum(left[:, run, None], found[:, run * count : (run + 1) * count])
            best.append(closer.sum(0).argmin())
            left[:, run] = closer[:, best[-1]]
        picked = candidates[np.arange(len(draws)), best]
        chosen = np.column_stack([chosen, picked])
    return rows[chosen]


def _draw(
    left: np.ndarray, chosen: np.ndarray, count: int, draw: np.random.Generator
) -> np.ndarray:
    """Numbers [count] of rows, drawn in proportion to `left` [n], but none that is chosen already."""
    weight = left.astype(np.float64)
    weight[chosen] = 0
    if not weight.any():  # only duplicates are left
        weight[:] = 1
    return draw.choice(len(left), count, p=weight / weight.sum())


def passes(
    view: View, centres: np.ndarray, spherical: bool, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's iterations over all points, block by block, until hardly any point changes its cluster.

    Args:
        view: The points.
        centres: Where to start [k, d].
        spherical: Whether centres are normalised after each iteration.
        iterations: Passes over all points at most.

    Returns:
        The centres [k, d], and the nearest centre of each point [n].
    """
    assignment = np.full(len(view), -1, dtype=np.int64)
    for _ in range(iterations):
        sums, moved = np.zeros(centres.shape), 0
        for part, block in view.blocks():
            found = nearest(block, centres)
            moved += int((found != assignment[part]).sum())
            assignment[part] = found
            sums += (found == np.arange(len(centres))[:, None]).astype(np.float32) @ block
        if moved <= MOVED * len(view):
            break
        sizes = np.bincount(assignment, minlength=len(centres))[:, None]
        means = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
        if spherical:
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-30)
        centres = means.astype(np.float32)
    return centres, assignment
