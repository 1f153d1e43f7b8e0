"""Figures that say what a clustering found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SAMPLE = 2_000
"""Rows, drawn at random, that pairwise figures look at."""


def quality(
    features: np.ndarray, assignment: np.ndarray, sources: Sequence[str], categories: Sequence[str]
) -> dict[str, Any]:
    """Describes a clustering.

    Args:
        features: Unit vectors [n, d].
        assignment: Cluster of each row [n].
        sources, categories: Of each row; their agreement with the clusters is given as normalised mutual
            information (0: none, 1: the same partition).

    Returns:
        `sizes`; `nmi_source`, `nmi_category`; mean cosine `within` and `between` clusters; `conflict` and
        `conflict_within`: share of pairs with a negative cosine, among all and inside clusters.
    """
    from sklearn.metrics import normalized_mutual_info_score

    rows = np.random.default_rng(0).permutation(len(features))[:SAMPLE]
    cosines = features[rows] @ features[rows].T
    upper = np.triu(np.ones_like(cosines, dtype=bool), 1)
    same = (assignment[rows][:, None] == assignment[rows][None, :]) & upper
    other = upper & ~same
    return {
        "sizes": np.bincount(assignment).tolist(),
        "nmi_source": _round(normalized_mutual_info_score(sources, assignment)),
        "nmi_category": _round(normalized_mutual_info_score(categories, assignment)),
        "within": _mean(cosines[same]),
        "between": _mean(cosines[other]),
        "conflict": _mean(cosines[upper] < 0),
        "conflict_within": _mean(cosines[same] < 0),
    }


def _mean(values: np.ndarray) -> float | None:
    return _round(values.mean()) if values.size else None


def _round(value: float) -> float:
    return round(float(value), 6)
