"""One cluster per source, and where small sources go."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from elrea.method.clustering.points import Points
from elrea.method.clustering.source import SourceClusters

EAST, NORTH = np.eye(2, dtype=np.float32)
BETWEEN = np.array([0.6, 0.8], dtype=np.float32)


def test_one_cluster_per_source_by_falling_size() -> None:
    points = Points(np.stack([EAST] * 6), list("cabbbc"))
    assert SourceClusters(min_size=1)(points, seed=0).tolist() == [1, 2, 0, 0, 0, 1]


def test_a_small_source_joins_the_nearest_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    """Its own rows disagree; their mean (0.6, 0.8) is nearer to north."""
    rows = [EAST] * 5 + [NORTH] * 4 + [EAST, BETWEEN, NORTH, NORTH]
    points = Points(np.stack(rows), ["east"] * 5 + ["north"] * 4 + ["small"] * 4)
    with caplog.at_level(logging.INFO, logger="elrea"):
        assert SourceClusters(min_size=5)(points, seed=0).tolist() == [1] * 5 + [0] * 8
    assert "north (4 examples, fewer than min_size=5) joins small" in caplog.text
    assert SourceClusters(min_size=4)(points, seed=0).max() == 2


def test_one_that_others_joined_can_go_on() -> None:
    rows = [EAST] * 9 + [NORTH] * 2 + [BETWEEN] + [BETWEEN] * 9
    points = Points(np.stack(rows), ["big"] * 9 + ["two"] * 2 + ["one"] + ["far"] * 9)
    # one -> far (the same direction); two -> far.
    assert SourceClusters(min_size=5)(points, seed=0).tolist() == [1] * 9 + [0] * 12
    chain = Points(np.stack([EAST] * 9 + [NORTH] * 2 + [NORTH]), ["a"] * 9 + ["b"] * 2 + ["c"])
    # c -> b, and both -> a.
    assert SourceClusters(min_size=5)(chain, seed=0).tolist() == [0] * 12
