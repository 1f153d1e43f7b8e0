"""Groups that are there are found, and every row has its place."""

from __future__ import annotations

import numpy as np
import pytest

from elrea.clustering.kmeans import FaissKMeans, by_size, dissolve
from elrea.errors import ClusterError, ConfigError


def groups(sizes: list[int], d: int = 16, noise: float = 0.05, seed: int = 0):
    """Unit vectors around as many orthogonal directions, shuffled, and the group of each."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.eye(d)[labels] + noise * draw.standard_normal((len(labels), d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def test_separated_groups_are_recovered_and_numbered_by_falling_size() -> None:
    features, labels = groups([40, 90, 60, 75])
    got = FaissKMeans(k=4, min_size=5)(features, seed=0)
    assert got.dtype == np.int64 and got.shape == labels.shape
    wanted = np.array([3, 0, 2, 1])[labels]  # sizes 40, 90, 60, 75 rank 3, 0, 2, 1
    np.testing.assert_array_equal(got, wanted)


def test_every_row_stands_with_the_nearest_mean_direction() -> None:
    features = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    got = FaissKMeans(k=5, min_size=1, iterations=200)(features, seed=1)
    sizes = np.bincount(got)
    assert len(sizes) == 5 and sizes.sum() == 300 and (np.diff(sizes) <= 0).all()
    means = np.stack([features[got == c].mean(0) for c in range(5)])
    nearest = (features @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    assert (nearest == got).mean() > 0.98


def test_a_tight_group_draws_no_members_from_a_loose_one() -> None:
    """A loose group's mean is short: without unit centroids the tight one's longer mean would win."""
    draw = np.random.default_rng(0)
    tight = np.eye(16)[0] + 0.02 * draw.standard_normal((200, 16))
    loose = 0.5 * np.eye(16)[0] + np.eye(16)[1] + 0.5 * draw.standard_normal((150, 16))
    rows = np.concatenate([tight, loose])
    features = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    got = FaissKMeans(k=2, min_size=1)(features, seed=0)
    means = np.stack([features[got == c].mean(0) for c in range(2)])
    lengths = np.linalg.norm(means, axis=1)
    assert lengths.min() < 0.8 * lengths.max()
    nearest = (features @ (means / lengths[:, None]).T).argmax(1)
    assert (nearest == got).mean() > 0.99


def test_all_points_train_the_centroids() -> None:
    """FAISS' default looks at 256 points a centroid: a group of 2 % would drown in that."""
    features, labels = groups([3000, 3000, 120], d=4, noise=0.02)
    got = FaissKMeans(k=3, min_size=20)(features, seed=0)
    np.testing.assert_array_equal(np.bincount(got), [3000, 3000, 120])
    assert len(set(zip(labels.tolist(), got.tolist(), strict=True))) == 3


def test_the_seed_decides() -> None:
    features = np.random.default_rng(3).standard_normal((200, 6)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    kmeans = FaissKMeans(k=6, restarts=1, iterations=3, min_size=1)
    runs = [kmeans(features, seed) for seed in (0, 0, 1, 2**40)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_small_clusters_are_dissolved_into_their_next_nearest() -> None:
    features, labels = groups([60, 60, 6])
    features[labels == 2] += 0.3 * np.eye(16, dtype=np.float32)[0]  # group 2 leans to group 0
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    kept = FaissKMeans(k=3, min_size=6)(features, seed=0)
    assert np.bincount(kept).tolist() == [60, 60, 6]
    merged = FaissKMeans(k=3, min_size=7)(features, seed=0)
    assert np.bincount(merged).tolist() == [66, 60]
    assert (merged[labels == 2] == merged[labels == 0][0]).all()


def test_min_size_never_asks_for_more_than_an_equal_share() -> None:
    features, _ = groups([10, 10])
    assert np.bincount(FaissKMeans(k=2, min_size=1000)(features, seed=0)).tolist() == [10, 10]


def test_fewer_rows_than_clusters_is_an_error_of_one_line() -> None:
    features, _ = groups([3, 4])
    with pytest.raises(ClusterError, match=r"^7 training examples .* clustering\.k=8 .*$"):
        FaissKMeans(k=8)(features, seed=0)
    assert len(set(FaissKMeans(k=7, min_size=1)(features, seed=0).tolist())) <= 7


def test_duplicates_leave_no_gap_in_the_numbers() -> None:
    features = np.repeat(np.eye(3, dtype=np.float32)[:2], [30, 20], axis=0)
    got = FaissKMeans(k=5, min_size=1)(features, seed=0)
    assert sorted(set(got.tolist())) == list(range(got.max() + 1))
    assert all(len(set(got[part].tolist())) == 1 for part in (slice(0, 30), slice(30, 50)))
    same = FaissKMeans(k=4, min_size=1)(np.ones((20, 1), dtype=np.float32), seed=0)
    assert same.tolist() == [0] * 20


def test_dissolve_by_hand() -> None:
    cosines = np.array([[0.9, 0.8, 0.1], [0.9, 0.1, 0.2], [0.2, 0.9, 0.3], [0.1, 0.3, 0.9]])
    before = cosines.copy()
    assert dissolve(cosines, 1).tolist() == [0, 0, 1, 2]
    # The first of the two smallest goes; its member prefers 2, which is large enough then.
    assert dissolve(cosines, 2).tolist() == [0, 0, 2, 2]
    assert dissolve(cosines, 3).tolist() == [0, 0, 0, 0] or set(dissolve(cosines, 3)) == {2}
    np.testing.assert_array_equal(cosines, before)
    empty = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert dissolve(empty, 0).tolist() == [0, 0]


def test_by_size_by_hand() -> None:
    assert by_size(np.array([7, 2, 2, 9, 7, 2])).tolist() == [1, 0, 0, 2, 1, 0]
    assert by_size(np.array([5, 3, 3, 5])).tolist() == [0, 1, 1, 0], "first member first"


@pytest.mark.parametrize("settings", [{"k": 0}, {"restarts": 0}, {"iterations": 0}])
def test_settings_that_cannot_cluster_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"clustering\.{next(iter(settings))}=0"):
        FaissKMeans(**settings)
