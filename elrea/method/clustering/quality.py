"""Figures that say what a clustering found, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from elrea.errors import ClusterError
from elrea.method.clustering.auto import pairwise, silhouette
from elrea.method.clustering.points import Clustering, Points

SAMPLE = 2_000
"""Rows, drawn at random, that pairwise figures look at."""
RUNS = 3
"""Clusterings that a figure of stability is the mean of."""
SEED_POINTS = 10_000
"""Points that are clustered again with other seeds; all, where there are fewer."""
SAMPLE_POINTS = 5_000
"""Points of each sample that is clustered by itself; four fifths, where there are not so many more."""


def quality(
    points: Points,
    assignment: np.ndarray,
    categories: Sequence[str],
    clustering: Clustering | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Describes a clustering.

    Args:
        points: What was grouped, with their sources.
        assignment: Cluster of each point [n].
        categories: Of each point [n].
        clustering: Asked again for the figures of stability; without it they are left out.
        seed: That the assignment was made with.

    Returns:
        `sizes`.
        Agreement with sources and categories (0: none, 1: the same partition): `nmi_source`, `nmi_category`
        (normalised mutual information), `ari_source`, `ari_category` (adjusted Rand index).
        Of pairs in a sample of 2,000: mean cosine `within` and `between` clusters; `conflict` and
        `conflict_within`, the share of negative cosines among all and inside clusters; mean `silhouette`, with
        squared distances of directions.
        `stability_seeds`: mean adjusted Rand index between runs with other seeds on the same at most 10,000 points;
        `stability_samples`: between the assignment and what samples of 5,000 points come to by themselves.
        None stands where there is nothing to compare.
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
    """How much of a clustering other seeds and other samples find again (see `quality`).

    `k=auto` keeps the number that was found, so that the clusters are compared and not the search for their number.
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
    except ClusterError:  # a sample is too small for what was asked of all points
        return {"stability_seeds": None, "stability_samples": None}
    return {
        "stability_seeds": _mean(np.array(seeds)),
        "stability_samples": _mean(np.array(samples)),
    }


def _mean(values: np.ndarray) -> float | None:
    return _round(values.mean()) if values.size else None


def _round(value: Any) -> float | None:
    return None if value is None else round(float(value), 6)
