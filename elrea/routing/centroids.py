"""Centroids of the clusters, and how near prompts lie to them (5.8)."""

from __future__ import annotations

import torch
from torch import Tensor


def centroids(features: Tensor, assignment: Tensor) -> Tensor:
    """δ̄_c: the normalised mean of each cluster's features (5.8).

    Args:
        features: δ of the training examples [n, d].
        assignment: Cluster of each [n], 0 to C-1, none empty.

    Returns:
        [C, d], rows of length 1.
    """
    count = int(assignment.max()) + 1
    sums = torch.zeros(count, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, assignment, features.double())
    return (sums / sums.norm(dim=1, keepdim=True)).float()


def cosines(features: Tensor, centres: Tensor) -> Tensor:
    """cos_c = ⟨δ, δ̄_c⟩ for unit vectors: [n, d] and [C, d] to [n, C]."""
    return features @ centres.T
