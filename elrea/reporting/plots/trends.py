"""Plots of a sweep: accuracy against a varied key, and against the number of forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.reporting.plots.canvas import COLOURS, GREY, LINES, WIDTH, legend, legend_height, save
from elrea.reporting.plots.scatter import MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = Sequence[tuple[float, float, float, float]]
"""Points of a line: (x, mean, lower end of the bar, upper end of the bar)."""

Point = tuple[float, float] | tuple[float, float, str]
"""(cost, accuracy as a share of 1), and the name of the setting."""

PASSES = "forward passes per prompt"


def plot_sweep(
    rows: Iterable[Mapping[str, Any]],
    key: str,
    path: str | Path,
    *,
    gain_on: str | None = None,
    note: str = "",
) -> None:
    """Plots accuracies, or gains, of `sweep_report.seed_means` against a varied key, a line per strategy.

    Args:
        rows: From `seed_means`. If other keys vary too, each combination of their values has its own line.
        key: The varied key, e.g. "clustering.k"; its values are numbers, and the first of a row's `group`.
        path: Of the PNG.
        gain_on: The strategy that `seed_means` compares with: plots differences to it instead of accuracies. A row
            without an interval has no bar.
        note: Added to the title, e.g. "built-in exam, not MMLU".
    """
    value = "delta" if gain_on else "accuracy"
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in rows:
        x, *others = row["group"]
        line = lines.setdefault(", ".join([row["strategy"], *others]), [])
        if row[value] is None:  # its empty line keeps the colours of the other lines
            continue
        low, high = row[f"{value}_ci95"] or (row[value], row[value])
        line.append((float(x), row[value], low, high))
    trend(lines, key, path, gain_on=gain_on, note=note)


def trend(
    lines: Mapping[str, Line],
    key: str,
    path: str | Path,
    *,
    gain_on: str | None = None,
    note: str = "",
) -> None:
    """Plots accuracy, or gain, against a number, a line per strategy with error bars.

    Args:
        lines: By strategy, points as shares of 1.
        key: Label of the x axis, e.g. "clustering.k".
        path: Of the PNG.
        gain_on: The strategy that differences are taken to, if the points are differences, e.g. "base".
        note: Added to the title.
    """
    drawn = {name: line for name, line in lines.items() if line}
    xs = sorted({point[0] for line in lines.values() for point in line})

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        if gain_on:
            axis.axhline(0, color=GREY, linestyle="--", linewidth=1)
        for index, (name, line) in enumerate(lines.items()):
            if name not in drawn:
                continue
            x, middle, low, high = np.array(sorted(line)).T
            # A small shift keeps the bars of different lines from covering each other.
            shift = (list(drawn).index(name) - (len(drawn) - 1) / 2) * 0.012
            places = np.array([xs.index(value) for value in x]) + shift * len(xs)
            # A bootstrap interval may exclude the mean itself.
            bars = np.maximum([middle - low, high - middle], 0)
            axis.errorbar(
                places, 100 * middle, yerr=100 * bars,
                color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
                linestyle=LINES[index // len(COLOURS) % len(LINES)], markersize=5, linewidth=1.4,
                elinewidth=1, label=name,
            )  # fmt: skip
        axis.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
        if len(xs) == 1:  # else the shift alone would be the width of the axis
            axis.set_xlim(-0.5, 0.5)
        axis.set_xlabel(key)
        axis.set_ylabel(f"accuracy minus {gain_on}'s (points)" if gain_on else "accuracy (%)")
        axis.grid(True, axis="y")
        if drawn:
            legend(figure, drawn)

    title = f"Gain on {gain_on} against {key}" if gain_on else f"Accuracy against {key}"
    save(draw, path, (WIDTH, 3.8 + legend_height(drawn)), title, note)


def label(keys: Sequence[str], values: Sequence[str]) -> str:
    """Names a point of a sweep: "k=4", "k=4, r=1"."""
    return ", ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))


def cost(
    points: Mapping[str, Sequence[Point]],
    path: str | Path,
    note: str = "",
    axis_label: str = PASSES,
) -> None:
    """Plots accuracy against a cost, each point with its setting.

    Args:
        points: By strategy, (cost, accuracy as a share of 1, name of the setting) of every setting.
        path: Of the PNG.
        note: Added to the title.
        axis_label: What the cost is.
    """

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for index, (name, each) in enumerate(points.items()):
            x, y = np.array(sorted(point[:2] for point in each)).T
            axis.plot(
                x, 100 * y, color=COLOURS[index % len(COLOURS)], linestyle="", markersize=7,
                marker=MARKERS[index // len(COLOURS) % len(MARKERS)], alpha=0.8, label=name,
            )  # fmt: skip
        _name_points(axis, points)
        costs = [point[0] for each in points.values() for point in each]
        if min(costs) > 0:
            axis.set_xscale("log", base=2)
        else:  # a strategy that needs no training
            axis.set_xscale("symlog", base=2, linthresh=min((x for x in costs if x > 0), default=1))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.margins(x=0.1, y=0.1)
        axis.set_xlabel(axis_label)
        axis.set_ylabel("accuracy (%)")
        axis.grid(True)
        legend(figure, points)

    title = f"Accuracy against {axis_label}"
    save(draw, path, (WIDTH, 3.8 + legend_height(points)), title, note)


def _name_points(axis: Axes, points: Mapping[str, Sequence[Point]]) -> None:
    """Writes the setting beside each point; points at one place share one label: "k=2, 4"."""
    places: dict[tuple[float, float], list[str]] = {}
    for each in points.values():
        for x, y, *names in each:
            known = places.setdefault((x, y), [])
            known += [name for name in names if name and name not in known]
    for i, ((x, y), names) in enumerate(sorted(places.items())):
        key, _, _ = names[0].partition("=") if names else ("", "", "")
        same = bool(key) and all(n.startswith(f"{key}=") and "," not in n for n in names)
        text = (
            f"{key}={', '.join(n.partition('=')[2] for n in names)}" if same else "; ".join(names)
        )
        axis.annotate(
            text,
            (x, 100 * y),
            xytext=(5, -10 if i % 2 else 4),
            textcoords="offset points",
            fontsize=6.5,
            color=GREY,
        )
