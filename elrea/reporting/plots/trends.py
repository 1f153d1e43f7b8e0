"""A sweep's pictures: accuracy against what was varied, and against its price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.reporting.plots.canvas import COLOURS, GREY, LINES, WIDTH, legend, legend_height, save
from elrea.reporting.plots.scatter import MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = Sequence[tuple[float, float, float, float]]
"""(x, mean, lower and upper end of its bar) of a line's points."""


def plot_sweep(
    rows: Iterable[Mapping[str, Any]],
    key: str,
    path: str | Path,
    *,
    place: int = 0,
    gain_on: str | None = None,
    bars: str = "intervals",
    note: str = "",
) -> None:
    """Accuracy, or gain, against what a sweep varies, a line per strategy: from `elrea.reporting.sweeps.seed_means`.

    Args:
        rows: as `seed_means` returns them; of several settings, the others than `key` name lines of their own.
        key: what was varied, e.g. "clustering.k"; its values are numbers.
        path: of the PNG.
        place: of the key in a row's `group`.
        gain_on: the strategy that `seed_means` took differences to; they are then drawn instead of accuracies.
        bars: "intervals" (95 %, the mean of the seeds' bounds; a row without them has the seeds') or "seeds" (from
            the least to the most).
        note: small print, e.g. "built-in exam, not MMLU".
    """
    value = "delta" if gain_on else "accuracy"
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in rows:
        x, others = row["group"][place], [*row["group"][:place], *row["group"][place + 1 :]]
        line = lines.setdefault(", ".join([row["strategy"], *others]), [])
        if (
            row[value] is None
        ):  # its place is kept, so that a strategy has one colour in all pictures of a sweep
            continue
        seeds = row[f"{value}_seeds"]
        low, high = (row[f"{value}_ci95"] or seeds) if bars == "intervals" else seeds
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
    """Accuracy, or gain, against a number, a line per strategy with bars.

    Args:
        lines: by strategy, points as shares of 1.
        key: what was varied, e.g. "clustering.k".
        path: of the PNG.
        gain_on: the strategy that what is drawn are differences to, e.g. "base".
        note: small print.
    """  # fmt: skip
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
            # Lines that would cover each other's bars stand a little apart.
            shift = (index - (len(lines) - 1) / 2) * 0.012
            places = np.array([xs.index(value) for value in x]) + shift * len(xs)
            # A resampled interval may leave out the middle itself.
            bars = np.maximum([middle - low, high - middle], 0)
            axis.errorbar(
                places, 100 * middle, yerr=100 * bars,
                color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
                linestyle=LINES[index // len(COLOURS) % len(LINES)], markersize=5, linewidth=1.4,
                elinewidth=1, label=name,
            )  # fmt: skip
        axis.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
        axis.set_xlabel(key)
        axis.set_ylabel(f"accuracy less {gain_on}'s (points)" if gain_on else "accuracy (%)")
        axis.grid(True, axis="y")
        if drawn:
            legend(figure, drawn)

    title = f"Gain on {gain_on} against {key}" if gain_on else f"Accuracy against {key}"
    save(draw, path, (WIDTH, 3.8 + legend_height(drawn)), title, note)


def cost(
    points: Mapping[str, Sequence[tuple[float, float]]], path: str | Path, note: str = ""
) -> None:
    """Accuracy against forward passes per prompt.

    Args:
        points: by strategy, (passes, accuracy as a share of 1) of every setting.
        path: of the PNG.
        note: small print.
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
        legend(figure, points)

    save(draw, path, (WIDTH, 3.8 + legend_height(points)), "Accuracy against cost", note)
