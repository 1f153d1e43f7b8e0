"""Centroids of the clusters, and the cosines of prompts with them (5.8)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 32 << 20
"""Bytes of float32 features that are in memory at once: their file may be larger than memory."""


def centroids(features: np.ndarray, assignment: np.ndarray) -> Tensor:
    """δ̄_c: the normalised mean of each cluster's features (5.8).

    Args:
        features: δ of the training examples [n, d], float16 or float32, possibly memory-mapped.
        assignment: Cluster of each example [n], 0 to C-1, none empty; -1: in no cluster.

    Returns:
        [C, d], rows of length 1; zeros for a cluster whose features cancel: its cosine with every prompt is 0.
    """
    sums = torch.zeros(int(assignment.max()) + 1, features.shape[1], dtype=torch.float64)
    for rows, block in blocks(features):
        members = np.flatnonzero(assignment[rows] >= 0)
        labels = torch.from_numpy(assignment[rows][members])
        sums.index_add_(0, labels, block[members].double())
    lengths = sums.norm(dim=1, keepdim=True)
    return (sums / torch.where(lengths > 0, lengths, 1.0)).float()


def cosines(features: np.ndarray, centres: Tensor) -> Tensor:
    """cos_c = ⟨δ, δ̄_c⟩ / ‖δ‖ (5.8); all 0 for a prompt without a feature (a row of zeros).

    Args:
        features: δ [n, d], float16 or float32, possibly memory-mapped.
        centres: δ̄ [C, d], rows of length 1 or of zeros.

    Returns:
        [n, C] in float32.
    """
    found = torch.empty(len(features), len(centres))
    for rows, block in blocks(features):
        # Rounding to float16 changes the length of a unit row, and not every feature has length 1.
        lengths = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)
        block /= torch.where(lengths > 0, lengths, 1.0)[:, None]
        found[rows] = block @ centres.T
    return found


def blocks(features: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    """All rows block by block: (slice of the rows, a float32 copy [m, d])."""
    step = max(1, BLOCK_BYTES // (4 * features.shape[1]))
    for start in range(0, len(features), step):
        rows = slice(start, min(start + step, len(features)))
        yield rows, torch.from_numpy(np.array(features[rows], dtype=np.float32))
