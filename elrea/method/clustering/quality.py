"""Quality figures of a clustering: agreement with labels, separation and stability."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.errors import ClusterError
from elrea.method.clustering.auto import pairwise, silhouette

if TYPE_CHECKING:
    from elrea.method.clustering.points import Clustering, Points

SAMPLE = 2_000
"""Number of rows, drawn at random, for figures over pairs."""
RUNS = 3
"""Number of clusterings that a figure of stability compares."""
SEED_POINTS = 10_000
"""Number of points that are clustered again with other seeds; all, if there are fewer."""
SAMPLE_POINTS = 5_000
"""Number of points of each sample that is clustered separately, but at most four fifths of all."""


def quality(
    points: Points,
    assignment: np.ndarray,
    categories: Sequence[str],
    clustering: Clustering | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Computes the figures of `quality.json`.

    Args:
        points: The points that were grouped, with their sources.
        assignment: Cluster of each point [n].
        categories: Category of each point [n].
        clustering: How they were grouped, for the figures of stability; None leaves these out.
        seed: Seed that the assignment was made with.

    Returns:
        `sizes`.
        Agreement with sources and categories (0: none, 1: the same partition): `nmi_source`, `nmi_category`
        (normalised mutual information), `ari_source`, `ari_category` (adjusted Rand index).
        Over the pairs in a sample of 2,000: the mean cosine `within` and `between` clusters; `conflict` and
        `conflict_within`, the share of negative cosines among all pairs and inside clusters; the mean `silhouette` by
        squared distances of directions.
        `stability_seeds`: mean adjusted Rand index between runs with different seeds on the same 10,000 points at most;
        `stability_samples`: mean adjusted Rand index between the assignment and clusterings of samples of 5,000 points.
        A figure is None if there is nothing to compare.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    drawn = points.draw(SAMPLE, 0)
    rows, labels = points.take(drawn), assignment[drawn]
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    cosines = rows @ rows.T
    upper = np.triu(np.ones_like(cosines, dtype=bool), 1)
    same = (labels[:, None] == labels[None, :]) & upper
    other = upper & ~same
    figures = {
        "sizes": np.bincount(assignment).tolist(),
        "nmi_source": _round(normalized_mutual_info_score(points.sources, assignment)),
        "nmi_category": _round(normalized_mutual_info_score(categories, assignment)),
        "ari_source": _round(adjusted_rand_score(points.sources, assignment)),
        "ari_category": _round(adjusted_rand_score(categories, assignment)),
        "within": _mean(cosines[same]),
        "between": _mean(cosines[other]),
        "conflict": _mean(cosines[upper] < 0),
        "conflict_within": _mean(cosines[same] < 0),
        "silhouette": _round(silhouette(pairwise(rows), labels)),
    }
    return figures | (stability(points, assignment, clustering, seed) if clustering else {})


def stability(
    points: Points, assignment: np.ndarray, clustering: Clustering, seed: int
) -> dict[str, float | None]:
    """Agreement of a clustering with those of other seeds and of samples (see `quality`).

    All runs use the number of clusters that was found, so that clusters are compared, not the choice of their number.
    """
    from sklearn.metrics import adjusted_rand_score

    clustering = clustering.with_k(int(assignment.max()) + 1)
    try:
        same = points.subset(points.draw(SEED_POINTS, seed))
        runs = [clustering(same, seed + run) for run in range(1, RUNS + 1)]
        seeds = [adjusted_rand_score(a, b) for a, b in combinations(runs, 2)]
        samples = []
        for run in range(1, RUNS + 1):
            part = points.draw(min(SAMPLE_POINTS, 4 * len(points) // 5), seed + run)
            found = clustering(points.subset(part), seed + run)
            samples.append(adjusted_rand_score(assignment[part], found))
    except ClusterError:  # a sample is too small for the number of clusters
        return {"stability_seeds": None, "stability_samples": None}
    return {
        "stability_seeds": _mean(np.array(seeds)),
        "stability_samples": _mean(np.array(samples)),
    }


def _mean(values: np.ndarray) -> float | None:
    return _round(values.mean()) if values.size else None


def _round(value: Any) -> float | None:
    return None if value is None else round(float(value), 6)
