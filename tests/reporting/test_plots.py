"""Plots of a run: their contents, and unusual inputs."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from elrea.reporting.plots import figures as plots
from elrea.reporting.plots.canvas import DOTS, WIDTH
from elrea.reporting.plots.heatmaps import heat_map, routing
from elrea.reporting.plots.scatter import scatter

STRATEGIES = {
    "base": {"accuracy": 0.64, "ci95": [0.62, 0.66]},
    "elrea": {"accuracy": 0.702, "ci95": [0.68, 0.72]},
}


def rows(losses: list[float]) -> list[dict[str, float]]:
    return [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]


def size(path: Path) -> tuple[int, int]:
    """Width and height from the PNG's header."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def labels(ticks: Any) -> list[str]:
    return [tick.get_text() for tick in ticks]


def test_curves_have_a_panel_for_the_base_one_for_the_experts_and_one_for_others(
    figures: list[Figure], tmp_path: Path
) -> None:
    curves = {
        "base": rows([4.0, 3.0, 2.0]),
        "expert_00": rows([2.0, 1.0]),
        "expert_01": rows([2.0, float("nan"), 1.5]),
        "random-0": rows([2.0, 1.5]),
    }
    plots.training_curves(curves, tmp_path / "new" / "curves.png", note="a note")
    top, right, others = figures[0].axes
    assert {axis.get_ylabel() for axis in figures[0].axes} == {"training loss (nats per token)"}
    assert {axis.get_xlabel() for axis in figures[0].axes} == {"optimiser step"}
    assert [axis.get_title(loc="left") for axis in (top, others)] == [
        "Base adapter",
        "Other adapters",
    ]
    assert others.get_legend_handles_labels()[1] == ["random-0"]
    lines: dict[str, Any] = {str(line.get_label()): line for line in right.get_lines()}
    assert set(lines) == {"expert_00", "expert_01", "base, at its end"}
    assert list(lines["expert_01"].get_xdata()) == [1, 3], "a NaN loss must not be drawn"
    assert set(lines["base, at its end"].get_ydata()) == {2.0}
    assert figures[0].get_suptitle() == "Training loss: a note"
    assert size(tmp_path / "new" / "curves.png")[0] == round(WIDTH * DOTS)


def test_no_legend_covers_a_plot(figures: list[Figure], tmp_path: Path) -> None:
    curves = {name: rows([2.0, 1.0]) for name in ["base", *(f"expert-{i}" for i in range(16))]}
    plots.training_curves(curves, tmp_path / "curves.png")
    features = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    scatter(features, np.arange(60) % 9, ["a", "b"] * 30, tmp_path / "features.png")
    seen = 0
    for figure in figures:
        edges = [axis.get_window_extent() for axis in figure.axes]
        for part in figure.subfigs:
            for legend in part.legends:
                seen += 1
                box = legend.get_window_extent()
                assert not any(box.overlaps(edge) for edge in edges)
                assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, "wider than the figure"
    assert seen == 3, "experts, clusters, sources"


@pytest.mark.parametrize("width", [1, 2, 12])
def test_titles_fit_the_figure(width: int, figures: list[Figure], tmp_path: Path) -> None:
    names = [f"cluster {c}" for c in range(width)]
    note = "a name of a data set that is much too long to fit on a single line of the title"
    heat_map(np.ones((2, width)), ["a", "b"], names, tmp_path / "map.png", note)
    (figure,) = figures
    title: Any = figure._suptitle  # type: ignore[attr-defined]
    assert title.get_window_extent().x1 <= figure.bbox.x1
    assert " ".join(title.get_text().split()).endswith(note)
    ticks = figure.axes[0].get_xticklabels()
    boxes = [tick.get_window_extent() for tick in ticks]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes)), "names overlap"


def test_smoothing_is_a_moving_mean() -> None:
    values = np.arange(60.0) ** 2
    smooth = plots._smooth(values)
    assert smooth[30] == pytest.approx(values[28:33].mean())
    assert smooth[0] == pytest.approx(values[:3].mean())
    assert smooth[-1] == pytest.approx(values[-3:].mean())
    assert list(plots._smooth(np.array([3.0, 1.0]))) == [3.0, 1.0]


