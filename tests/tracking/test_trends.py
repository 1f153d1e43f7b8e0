"""A sweep's pictures are drawn from any number of settings and seeds."""

from __future__ import annotations

from pathlib import Path

from elrea.tracking import trends
from elrea.tracking.plots import differences


def test_pictures_are_drawn(tmp_path: Path) -> None:
    lines = {f"strategy {i}": [(2.0, 0.5, 0.4, 0.6), (8.0, 0.7, 0.7, 0.7)] for i in range(9)}
    trends.trend(lines, "clustering.k", tmp_path / "trend.png")
    trends.trend({"one": [(0.5, 0.5, 0.5, 0.5)]}, "data.conflict", tmp_path / "one.png")
    trends.cost({"base": [(1, 0.5)], "elrea": [(13, 0.7), (9, 0.6)]}, tmp_path / "cost.png")
    differences({"words": (0.1, (0.0, 0.2)), "x": (-0.1, (-0.2, 0.0))}, tmp_path / "s.png", "elrea")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"trend.png", "one.png", "cost.png", "s.png"}
    assert min(sizes.values()) > 5_000
