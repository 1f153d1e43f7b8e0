"""Learning curves of a verdict: scores against the number of training examples, and the lines through them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.reporting.plots.canvas import COLOURS, GREY, LINES, WIDTH, legend, legend_height, save
from elrea.reporting.plots.scatter import MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_curves(found: Mapping[str, Any], measure: str, path: Path) -> None:
    """Draws a measure's curves, and below them how far the candidate that they put first is ahead at the full size.

    Args:
        found: From `elrea.reporting.verdict.verdict_of`.
        measure: "accuracy" or "loss".
        path: Of the PNG.
    """
    names = list(found["candidates"])
    scale = 100 if measure == "accuracy" else 1
    unit = "accuracy on dev (%)" if measure == "accuracy" else "loss on dev (nats per token)"

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, height_ratios=[3, 0.5 + 0.3 * len(names)])
        for index, name in enumerate(names):
            _curve(top, found, name, index, measure, scale)
        top.axvline(found["rows"], color=GREY, linestyle=":", linewidth=1)
        top.set_xscale("log", base=2)
        ticks = sorted({part["rows"] for part in found["parts"]} | {found["rows"]})
        top.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        top.set_xlabel("training examples (dotted: all)")
        top.set_ylabel(unit)
        top.grid(True)
        _ahead(bottom, found, names, measure, scale)
        legend(figure, names)

    decision = found[measure]
    state = "decided" if decision["decided"] else "undecided"
    title = f"{measure.capitalize()} against data: {decision['best']} first, {state}"
    size = (WIDTH, 5.2 + 0.25 * len(names) + legend_height(names))
    save(draw, path, size, title, found["data"])


def _curve(
    axis: Axes, found: Mapping[str, Any], name: str, index: int, measure: str, scale: float
) -> None:
    """One candidate: a mark for each training, its line, and an open mark at the full size."""
    line = found["candidates"][name][measure]
    rows = np.array([part["rows"] for part in found["parts"]])
    ends = np.array([rows.min(), found["rows"]])
    style: dict[str, Any] = {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
    }
    fitted = line["full"] + line["per_doubling"] * np.log2(ends / found["rows"])
    axis.plot(
        ends, scale * fitted, linewidth=1.2, color=style["color"],
        linestyle=LINES[index // len(COLOURS) % len(LINES)],
    )  # fmt: skip
    axis.plot(rows, scale * np.array(line["means"]), linestyle="", label=name, **style)
    axis.plot(ends[1:], scale * fitted[1:], linestyle="", fillstyle="none", markersize=8, **style)


def _ahead(
    axis: Axes, found: Mapping[str, Any], names: list[str], measure: str, scale: float
) -> None:
    """The first candidate's lead over each other one with its interval."""
    ahead = found[measure]["best_ahead"]
    shown = [name for name in names if name in ahead]
    for place, name in enumerate(shown):
        low, high = ahead[name]["ci95"]
        axis.plot([scale * low, scale * high], [place, place], color=GREY, linewidth=1.6)
        colour = COLOURS[names.index(name) % len(COLOURS)]
        axis.plot(scale * ahead[name]["mean"], place, "o", color=colour)
    axis.axvline(0, color=GREY, linestyle="--", linewidth=1)
    axis.set_yticks(range(len(shown)), shown)
    axis.set_ylim(len(shown) - 0.5, -0.5)
    points = " (points)" if measure == "accuracy" else " (nats)"
    axis.set_xlabel(f"lead of {found[measure]['best']} with all data{points}; bars: 95 %")
    axis.grid(True, axis="x")
