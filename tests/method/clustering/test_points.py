"""Blocks of features, from memory or from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from elrea.errors import ClusterError
from elrea.method.clustering import points as module
from elrea.method.clustering.kmeans import FaissKMeans
from elrea.method.clustering.points import Points
from elrea.method.clustering.random import RandomClusters
from elrea.method.clustering.source import SourceClusters
from tests.method.clustering.rows import on_disk, points


def test_blocks_are_the_rows_in_order_float32(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 3 * 5)  # five rows of three float32
    monkeypatch.setattr(module, "STEP", 2)
    features = np.arange(36.0).reshape(12, 3)
    for array in (features.astype(np.float32), on_disk(features, tmp_path / "f")):
        parts = list(points(array).blocks())
        assert [part.stop - part.start for part, _ in parts] == [5, 5, 2]
        assert all(block.dtype == np.float32 for _, block in parts)
        np.testing.assert_array_equal(np.concatenate([block for _, block in parts]), features)


def test_points_may_be_some_of_the_rows(tmp_path: Path) -> None:
    file = on_disk(np.arange(20.0).reshape(10, 2), tmp_path / "f")
    some = Points(file, list("abcd"), rows=np.array([1, 4, 5, 9]))
    assert (len(some), some.d) == (4, 2)
    assert some.take(np.array([0, 3])).tolist() == [[2, 3], [18, 19]]
    fewer = some.subset(np.array([1, 3]))
    assert fewer.sources == ["b", "d"] and fewer.features is file
    assert fewer.take(slice(None)).tolist() == [[8, 9], [18, 19]]


def test_what_was_taken_is_a_copy() -> None:
    features = np.ones((4, 2), dtype=np.float32)
    points(features).take(slice(None))[:] = 7
    assert (features == 1).all()


def test_a_private_mapping_keeps_what_was_written_to_it(tmp_path: Path) -> None:
    np.zeros((8, 4), dtype=np.float32).tofile(tmp_path / "f")
    features = np.memmap(tmp_path / "f", dtype=np.float32, mode="c", shape=(8, 4))
    features[3] = 5
    assert points(features).take(slice(None))[3].tolist() == [5] * 4
    assert points(features).take(slice(None))[3].tolist() == [5] * 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named_by_its_place_in_the_file(value: float) -> None:
    features = np.ones((9, 3), dtype=np.float32)
    features[[4, 6], 1] = value
    rows = np.array([0, 2, 4, 6, 8])
    some = Points(features, ["s"] * 5, rows=rows)
    with pytest.raises(ClusterError, match=r"^feature 4 is not finite \(2 of 5 rows read\): .*$"):
        some.take(slice(None))
    for clustering in (FaissKMeans(k=2, min_size=1), SourceClusters()):
        with pytest.raises(ClusterError, match="feature 4 is not finite"):
            clustering(points(features), 0)


def test_large_finite_rows_are_no_error() -> None:
    """Their sum overflows float32; the rows do not."""
    features = np.full((4, 2), 3e38, dtype=np.float32)
    np.testing.assert_array_equal(points(features).take(slice(None)), features)


def test_samples_are_seeded_rising_and_without_repeats() -> None:
    many = points(np.zeros((1000, 1), dtype=np.float32))
    drawn = many.draw(100, seed=3)
    assert len(set(drawn.tolist())) == 100 and (np.diff(drawn) > 0).all()
    assert drawn.max() > 500, "from all over"
    np.testing.assert_array_equal(drawn, many.draw(100, seed=3))
    assert (drawn != many.draw(100, seed=4)).any()
    assert many.draw(5000, seed=0).tolist() == list(range(1000))


def test_as_many_sources_as_points() -> None:
    with pytest.raises(ClusterError, match=r"shape \[3, 2\] do not fit 2 sources"):
        Points(np.zeros((3, 2)), ["a", "b"])


def test_the_number_of_clusters_that_settings_determine() -> None:
    three, auto, source = FaissKMeans(k=3), FaissKMeans(k="auto"), SourceClusters()
    assert three.known_k() == RandomClusters(three).known_k() == 3
    assert auto.known_k() is source.known_k() is RandomClusters(auto).known_k() is None
    assert (three.with_k(5), auto.with_k(5), source.with_k(5)) == (three, FaissKMeans(k=5), source)
    assert RandomClusters(auto).with_k(5) == RandomClusters(FaissKMeans(k=5))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux what is held")
def test_pages_of_a_file_are_given_back(tmp_path: Path) -> None:
    def file_pages() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))  # KiB

    file = on_disk(np.ones((16_384, 1024), dtype=np.float16), tmp_path / "f")  # 32 MiB
    before = file_pages()
    grown = [file_pages() - before for _ in points(file).blocks()]
    grown += [file_pages() - before for _ in [points(file).take(np.arange(0, 16_384, 3))]]
    assert max(grown) < 8 * 1024
    assert file.sum(dtype=np.float64) == 2**24 and file_pages() - before > 24 * 1024, (
        "else nothing is shown"
    )
