"""The nearest rows, exactly, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from elrea import neighbours as module
from elrea.neighbours import nearest


@pytest.mark.parametrize("rows_in_a_block", [1, 7, 1000])
def test_equals_a_search_by_hand(monkeypatch, rows_in_a_block: int) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", rows_in_a_block * 4 * 6)
    draw = np.random.default_rng(0)
    features = draw.standard_normal((60, 6)).astype(np.float16)
    features[5] = 0
    queries = draw.standard_normal((3, 6))
    cosines, rows = nearest(features, queries, 10, left_out=np.array([5, 8]))
    unit = features / np.maximum(np.linalg.norm(features.astype(float), axis=1)[:, None], 1e-9)
    wanted = queries / np.linalg.norm(queries, axis=1)[:, None] @ unit.T
    wanted[:, [5, 8]] = -2
    np.testing.assert_array_equal(rows, np.argsort(-wanted, axis=1)[:, :10])
    np.testing.assert_allclose(cosines, -np.sort(-wanted, axis=1)[:, :10], atol=2e-3)


def test_no_more_than_there_are() -> None:
    features = np.eye(3, dtype=np.float32)
    cosines, rows = nearest(features, np.array([[0.0, 2.0, 1.0]]), 9, left_out=np.array([0]))
    assert rows.tolist() == [[1, 2]]
    np.testing.assert_allclose(cosines, [[2 / 5**0.5, 1 / 5**0.5]], rtol=1e-5)
