"""Random clusters of given sizes: the control that shows what grouping by gradient is worth."""

from __future__ import annotations

import numpy as np


def random_clusters(assignment: np.ndarray, seed: int) -> np.ndarray:
    """Deals the members out at random, sizes copied from a real clustering.

    Args:
        assignment: Cluster of each example [n].
        seed: Of the dealing.

    Returns:
        A permutation of `assignment` [n].
    """
    return np.random.default_rng([seed, 0x5EED]).permutation(assignment)
