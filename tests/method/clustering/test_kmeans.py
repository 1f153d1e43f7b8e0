"""Groups that are there are found, and every row has its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elrea.errors import ClusterError, ConfigError
from elrea.method.clustering import kmeans as module
from elrea.method.clustering import lloyd
from elrea.method.clustering import points as points_module
from elrea.method.clustering.kmeans import FaissKMeans
from tests.method.clustering.rows import groups, on_disk, points, same_partition


def test_separated_groups_are_recovered_and_numbered_by_falling_size() -> None:
    features, labels = groups([40, 90, 60, 75])
    got = FaissKMeans(k=4, min_size=5)(points(features), seed=0)
    assert got.dtype == np.int64 and got.shape == labels.shape
    wanted = np.array([3, 0, 2, 1])[labels]  # sizes 40, 90, 60, 75 rank 3, 0, 2, 1
    np.testing.assert_array_equal(got, wanted)


def test_every_row_is_in_the_cluster_with_the_nearest_mean_direction() -> None:
    features = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    got = FaissKMeans(k=5, min_size=1, iterations=200)(points(features), seed=1)
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
    got = FaissKMeans(k=2, min_size=1)(points(features), seed=0)
    means = np.stack([features[got == c].mean(0) for c in range(2)])
    lengths = np.linalg.norm(means, axis=1)
    assert lengths.min() < 0.8 * lengths.max()
    nearest = (features @ (means / lengths[:, None]).T).argmax(1)
    assert (nearest == got).mean() > 0.99


def test_all_points_train_the_centroids() -> None:
    """FAISS' default looks at 256 points a centroid: a group of 2 % would drown in that."""
    features, labels = groups([3000, 3000, 120], d=4, noise=0.02)
    got = FaissKMeans(k=3, min_size=20)(points(features), seed=0)
    np.testing.assert_array_equal(np.bincount(got), [3000, 3000, 120])
    assert len(set(zip(labels.tolist(), got.tolist(), strict=True))) == 3


