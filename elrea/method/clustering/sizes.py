"""The rule for empty and tiny clusters, and the order in which clusters are numbered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Nearest = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(points [m], alive [C]) -> the nearest cluster that is alive, of each [m]."""


def dissolve(assignment: np.ndarray, count: int, min_size: int, nearest: Nearest) -> np.ndarray:
    """Gives up clusters that are too small to train an expert on: every clustering ends with this.

    The smallest cluster goes first and its members join their next nearest cluster, then the others are counted
    again. An empty cluster goes in any case. One cluster always stays.

    Args:
        assignment: Cluster of each point [n], 0 to `count` - 1.
        count: Number of clusters C, empty ones among them.
        min_size: Fewest members of a cluster that stays. Where fewer than that would be each cluster's equal
            share, callers lower it to that share: clusters that were asked for are not all given up.
        nearest: Where members of a cluster go that is given up.

    Returns:
        Cluster of each point [n], by the old numbers.
    """
    assignment, alive = assignment.copy(), np.ones(count, dtype=bool)
    while True:
        sizes = np.bincount(assignment, minlength=count)
        smallest = int(np.where(alive, sizes, len(assignment) + 1).argmin())
        if sizes[smallest] >= max(min_size, 1) or alive.sum() == 1:
            return assignment
        alive[smallest] = False
        members = np.flatnonzero(assignment == smallest)
        if len(members):
            assignment[members] = nearest(members, alive)


def by_size(assignment: np.ndarray) -> np.ndarray:
    """Numbers clusters from 0 by falling size (first member first between equals)."""
    labels, first, inverse, sizes = np.unique(
        assignment, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels))
    return rank[inverse]