@pytest.mark.parametrize(
    "curves", [{}, {"base": []}, {"base": rows([1.0])}, {"base": rows([float("nan")])}]
)
def test_short_or_empty_curves_are_drawn(curves: Any, tmp_path: Path) -> None:
    plots.training_curves(curves, tmp_path / "curves.png")
    assert size(tmp_path / "curves.png")[0] == round(WIDTH * DOTS)


def test_the_heat_map_is_ordered_by_the_leading_cluster(
    figures: list[Figure], tmp_path: Path
) -> None:
    counts = [[0, 1200], [30, 10], [5, 15], [0, 0]]
    path = tmp_path / "heat.png"
    heat_map(counts, ["a", "b", "c", "none"], ["0", "1"], path)
    axis = figures[0].axes[0]
    assert labels(axis.get_yticklabels()) == ["b", "none", "a", "c"]
    assert labels(axis.texts) == ["30", "10", "0", "0", "0", "1,200", "5", "15"]
    mesh: Any = axis.collections[0]
    assert mesh.get_array().ravel().tolist() == [75, 25, 0, 0, 0, 100, 25, 75]
    assert max(size(path)) <= 10 * DOTS


def test_routing_shows_the_base_first_and_separated(figures: list[Figure], tmp_path: Path) -> None:
    weights = [[0.9, 0.2], [0.1, 0.8], [0.35, 0.45]]  # [members, sources]
    members = ["expert 0", "expert 1", "base"]
    routing(weights, members, ["x", "y"], tmp_path / "routing.png")
    axis = figures[0].axes[0]
    assert labels(axis.get_xticklabels()) == ["base", "expert 0", "expert 1"]
    assert labels(axis.get_yticklabels()) == ["x", "y"]
    assert labels(axis.texts) == ["0.35", "0.90", "0.10", "0.45", "0.20", "0.80"]
    assert list(axis.get_xticks()) == [0.5, 1.75, 2.75], "a gap after the base"


@pytest.mark.parametrize("members", [["base"], ["expert 0"]])
def test_routing_with_one_member_is_drawn(members: list[str], tmp_path: Path) -> None:
    routing([[0.0, 0.0]], members, ["x", "y"], tmp_path / "routing.png")
    assert size(tmp_path / "routing.png")[0] > 200


def test_accuracy_shows_points_intervals_and_the_base(
    figures: list[Figure], tmp_path: Path
) -> None:
    plots.accuracy(STRATEGIES, tmp_path / "accuracy.png", chance=0.25)
    axis = figures[0].axes[0]
    assert labels(axis.get_yticklabels()) == ["base", "elrea"]
    assert axis.yaxis_inverted(), "the first strategy is on top"
    assert labels(axis.texts) == ["64.0", "70.2"]
    bars: Any = axis.collections[0]
    assert np.allclose([bar[:, 0] for bar in bars.get_segments()], [[62, 66], [68, 72]])
    assert axis.get_xlim()[0] > 50, "an axis from 25 % would hide differences of 6 points"
    assert "chance 25 %" in figures[0].get_supxlabel()


def test_chance_is_drawn_if_it_is_near_the_accuracies(
    figures: list[Figure], tmp_path: Path
) -> None:
    near = {**STRATEGIES, "backbone": {"accuracy": 0.26, "ci95": [0.24, 0.28]}}
    plots.accuracy(near, tmp_path / "accuracy.png", chance=0.25)
    axis = figures[0].axes[0]
    lines: list[Any] = list(axis.get_lines())
    assert [25.0, 25.0] in [list(line.get_xdata()) for line in lines]
    assert axis.get_xlim()[0] < 24


def test_no_global_state_and_no_display() -> None:
    """A pyplot import would keep figures alive and pick a backend for the whole process."""
    code = (
        "import sys; from elrea.reporting.plots import figures as plots;"
        "assert 'matplotlib' not in sys.modules, 'slow start';"
        "plots.accuracy({'a': {'accuracy': .5, 'ci95': [.4, .6]}}, sys.argv[1], .25);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, "/dev/null"], check=True)
