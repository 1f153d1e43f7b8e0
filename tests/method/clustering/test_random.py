"""Random clusters have the sizes of another clustering and random members."""

from __future__ import annotations

import numpy as np

from elrea.method.clustering.kmeans import FaissKMeans
from elrea.method.clustering.random import RandomClusters, random_clusters
from tests.method.clustering.rows import groups, points


def test_random_clusters_keep_sizes_and_nothing_else() -> None:
    assignment = np.repeat([0, 1, 2], [500, 300, 200])
    dealt = random_clusters(assignment, seed=0)
    assert np.bincount(dealt).tolist() == [500, 300, 200]
    np.testing.assert_array_equal(dealt, random_clusters(assignment, seed=0))
    assert (dealt != random_clusters(assignment, seed=1)).any()
    chance = 0.5**2 + 0.3**2 + 0.2**2
    assert abs((dealt == assignment).mean() - chance) < 0.06
    np.testing.assert_array_equal(assignment, np.repeat([0, 1, 2], [500, 300, 200]))


def test_as_a_clustering_of_its_own() -> None:
    features, labels = groups([90, 60, 30])
    of = FaissKMeans(k=3, min_size=7)
    clustering = RandomClusters(of)
    assert clustering.known_k() == 3
    got = clustering(points(features), seed=0)
    np.testing.assert_array_equal(got, random_clusters(of(points(features), 0), 0))
    assert np.bincount(got).tolist() == [90, 60, 30]
    shares = [np.bincount(labels[got == c], minlength=3).min() for c in range(3)]
    assert min(shares) > 0, "every cluster has members of every group"
