"""Chooses the number of clusters by silhouette and stability: `clustering.k=auto`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from elrea.method.clustering.lloyd import nearest

if TYPE_CHECKING:
    from elrea.method.clustering.view import View

SAMPLE = 4_000
"""Number of points that candidates are compared on; silhouettes use half of them."""

log = logging.getLogger(__name__)


def choose_k(
    view: View,
    candidates: Sequence[int],
    centres: Callable[[np.ndarray, int, int], np.ndarray],
    seed: int,
) -> int:
    """The candidate with the highest silhouette + stability; of equal ones, the smallest.

    The silhouette alone favours few clusters, and stability alone favours two. Too many clusters lower both, because a
    group that is split in two is split differently in each half of the sample.

    Args:
        view: The points.
        candidates: Numbers of clusters to choose from, rising.
        centres: (rows, k, seed) -> centres [k, d].
        seed: Seed of the sample and its halves.

    Returns:
        One of the candidates. Those larger than half the sample are skipped, except the first.
    """
    from sklearn.metrics import adjusted_rand_score

    rows = view.take(view.points.draw(SAMPLE, seed))
    order = np.random.default_rng([seed, 0xA070]).permutation(len(rows))
    halves = [rows[np.sort(order[half::2])] for half in (0, 1)]
    distances = pairwise(rows[order[: SAMPLE // 2]])
    scores: dict[int, float] = {}
    for k in candidates:
        if k > len(halves[1]) and scores:
            break
        found = [nearest(rows, centres(half, min(k, len(half)), seed)) for half in halves]
        stability = float(adjusted_rand_score(*found))
        separation = silhouette(distances, found[0][order[: SAMPLE // 2]])
        scores[k] = round((separation or 0.0) + stability, 6)
        log.debug("k=%d: silhouette %s, stability %.3f", k, separation, stability)
    best = max(scores, key=lambda k: scores[k])
    log.info("clustering.k=auto: %d clusters (silhouette + stability %s)", best, scores)
    return best


def pairwise(rows: np.ndarray) -> np.ndarray:
    """Squared distances of rows [n, d] from each other [n, n]; for rows of length 1, 2·(1 - cosine)."""
    squares = np.einsum("nd,nd->n", rows, rows)
    distances = np.maximum(squares[:, None] + squares - 2 * (rows @ rows.T), 0)
    np.fill_diagonal(distances, 0)
    return distances


def silhouette(distances: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean silhouette (b - a) / max(a, b) of the rows; None if there is one cluster only, or one row per cluster.

    a is a row's mean distance to the other members of its cluster, b to the members of the nearest other cluster.

    Args:
        distances: Of all rows from each other [n, n].
        labels: Cluster of each row [n].
    """
    from sklearn.metrics import silhouette_score

    if not 1 < len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(distances, labels, metric="precomputed"))
