"""A sweep's pictures: accuracy against what was varied, and against its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elrea.tracking.canvas import COLOURS, LINES, save
from elrea.tracking.scatter import MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = Sequence[tuple[float, float, float, float]]
"""(x, mean, least, most) of a line's points."""


def trend(lines: Mapping[str, Line], key: str, path: str | Path) -> None:
    """Accuracy against a number, a line per strategy; bars from the least seed to the most.

    Args:
        lines: by strategy, points with accuracies as shares of 1.
        key: what was varied, e.g. "clustering.k".
        path: of the PNG.
    """
    xs = sorted({point[0] for line in lines.values() for point in line})

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for index, (name, line) in enumerate(lines.items()):
            x, middle, low, high = np.array(sorted(line)).T
            # Lines that would cover each other's bars stand a little apart.
            shift = (index - (len(lines) - 1) / 2) * 0.012
            places = np.array([xs.index(value) for value in x]) + shift * len(xs)
            axis.errorbar(
                places, 100 * middle, yerr=100 * np.array([middle - low, high - middle]),
                color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
                linestyle=LINES[index // len(COLOURS) % len(LINES)], markersize=5, linewidth=1.4,
                elinewidth=1, label=name,
            )  # fmt: skip
        axis.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
        axis.set_xlabel(key)
        axis.set_ylabel("accuracy (%)")
        axis.grid(True, axis="y")
        _legend(figure)

    save(draw, path, (8.4, 4.4), f"Accuracy against {key}")


def cost(points: Mapping[str, Sequence[tuple[float, float]]], path: str | Path) -> None:
    """Accuracy against forward passes per prompt.

    Args:
        points: by strategy, (passes, accuracy as a share of 1) of every setting.
        path: of the PNG.
    """

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for index, (name, each) in enumerate(points.items()):
            x, y = np.array(sorted(each)).T
            axis.plot(
                x, 100 * y, color=COLOURS[index % len(COLOURS)], linestyle="", markersize=7,
                marker=MARKERS[index // len(COLOURS) % len(MARKERS)], alpha=0.8, label=name,
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("forward passes per prompt")
        axis.set_ylabel("accuracy (%)")
        axis.grid(True)
        _legend(figure)

    save(draw, path, (8.4, 4.4), "Accuracy against cost")


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside right upper", fontsize=8, edgecolor="none")
