"""Figures on clusters, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from elrea.clustering import quality as module
from elrea.clustering.quality import quality
from elrea.clustering.random import random_clusters

# Angles 0, 60, 180 and 240 degrees: opposite pairs have cosine -1, neighbours 0.5.
ANGLES = np.deg2rad([0, 60, 180, 240])
FEATURES = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def test_figures_by_hand() -> None:
    """Pairs: 0-60 and 180-240: 0.5; 0-180 and 60-240: -1; 0-240 and 60-180: -0.5."""
    got = quality(FEATURES, np.array([0, 0, 1, 1]), ["a", "a", "b", "b"], ["x", "y", "x", "y"])
    assert got == {
        "sizes": [2, 2],
        "nmi_source": 1.0,
        "nmi_category": 0.0,
        "within": 0.5,
        "between": -0.75,
        "conflict": pytest.approx(4 / 6, abs=1e-6),
        "conflict_within": 0.0,
    }
    crossed = quality(FEATURES, np.array([0, 1, 0, 1]), ["a", "a", "b", "b"], ["x", "y", "x", "y"])
    assert (crossed["nmi_source"], crossed["nmi_category"]) == (0.0, 1.0)
    assert (crossed["within"], crossed["between"], crossed["conflict_within"]) == (-1.0, 0.0, 1.0)


def test_one_cluster_has_nothing_between_and_single_members_nothing_within() -> None:
    one = quality(FEATURES, np.zeros(4, dtype=np.int64), list("aabb"), list("xyxy"))
    assert one["between"] is None and one["within"] == pytest.approx(-1 / 3, abs=1e-6)
    alone = quality(FEATURES, np.arange(4), list("aabb"), list("xyxy"))
    assert alone["within"] is None and alone["conflict_within"] is None
    assert alone["sizes"] == [1, 1, 1, 1]


def test_large_inputs_are_sampled_for_pairs_but_not_for_sizes(monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 50)
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 100])
    features = np.eye(2, dtype=np.float32)[labels]
    rows = draw.permutation(400)
    sources = [str(label) for label in labels[rows]]
    got = quality(features[rows], labels[rows], sources, sources)
    assert got["sizes"] == [300, 100] and got["nmi_source"] == 1.0
    assert (got["within"], got["between"]) == (1.0, 0.0)


def test_random_clusters_keep_sizes_and_nothing_else() -> None:
    assignment = np.repeat([0, 1, 2], [500, 300, 200])
    dealt = random_clusters(assignment, seed=0)
    assert np.bincount(dealt).tolist() == [500, 300, 200]
    np.testing.assert_array_equal(dealt, random_clusters(assignment, seed=0))
    assert (dealt != random_clusters(assignment, seed=1)).any()
    chance = 0.5**2 + 0.3**2 + 0.2**2
    assert abs((dealt == assignment).mean() - chance) < 0.06
    np.testing.assert_array_equal(assignment, np.repeat([0, 1, 2], [500, 300, 200]))
