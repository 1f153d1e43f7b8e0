"""Dissolves empty and small clusters, and numbers clusters by size: the last steps of every clustering."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from elrea.errors import ClusterError

Nearest = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(points [m], mask of the remaining clusters [C]) -> the nearest remaining cluster of each point [m]."""


def dissolve(assignment: np.ndarray, count: int, min_size: int, nearest: Nearest) -> np.ndarray:
    """Dissolves clusters that are too small to train an expert on.

    The smallest cluster is dissolved first: its members join their next nearest cluster, and sizes are counted again.
    Empty clusters are always dissolved. At least one cluster remains.

    Args:
        assignment: Cluster of each point [n], 0 to `count` - 1.
        count: Number of clusters C, including empty ones.
        min_size: Fewest members of a cluster that remains. Callers lower it to n // C if that is smaller, so that the
            requested number of clusters stays possible.
        nearest: Selects the new cluster of a dissolved cluster's members.

    Returns:
        Cluster of each point [n], with the numbers as given.

    Raises:
        ClusterError: There is no point, and so no cluster that could remain.
    """
    if not len(assignment):
        raise ClusterError("no example with a feature is left to cluster; give more data")
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
    """Renumbers clusters from 0 by falling size (of equal sizes, the one with the earlier first member)."""
    labels, first, inverse, sizes = np.unique(
        assignment, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels))
    return rank[inverse]
