"""Quality figures of clusters equal values computed in the test."""

from __future__ import annotations

import numpy as np
import pytest

from elrea.method.clustering import quality as module
from elrea.method.clustering.kmeans import FaissKMeans
from elrea.method.clustering.points import Points
from elrea.method.clustering.quality import quality, stability
from elrea.method.clustering.random import RandomClusters
from elrea.method.clustering.source import SourceClusters
from tests.method.clustering.rows import groups, points

# Angles 0, 60, 180 and 240 degrees: opposite pairs have cosine -1, neighbours 0.5.
ANGLES = np.deg2rad([0, 60, 180, 240])
FEATURES = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
BY_AB = Points(FEATURES, list("aabb"))


def test_figures_by_hand() -> None:
    """Pairs: 0-60 and 180-240: 0.5; 0-180 and 60-240: -1; 0-240 and 60-180: -0.5."""
    got = quality(BY_AB, np.array([0, 0, 1, 1]), ["x", "y", "x", "y"])
    assert got == {
        "sizes": [2, 2],
        "nmi_source": 1.0,
        "nmi_category": 0.0,
        "ari_source": 1.0,
        "ari_category": pytest.approx(-0.5, abs=1e-6),
        "within": 0.5,
        "between": -0.75,
        "conflict": pytest.approx(4 / 6, abs=1e-6),
        "conflict_within": 0.0,
        # Squared distances: 1 inside, 4 and 3 to the other two: (3.5 - 1) / 3.5 for each row.
        "silhouette": pytest.approx(2.5 / 3.5, abs=1e-6),
    }
    crossed = quality(BY_AB, np.array([0, 1, 0, 1]), ["x", "y", "x", "y"])
    assert (crossed["nmi_source"], crossed["nmi_category"]) == (0.0, 1.0)
    assert (crossed["within"], crossed["between"], crossed["conflict_within"]) == (-1.0, 0.0, 1.0)


def test_one_cluster_has_nothing_between_and_single_members_nothing_within() -> None:
    one = quality(BY_AB, np.zeros(4, dtype=np.int64), list("xyxy"))
    assert (
        one["between"] is None
        and one["silhouette"] is None
        and one["within"] == pytest.approx(-1 / 3, abs=1e-6)
    )
    alone = quality(BY_AB, np.arange(4), list("xyxy"))
    assert (
        alone["within"] is None and alone["silhouette"] is None and alone["conflict_within"] is None
    )
    assert alone["sizes"] == [1, 1, 1, 1]


def test_one_point_is_a_cluster_that_nothing_can_be_compared_with() -> None:
    """No sample of four fifths of it has a point."""
    one = Points(FEATURES[:1], ["a"])
    assignment = SourceClusters()(one, 0)
    assert assignment.tolist() == [0]
    got = quality(one, assignment, ["x"], SourceClusters())
    assert got["sizes"] == [1] and got["stability_seeds"] is got["stability_samples"] is None


def test_large_inputs_are_sampled_for_pairs_but_not_for_sizes(monkeypatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 50)
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 100])
    features = np.eye(2, dtype=np.float32)[labels]
    rows = draw.permutation(400)
    sources = [str(label) for label in labels[rows]]
    got = quality(Points(features[rows], sources), labels[rows], sources)
    assert got["sizes"] == [300, 100] and got["nmi_source"] == 1.0
    assert (got["within"], got["between"]) == (1.0, 0.0)


def test_pairs_look_at_directions_only() -> None:
    longer = Points(
        FEATURES * np.array([[1], [2], [3], [9]], dtype=np.float32), list("aabb"), False
    )
    labels = np.array([0, 0, 1, 1])
    short, long = (quality(of, labels, list("xyxy")) for of in (BY_AB, longer))
    assert long == {name: pytest.approx(value, abs=1e-5) for name, value in short.items()}


def test_groups_that_are_there_are_stable_and_random_ones_are_not() -> None:
    features, labels = groups([120, 100, 80], noise=0.1)
    of = FaissKMeans(k=3, restarts=2)
    got = of(points(features), 0)
    found = quality(points(features), got, list(map(str, labels)), of)
    assert (found["stability_seeds"], found["stability_samples"]) == (1.0, 1.0)
    assert found["ari_category"] == 1.0
    dealt = RandomClusters(of)
    chance = stability(points(features), dealt(points(features), 0), dealt, 0)
    assert all(abs(value) < 0.05 for value in chance.values() if value is not None)
    assert None not in chance.values()


def test_stability_is_low_where_there_are_no_groups() -> None:
    rows = np.random.default_rng(0).standard_normal((600, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    kmeans = FaissKMeans(k=6, restarts=1, iterations=10)
    found = stability(points(rows), kmeans(points(rows), 0), kmeans, 0)
    assert max(value for value in found.values() if value is not None) < 0.5


def test_stability_costs_no_more_for_more_points(monkeypatch) -> None:
    """And `auto` does not search again."""
    monkeypatch.setattr(module, "SEED_POINTS", 100)
    monkeypatch.setattr(module, "SAMPLE_POINTS", 60)
    asked = []

    class Counting(FaissKMeans):
        def __call__(self, points: Points, seed: int) -> np.ndarray:
            asked.append((self.k, len(points), seed))
            return super().__call__(points, seed)

    features, labels = groups([300, 200], noise=0.1)
    got = np.where(labels == 0, 0, 1)
    stability(points(features), got, Counting(k="auto", restarts=1), 7)
    assert [size for _, size, _ in asked] == [100] * 3 + [60] * 3
    assert {k for k, _, _ in asked} == {2}
    assert {seed for _, _, seed in asked} == {8, 9, 10}


def test_a_sample_too_small_for_the_clusters_says_nothing() -> None:
    features, _ = groups([5, 5])
    kmeans = FaissKMeans(k=9, min_size=1)
    found = stability(points(features), kmeans(points(features), 0), kmeans, 0)
    assert found == {"stability_seeds": None, "stability_samples": None}