def test_the_seed_decides() -> None:
    features = np.random.default_rng(3).standard_normal((200, 6)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    kmeans = FaissKMeans(k=6, restarts=1, iterations=3, min_size=1)
    runs = [kmeans(points(features), seed) for seed in (0, 0, 1, 2**40)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_small_clusters_are_dissolved_into_their_next_nearest() -> None:
    features, labels = groups([60, 60, 6])
    features[labels == 2] += 0.3 * np.eye(16, dtype=np.float32)[0]  # group 2 leans to group 0
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    kept = FaissKMeans(k=3, min_size=6)(points(features), seed=0)
    assert np.bincount(kept).tolist() == [60, 60, 6]
    merged = FaissKMeans(k=3, min_size=7)(points(features), seed=0)
    assert np.bincount(merged).tolist() == [66, 60]
    assert (merged[labels == 2] == merged[labels == 0][0]).all()


def test_min_size_never_asks_for_more_than_an_equal_share() -> None:
    features, _ = groups([10, 10])
    assert np.bincount(FaissKMeans(k=2, min_size=1000)(points(features), seed=0)).tolist() == [
        10,
        10,
    ]


def test_fewer_rows_than_clusters_is_an_error_of_one_line() -> None:
    features, _ = groups([3, 4])
    with pytest.raises(ClusterError, match=r"^7 training examples .* clustering\.k=8 .*$"):
        FaissKMeans(k=8)(points(features), seed=0)
    assert len(set(FaissKMeans(k=7, min_size=1)(points(features), seed=0).tolist())) <= 7


def test_duplicates_leave_no_gap_in_the_numbers() -> None:
    features = np.repeat(np.eye(3, dtype=np.float32)[:2], [30, 20], axis=0)
    got = FaissKMeans(k=5, min_size=1)(points(features), seed=0)
    assert sorted(set(got.tolist())) == list(range(got.max() + 1))
    assert all(len(set(got[part].tolist())) == 1 for part in (slice(0, 30), slice(30, 50)))
    same = FaissKMeans(k=4, min_size=1)(points(np.ones((20, 1), dtype=np.float32)), seed=0)
    assert same.tolist() == [0] * 20


def test_many_equal_groups_are_all_found() -> None:
    """From uniform starts, the best of ten runs merges two of these groups for each of these seeds."""
    features, labels = groups([40] * 16, d=32, noise=0.04)
    for seed in (0, 2, 5):
        got = FaissKMeans(k=16, min_size=5)(points(features), seed=seed)
        assert same_partition(got, labels)


def test_a_file_too_large_for_memory_gives_the_clusters_of_one_in_memory(tmp_path, monkeypatch):
    features, labels = groups([700, 500, 300], d=16, noise=0.15)
    wanted = FaissKMeans(k=3)(points(features), seed=0)
    monkeypatch.setattr(module, "IN_MEMORY", 400 * 16)
    monkeypatch.setattr(points_module, "BLOCK_BYTES", 4 * 16 * 128)
    got = FaissKMeans(k=3)(points(on_disk(features, tmp_path / "f")), seed=0)
    np.testing.assert_array_equal(got, labels)
    np.testing.assert_array_equal(got, wanted)


def test_passes_over_a_file_use_what_the_sample_did_not_see(monkeypatch) -> None:
    """Centres of the sample alone leave rows with a mean that is not the nearest."""
    draw = np.random.default_rng(0)
    features = draw.standard_normal((3000, 6)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    got = FaissKMeans(k=4, iterations=200, restarts=2)(points(features), seed=0)
    means = np.stack([features[got == c].mean(0) for c in range(4)])
    nearest = (features @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    assert (nearest == got).mean() > 0.995


def test_small_clusters_are_dissolved_in_a_file_too(monkeypatch) -> None:
    features, labels = groups([60, 60, 6])
    features[labels == 2] += 0.3 * np.eye(16, dtype=np.float32)[0]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    merged = FaissKMeans(k=3, min_size=7)(points(features), seed=0)
    assert np.bincount(merged).tolist() == [66, 60]


@pytest.mark.parametrize("count", [3, 6])
def test_auto_finds_the_number_of_groups(count: int) -> None:
    features, labels = groups([80] * count, noise=0.1)
    kmeans = FaissKMeans(k="auto", candidates=[8, 6, 3, 2], restarts=3)
    assert same_partition(kmeans(points(features), seed=0), labels)


def test_auto_leaves_out_what_min_size_forbids() -> None:
    features, _ = groups([40] * 6, noise=0.1)
    kmeans = FaissKMeans(k="auto", candidates=[2, 3, 6], min_size=60, restarts=2)
    assert np.bincount(kmeans(points(features), seed=0)).max() >= 80, "6 x 60 is more than 240"


def test_auto_with_too_few_points_is_an_error_of_one_line() -> None:
    features, _ = groups([10, 10])
    with pytest.raises(
        ClusterError, match=r"^20 .* too few for clustering\.k=auto: 2 .* need 64;.*$"
    ):
        FaissKMeans(k="auto")(points(features), seed=0)


def test_pca_keeps_the_directions_that_vary() -> None:
    """What all rows share is the largest part of each; groups differ in two other directions."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 300)
    rows = 0.02 * draw.standard_normal((300, 12))
    rows[:, 0] += 3
    rows[:, 1:3] += np.array([[1, 0], [-0.5, 0.87], [-0.5, -0.87]])[labels]
    features = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    got = FaissKMeans(k=3, pca=2)(points(features), seed=0)
    assert same_partition(got, labels)
    with pytest.raises(ClusterError, match=r"300 .* of 12 dimensions have no clustering\.pca=13"):
        FaissKMeans(k=3, pca=13)(points(features), seed=0)


def test_euclidean_clusters_tell_lengths_apart_and_spherical_ones_do_not() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 200)
    rows = np.eye(4)[0] * np.array([1, 5])[labels][:, None] + 0.05 * draw.standard_normal((200, 4))
    features = rows.astype(np.float32)
    by_length = FaissKMeans(k=2, spherical=False)(points(features, unit=False), seed=0)
    assert same_partition(by_length, labels)
    direction = FaissKMeans(k=2, min_size=1)(points(features, unit=False), seed=0)
    assert not same_partition(direction, labels)
    scaled = features * np.linspace(1, 9, 200, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(
        direction, FaissKMeans(k=2, min_size=1)(points(scaled, unit=False), seed=0)
    )


@pytest.mark.parametrize("settings", [{"k": 0}, {"restarts": 0}, {"iterations": 0}, {"pca": 0}])
def test_settings_that_cannot_cluster_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"clustering\.{next(iter(settings))}=0"):
        FaissKMeans(**settings)


def test_restarts_that_start_together_start_as_each_alone() -> None:
    """Greedy k-means++ by a plain loop, a restart at a time."""
    rows = groups([60, 60, 60, 60], d=32, noise=0.4)[0]

    def alone(k: int, draw: np.random.Generator) -> np.ndarray:
        chosen = [int(draw.integers(len(rows)))]
        while len(chosen) < k:
            left = ((rows[:, None] - rows[None, chosen]) ** 2).sum(2).min(1).astype(np.float64)
            left[chosen] = 0
            candidates = draw.choice(len(rows), 2 + int(np.log(k)), p=left / left.sum())
            sums = [
                np.minimum(left, ((rows - rows[c]) ** 2).sum(1)).sum() for c in candidates.tolist()
            ]
            chosen.append(int(candidates[int(np.argmin(sums))]))
        return rows[chosen]

    together = lloyd.starts(rows, 6, [np.random.default_rng(run) for run in range(5)])
    for run, got in enumerate(together):
        np.testing.assert_array_equal(got, alone(6, np.random.default_rng(run)))


def test_few_restarts_at_once_find_the_same_centres(monkeypatch) -> None:
    rows = groups([60, 60, 60, 60], d=32, noise=0.4)[0]
    wanted = lloyd.train(rows, 4, True, 5, 20, seed=2)
    monkeypatch.setattr(lloyd, "TOGETHER", 1)
    np.testing.assert_array_equal(lloyd.train(rows, 4, True, 5, 20, seed=2), wanted)
