"""Makes the files of the clusters' stage: assignment, centroids, quality figures and index (step 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from elrea.errors import DataError
from elrea.method.clustering.centroids import centroids
from elrea.method.clustering.index import write_index
from elrea.method.clustering.points import Clustering, Points
from elrea.method.clustering.quality import quality
from elrea.method.clustering.random import random_clusters
from elrea.method.features.to_disk import NAME, SKIPPED, open_features
from elrea.store.files import read_json, write_json

if TYPE_CHECKING:
    from elrea.data.examples import Example

CLUSTERS, QUALITY = "clusters.safetensors", "quality.json"


def make_clusters(
    folder: Path,
    features: Path,
    examples: Sequence[Example],
    clustering: Clustering,
    seed: int,
    *,
    unit: bool,
) -> None:
    """Groups the training examples by their features.

    Writes `clusters.safetensors` with `assignment` [n] (-1: no feature, in no cluster), `random` [n] (the same sizes,
    members drawn at random) and `centroids` [C, d]; `quality.json`; and the FAISS index of the features.

    Args:
        folder: Where to write.
        features: Folder of the features.
        examples: The training examples in the order of the features' rows.
        clustering: How to group them.
        seed: Seed of the clustering and of the random clusters.
        unit: Whether features have length 1.

    Raises:
        DataError: No example has a feature.
        ElreaError: The features cannot be read, or cannot be grouped.
    """
    rows = open_features(features / NAME, n=len(examples))
    skipped = list(read_json(features / SKIPPED).values())
    if len(skipped) == len(examples):
        raise DataError(
            f"none of {len(examples)} training prompts has a feature: every gradient is zero or not finite; "
            "check the training's loss and features.layers"
        )
    kept = np.setdiff1d(np.arange(len(examples)), np.array(skipped, dtype=np.int64))
    grouped = [examples[i] for i in kept.tolist()]
    points = Points(rows, [e.source for e in grouped], unit, kept if skipped else None)
    clusters = clustering(points, seed)
    assignment, random = np.full((2, len(examples)), -1, dtype=np.int64)
    assignment[kept] = clusters
    random[kept] = random_clusters(clusters, seed)
    tensors = {
        "assignment": torch.from_numpy(assignment.copy()),
        "random": torch.from_numpy(random.copy()),
        "centroids": centroids(rows, assignment),
    }
    save_file(tensors, folder / CLUSTERS)
    figures = quality(points, clusters, [e.category for e in grouped], clustering, seed)
    write_json(folder / QUALITY, figures)
    write_index(folder, points)


def read_clusters(folder: Path) -> dict[str, Tensor]:
    """Reads `assignment` [n], `random` [n] and `centroids` [C, d] of a finished clustering."""
    return load_file(folder / CLUSTERS)
