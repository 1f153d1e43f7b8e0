"""Plots of sweeps with different numbers of settings and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from elrea.reporting.plots import trends
from elrea.reporting.plots.figures import differences


def test_plots_are_drawn(tmp_path: Path) -> None:
    lines = {f"strategy {i}": [(2.0, 0.5, 0.4, 0.6), (8.0, 0.7, 0.7, 0.7)] for i in range(9)}
    trends.trend(lines, "clustering.k", tmp_path / "trend.png")
    trends.trend({"one": [(0.5, 0.5, 0.5, 0.5)]}, "data.conflict", tmp_path / "one.png")
    trends.cost({"base": [(1, 0.5)], "elrea": [(13, 0.7), (9, 0.6)]}, tmp_path / "cost.png")
    differences({"words": (0.1, (0.0, 0.2)), "x": (-0.1, (-0.2, 0.0))}, tmp_path / "s.png", "elrea")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"trend.png", "one.png", "cost.png", "s.png"}
    assert min(sizes.values()) > 5_000


def row(k: str, seed: str, strategy: str, accuracy: float, delta: float | None) -> dict[str, Any]:
    around = (accuracy - 0.1, accuracy + 0.1)
    return {
        "group": (k, seed), "strategy": strategy, "accuracy": accuracy, "accuracy_ci95": around,
        "accuracy_seeds": (accuracy - 0.01, accuracy + 0.01), "delta": delta, "delta_ci95": None,
        "delta_seeds": None if delta is None else (delta, delta + 0.02),
    }  # fmt: skip


ROWS = [
    row("8", "sjlt", "base", 0.5, None), row("8", "sjlt", "elrea", 0.7, 0.2),
    row("2", "sjlt", "base", 0.5, None), row("2", "sjlt", "elrea", 0.6, 0.1),
]  # fmt: skip


def ends(axis: Any) -> list[list[float]]:
    """Lower and upper ends of the bars, in the order of the lines."""
    return [np.round(bar[:, 1], 6).tolist() for bars in axis.collections for bar in bars.get_segments()]  # fmt: skip


def test_accuracy_has_a_line_per_strategy_and_other_setting(
    figures: list[Figure], tmp_path: Path
) -> None:
    trends.plot_sweep(ROWS, "clustering.k", tmp_path / "a.png")
    axis = figures[0].axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["2", "8"]
    assert axis.get_legend_handles_labels()[1] == ["base, sjlt", "elrea, sjlt"]
    assert ends(axis) == [[40, 60], [40, 60], [50, 70], [60, 80]]


def test_a_gain_plot_omits_the_baseline_and_keeps_the_colours(
    figures: list[Figure], tmp_path: Path
) -> None:
    trends.plot_sweep(ROWS, "clustering.k", tmp_path / "a.png")
    trends.plot_sweep(ROWS, "clustering.k", tmp_path / "g.png", gain_on="base", note="a note")
    accuracy, gain = (figure.axes[0] for figure in figures)
    assert gain.get_legend_handles_labels()[1] == ["elrea, sjlt"]
    assert ends(gain) == [[10, 10], [20, 20]], "without an interval there is no bar"
    assert gain.get_ylabel() == "accuracy minus base's (points)"
    assert figures[1].get_suptitle() == "Gain on base against clustering.k: a note"
    bars: list[Any] = [axis.containers[-1] for axis in (accuracy, gain)]
    colours = [each.lines[0].get_color() for each in bars]
    assert colours[0] == colours[1]


@pytest.mark.parametrize("gain_on", [None, "base"])
def test_points_of_a_single_value_are_at_its_tick(
    gain_on: str | None, figures: list[Figure], tmp_path: Path
) -> None:
    trends.plot_sweep(ROWS[:2], "clustering.k", tmp_path / "a.png", gain_on=gain_on)
    axis = figures[0].axes[0]
    left, right = axis.get_xlim()
    bars: list[Any] = list(axis.containers)
    for bar in bars:
        (place,) = bar.lines[0].get_xdata()
        assert abs(place) <= 0.02 * (right - left)
    assert len(bars) == 2 if gain_on is None else place == 0


@pytest.mark.parametrize("rows", [[], ROWS[::2]])
def test_few_or_no_rows_are_drawn(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    trends.plot_sweep(rows, "clustering.k", tmp_path / "g.png", gain_on="base")
    assert (tmp_path / "g.png").stat().st_size > 1_000
