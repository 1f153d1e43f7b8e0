"""Lloyd's iterations by FAISS: good starts, restarts in memory, and passes over more rows than fit there."""

from __future__ import annotations

from math import log

import numpy as np

from elrea.method.clustering.view import View

GAIN = 1e-5
"""Relative gain of the objective over `STEP` iterations under which a run has arrived."""
STEP = 5
MOVED = 1e-4
"""Share of the points that may still change cluster when passes over the file end."""


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Nearest centre by distance (by cosine, if all have length 1) of each row [m], int64."""
    import faiss

    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(np.ascontiguousarray(centres, dtype=np.float32))
    return index.search(rows, 1)[1][:, 0]


def nearest_members(view: View, members: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """`nearest` for some points (rising numbers), read in pieces of bounded size."""
    step = max(1, (8 << 20) // view.d)
    parts = [
        nearest(view.take(members[start : start + step]), centres)
        for start in range(0, len(members), step)
    ]
    return np.concatenate(parts)


def train(
    rows: np.ndarray, k: int, spherical: bool, restarts: int, iterations: int, seed: int
) -> np.ndarray:
    """The best centres [k, d] of several runs on rows [n, d] in memory.

    Each run starts from greedy k-means++ rows: Lloyd's iterations cannot part two groups that share one centre, and
    with uniform starts the best of five runs merged some of 16 equal, well separated groups in most tries.

    Args:
        rows: float32, of length 1 if `spherical`.
        k: Number of centres, at most n.
        spherical: Whether centres are normalised after each iteration.
        restarts, iterations: How many runs, and how long each at most.
        seed: Of the starts.
    """
    import faiss

    best, centres = -np.inf, rows[:k]
    for restart in range(restarts):
        at = starts(rows, k, np.random.default_rng([seed, restart, 0x57A7]))
        before = np.inf
        for done in range(0, iterations, STEP):
            # FAISS would train on 256 points per centroid only.
            kmeans = faiss.Kmeans(
                rows.shape[1], k, niter=min(STEP, iterations - done), seed=seed % 2**31, spherical=spherical,
                min_points_per_centroid=1, max_points_per_centroid=len(rows),
            )  # fmt: skip
            kmeans.train(rows, init_centroids=at)
            at = np.asarray(kmeans.centroids)
            # FAISS adds up cosines (to be raised) of a spherical run, squared distances (to be lowered) otherwise.
            now = float(np.asarray(kmeans.obj)[-1]) * (1 if spherical else -1)
            if abs(now - before) <= GAIN * abs(now):
                break
            before = now
        if now > best:
            best, centres = now, at
    return centres


def starts(rows: np.ndarray, k: int, draw: np.random.Generator) -> np.ndarray:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): rows [k, d] that lie far from each other.

    Each next row is drawn with a chance in proportion to its squared distance from those there are; of a few
    candidates, the one that brings all rows nearest is taken.
    """
    squares = np.einsum("nd,nd->n", rows, rows)

    def distances(picked: np.ndarray) -> np.ndarray:
        return np.maximum(squares[:, None] + squares[picked] - 2 * (rows @ rows[picked].T), 0)

    chosen = [int(draw.integers(len(rows)))]
    left = distances(np.array(chosen))[:, 0]
    while len(chosen) < k:
        weight = left.astype(np.float64)
        weight[chosen] = 0
        if not weight.any():  # nothing but duplicates is left
            weight[:] = 1
        candidates = draw.choice(len(rows), 2 + int(log(k)), p=weight / weight.sum())
        closer = np.minimum(left[:, None], distances(candidates))
        best = int(closer.sum(0).argmin())
        chosen.append(int(candidates[best]))
        left = closer[:, best]
    return rows[chosen]


def passes(
    view: View, centres: np.ndarray, spherical: bool, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Moves centres to the means of all their points, over the file block by block, until hardly a point moves.

    Returns:
        (centres [k, d], nearest centre of each point [n]).
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
