"""The index of the features: the nearest rows, exactly, however many files it is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from elrea.errors import StoreError
from elrea.method.clustering import index as module
from elrea.method.clustering.index import search, write_index
from elrea.method.clustering.points import Points


def points(features: np.ndarray, rows: np.ndarray | None = None, unit: bool = False) -> Points:
    count = len(features) if rows is None else len(rows)
    return Points(features, ["s"] * count, unit, rows)


@pytest.mark.parametrize("rows_in_a_file", [1, 7, 1000])
def test_equals_a_search_by_hand(tmp_path: Path, monkeypatch, rows_in_a_file: int) -> None:
    monkeypatch.setattr(module, "PART_BYTES", rows_in_a_file * 2 * 6)
    draw = np.random.default_rng(0)
    features = draw.standard_normal((60, 6)).astype(np.float16)
    left_out = [5, 8]
    write_index(tmp_path, points(features, np.setdiff1d(np.arange(60), left_out)))
    assert len(list(tmp_path.iterdir())) == -(-58 // rows_in_a_file)
    queries = draw.standard_normal((3, 6))
    cosines, rows = search(tmp_path, queries, 10)
    unit = features / np.linalg.norm(features.astype(float), axis=1)[:, None]
    wanted = queries / np.linalg.norm(queries, axis=1)[:, None] @ unit.T
    wanted[:, left_out] = -2
    np.testing.assert_array_equal(rows, np.argsort(-wanted, axis=1)[:, :10])
    np.testing.assert_allclose(cosines, -np.sort(-wanted, axis=1)[:, :10], atol=2e-3)


def test_unit_features_in_half_precision_are_kept_to_the_bit(tmp_path: Path) -> None:
    draw = np.random.default_rng(1).standard_normal((40, 16))
    features = (draw / np.linalg.norm(draw, axis=1)[:, None]).astype(np.float16)
    write_index(tmp_path, points(features, unit=True))
    size = (tmp_path / "index-00000.faiss").stat().st_size
    assert 0 <= size - (features.nbytes + 40 * 8) < 1000, "float16 rows and their numbers, no more"
    _, rows = search(tmp_path, features.astype(np.float32), 1)
    assert rows[:, 0].tolist() == list(range(40))


def test_no_more_than_there_are(tmp_path: Path) -> None:
    write_index(tmp_path, points(np.eye(3, dtype=np.float32), np.array([1, 2]), unit=True))
    cosines, rows = search(tmp_path, np.array([[0.0, 2.0, 1.0]]), 9)
    assert rows.tolist() == [[1, 2]]
    np.testing.assert_allclose(cosines, [[2 / 5**0.5, 1 / 5**0.5]], rtol=1e-3)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no index"):
        search(tmp_path, np.ones((1, 3)), 1)
    write_index(tmp_path, points(np.eye(3, dtype=np.float32), unit=True))
    with pytest.raises(StoreError, match="has 3 dimensions, not 4"):
        search(tmp_path, np.ones((1, 4)), 1)
    path = tmp_path / "index-00000.faiss"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"index-00000\.faiss is not a FAISS index"):
        search(tmp_path, np.ones((1, 3)), 1)
