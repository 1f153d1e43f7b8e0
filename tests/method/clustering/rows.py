"""Points for these tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from elrea.method.clustering.points import Points


def points(features: np.ndarray, unit: bool = True) -> Points:
    return Points(features, ["s"] * len(features), unit)


def groups(sizes: list[int], d: int = 16, noise: float = 0.05, seed: int = 0):
    """Unit vectors around as many orthogonal directions, shuffled, and the group of each."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.eye(d)[labels] + noise * draw.standard_normal((len(labels), d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def on_disk(features: np.ndarray, path: Path) -> np.memmap:
    """The same numbers, float16, memory-mapped and read-only."""
    features.astype(np.float16).tofile(path)
    return np.memmap(path, dtype=np.float16, mode="r", shape=features.shape)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))
