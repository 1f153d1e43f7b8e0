"""The scatter plot of the features: its contents, and unusual inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from elrea.reporting.plots import scatter as module
from elrea.reporting.plots.scatter import scatter


def drawn(axis: Any) -> dict[str, np.ndarray]:
    """By group, the coordinates of its points [m, 2]."""
    return {cloud.get_label(): np.asarray(cloud.get_offsets()) for cloud in axis.collections}


def test_one_panel_by_cluster_and_one_by_source(figures: list[Figure], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    features = (0.01 * draw.standard_normal((50, 8))).astype(np.float16)
    assignment = np.repeat([0, 1, -1], [30, 15, 5])
    features[:, 3] += 10 * assignment.astype(np.float16)
    sources = ["a", "b"] * 25
    scatter(features, assignment, sources, tmp_path / "new" / "features.png", note="a note")
    left, right = figures[0].axes
    by_cluster, by_source = drawn(left), drawn(right)
    assert {name: len(cloud) for name, cloud in by_cluster.items()} == {
        "cluster 0": 30,
        "cluster 1": 15,
    }
    assert {name: len(cloud) for name, cloud in by_source.items()} == {"a": 23, "b": 22}
    far = by_cluster["cluster 0"][:, 0].mean() - by_cluster["cluster 1"][:, 0].mean()
    assert abs(far) == pytest.approx(10, abs=0.1), "the first component separates the clusters"
    assert "100 % of the variance" in left.get_xlabel()
    assert figures[0].get_suptitle() == "Features of 45 training examples: a note"
    assert (tmp_path / "new" / "features.png").read_bytes().startswith(b"\x89PNG")


def test_points_are_sampled_and_small_sources_are_grouped_as_others(
    figures: list[Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE", 100)
    features = np.random.default_rng(0).standard_normal((900, 4)).astype(np.float32)
    sources = [f"source {index % 30}" for index in range(900)]
    scatter(features, np.zeros(900, dtype=int), sources, tmp_path / "f.png")
    left, right = figures[0].axes
    assert len(drawn(left)["cluster 0"]) == 100
    assert len(drawn(right)) == 12 and len(drawn(right)["others"]) > 20
    assert sum(map(len, drawn(right).values())) == 100


def test_a_source_has_its_main_clusters_colour_and_a_shape_of_its_own(
    figures: list[Figure], tmp_path: Path
) -> None:
    features = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    assignment = np.array([0] * 20 + [1] * 20)
    sources = ["a"] * 12 + ["b"] * 10 + ["c"] * 18  # b: 8 in cluster 0, 2 in cluster 1
    scatter(features, assignment, sources, tmp_path / "f.png")
    top, below = figures[0].axes

    def looks(axis: Any) -> dict[str, tuple[Any, Any]]:
        return {
            cloud.get_label(): (tuple(cloud.get_facecolor()[0]), cloud.get_paths()[0].vertices.shape)
            for cloud in axis.collections
        }  # fmt: skip

    clusters, found = looks(top), looks(below)
    assert found["a"][0] == found["b"][0] == clusters["cluster 0"][0]
    assert found["c"][0] == clusters["cluster 1"][0] != found["a"][0]
    assert found["a"][1] != found["b"][1], "two sources of one colour need different markers"


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (5, 1)])
def test_few_or_no_points_are_drawn(
    shape: tuple[int, int], figures: list[Figure], tmp_path: Path
) -> None:
    count = shape[0]
    scatter(np.ones(shape, dtype=np.float32), np.zeros(count), ["a"] * count, tmp_path / "f.png")
    assert sum(map(len, drawn(figures[0].axes[0]).values())) == count
