"""The paper's procedure: a fit on a sample, large clusters split again."""

from __future__ import annotations

import numpy as np
import pytest

from elrea.errors import ClusterError, ConfigError
from elrea.method.clustering.birch import Birch, sub_clusters
from tests.method.clustering.rows import groups, points, same_partition


def test_separated_groups_are_recovered_from_a_sample() -> None:
    features, labels = groups([90, 80, 70, 60, 50])
    got = Birch(sample=150, min_size=5)(points(features), seed=0)
    assert got.dtype == np.int64 and np.bincount(got).tolist() == [90, 80, 70, 60, 50]
    assert same_partition(got, labels)


def test_the_threshold_fits_any_spread() -> None:
    """A fixed threshold finds one cluster where cosines average 0.99, and as many as rows where they average 0."""
    for shared in (0.0, 3.0, 30.0):
        draw = np.random.default_rng(0)
        rows = draw.standard_normal((400, 8))
        rows[:, 0] += 2 * shared
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        centres = sub_clusters(rows.astype(np.float32), 60)
        assert 40 <= len(centres) <= 80, shared
    assert len(sub_clusters(np.ones((20, 3), dtype=np.float32), 6)) == 1


def nested(outer: list[int], inner: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Far groups, and one that falls apart only when looked at by itself."""
    draw = np.random.default_rng(0)
    outer_labels = np.repeat(np.arange(len(outer)), outer)
    inner_labels = np.repeat(np.arange(len(inner)), inner)
    far = np.eye(16)[1 + outer_labels] + 0.03 * draw.standard_normal((sum(outer), 16))
    near = np.eye(16)[0] + 0.35 * np.eye(16)[8 + inner_labels]
    near += 0.03 * draw.standard_normal((sum(inner), 16))
    rows = np.concatenate([far, near])
    labels = np.concatenate([outer_labels, len(outer) + inner_labels])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def test_a_cluster_more_than_five_times_the_smallest_is_split_again() -> None:
    features, labels = nested([40, 40, 40, 40], [80, 80, 80, 80])
    once = Birch(splits=[5], min_size=10)(points(features), seed=0)
    assert np.bincount(once).tolist() == [320, 40, 40, 40, 40]
    again = Birch(splits=[5, 4], min_size=10)(points(features), seed=0)
    assert same_partition(again, labels)
    assert np.bincount(again).tolist() == [80, 80, 80, 80, 40, 40, 40, 40]
    patient = Birch(splits=[5, 4], ratio=9, min_size=10)(points(features), seed=0)
    np.testing.assert_array_equal(patient, once)


def test_small_clusters_are_dissolved_before_they_count_as_the_smallest() -> None:
    """Else one outlier would have every other cluster split."""
    features, labels = groups([100, 100, 100, 100, 3])
    got = Birch(min_size=10)(points(features), seed=0)
    assert len(np.bincount(got)) == 4 and np.bincount(got).min() >= 100
    assert same_partition(got[labels < 4], labels[labels < 4])


def test_the_seed_decides_the_sample() -> None:
    features = np.random.default_rng(3).standard_normal((300, 6)).astype(np.float32)
    runs = [Birch(sample=60, leaves=20)(points(features, unit=False), seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_duplicates_and_few_rows() -> None:
    assert Birch()(points(np.ones((40, 3), dtype=np.float32)), seed=0).tolist() == [0] * 40
    features, _ = groups([3, 3, 3])
    assert len(Birch(min_size=1)(points(features), seed=0)) == 9
    with pytest.raises(ClusterError, match=r"^4 .* clustering\.splits\[0\]=5 clusters; .*$"):
        Birch()(points(features[:4]), seed=0)


@pytest.mark.parametrize(
    "settings", [{"splits": []}, {"splits": [5, 1]}, {"ratio": 0.5}, {"sample": 1}, {"leaves": 1}]
)
def test_settings_that_cannot_cluster_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=rf"clustering\.{next(iter(settings))}="):
        Birch(**settings)
