"""The clusters' stage: examples without a feature are in no cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from elrea.data.examples import Example
from elrea.errors import DataError
from elrea.method.clustering.assignment import QUALITY, make_clusters, read_clusters
from elrea.method.clustering.points import Clustering, Points
from elrea.method.features.to_disk import stream
from elrea.store.files import read_json
from tests.method.features.stub import Drawn, DrawnReader, prompts


@dataclass(frozen=True)
class Halves(Clustering):
    """Splits points by the sign of the first coordinate, the larger half first."""

    def __call__(self, points: Points, seed: int) -> np.ndarray:
        right = points.take(slice(None))[:, 0] > 0
        larger = right if 2 * right.sum() >= len(right) else ~right
        return np.where(larger, 0, 1).astype(np.int64)


def made(folder: Path, bad: list[int]) -> dict[str, torch.Tensor]:
    given = prompts(40, bad)
    (folder / "features").mkdir()
    stream(folder / "features", given, Drawn(), DrawnReader())
    examples = [Example(p.id, "?", "!", f"s{i % 3}", f"c{i % 2}") for i, p in enumerate(given)]
    make_clusters(folder, folder / "features", examples, Halves(), 0, unit=True)
    return read_clusters(folder)


def test_examples_without_a_feature_are_in_no_cluster(tmp_path: Path) -> None:
    got = made(tmp_path, bad=[0, 17])
    for name in ("assignment", "random"):
        assert (got[name] == -1).nonzero()[:, 0].tolist() == [0, 17], name
        assert torch.bincount(got[name] + 1).tolist()[0] == 2
    assert torch.equal(got["assignment"].sort().values, got["random"].sort().values)
    assert not torch.equal(got["assignment"], got["random"])
    assert sum(read_json(tmp_path / QUALITY)["sizes"]) == 38
    torch.testing.assert_close(got["centroids"].norm(dim=1), torch.ones(2))


def test_the_rest_is_grouped_as_if_they_were_not_there(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    everyone, rest = made(tmp_path / "all", []), made(tmp_path / "some", [39])
    assert torch.equal(everyone["assignment"][:39], rest["assignment"][:39])


def test_not_one_feature_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^none of 40 training prompts has a feature"):
        made(tmp_path, bad=list(range(40)))
