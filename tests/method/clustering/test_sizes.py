"""Empty and small clusters are dissolved."""

from __future__ import annotations

import numpy as np
import pytest

from elrea.errors import ClusterError
from elrea.method.clustering.sizes import by_size, dissolve


def test_dissolve_by_hand() -> None:
    cosines = np.array([[0.9, 0.8, 0.1], [0.9, 0.1, 0.2], [0.2, 0.9, 0.3], [0.1, 0.3, 0.9]])
    assignment = cosines.argmax(1)

    def nearest(members: np.ndarray, alive: np.ndarray) -> np.ndarray:
        return np.where(alive, cosines[members], -2).argmax(1)

    assert dissolve(assignment, 3, 1, nearest).tolist() == [0, 0, 1, 2]
    # The first of the two smallest goes; its member prefers 2, which is large enough then.
    assert dissolve(assignment, 3, 2, nearest).tolist() == [0, 0, 2, 2]
    # Then 0 goes (the first of two equals), and one cluster stays whatever is asked.
    assert dissolve(assignment, 3, 3, nearest).tolist() == [2, 2, 2, 2]
    assert dissolve(assignment, 3, 99, nearest).tolist() == [2, 2, 2, 2]
    assert assignment.tolist() == [0, 0, 1, 2]


def test_an_empty_cluster_goes_without_asking_where_to() -> None:
    def nobody(members: np.ndarray, alive: np.ndarray) -> np.ndarray:
        raise AssertionError("no one has to move")

    assert dissolve(np.array([0, 0, 2]), 3, 0, nobody).tolist() == [0, 0, 2]


def test_no_points_are_an_error() -> None:
    with pytest.raises(ClusterError, match=r"^no example with a feature is left to cluster"):
        dissolve(np.array([], dtype=np.int64), 0, 1, lambda members, alive: members)


def test_by_size_by_hand() -> None:
    assert by_size(np.array([7, 2, 2, 9, 7, 2])).tolist() == [1, 0, 0, 2, 1, 0]
    assert by_size(np.array([5, 3, 3, 5])).tolist() == [0, 1, 1, 0], "first member first"
