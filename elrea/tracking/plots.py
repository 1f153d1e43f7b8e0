"""The run's plots: pure functions from numbers to PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elrea.tracking.canvas import COLOURS, GREY, LINES, save
from elrea.tracking.heatmaps import heat_map, routing
from elrea.tracking.scatter import scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy", "differences", "heat_map", "routing", "scatter", "training_curves"]

_Curve = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def training_curves(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, note: str = ""
) -> None:
    """Training loss of every adapter over its own steps: the base left, the experts right.

    Args:
        curves: by adapter, the rows of its curve.json with `step` and `loss` (nats per token).
            The adapter named "base" has the left panel to itself, and its last loss is a dashed
            line among the experts, who start there.
        path: of the PNG.
        note: small print, e.g. "built-in exam, not MMLU".
    """
    drawn = {name: _finite(rows) for name, rows in curves.items() if rows}
    base = {name: curve for name, curve in drawn.items() if name == "base"}
    experts = {name: curve for name, curve in drawn.items() if name != "base"}
    ends = [float(_smooth(loss)[-1]) for _, loss in base.values() if loss.size]
    start = ends[0] if ends else None
    title = "Experts, each on its own cluster" if base else "Adapters"
    panels = [pair for pair in (("Base adapter", base), (title, experts)) if pair[1]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for axis, (heading, panel) in zip(axes, panels, strict=False):
            axis.set_title(heading)
            _panel(axis, panel, start if panel is experts else None)
        axes[0].set_ylabel("training loss (nats per token)")

    save(draw, path, (9.6 if len(panels) > 1 else 6.0, 3.9), "Training loss", note)


def accuracy(
    strategies: Mapping[str, Mapping[str, Any]], path: str | Path, chance: float, note: str = ""
) -> None:
    """Accuracy of every strategy with its 95 % interval, from the first (top) to the last.

    Args:
        strategies: by name, `accuracy` and `ci95` (low, high) as shares of 1.
        path: of the PNG.
        chance: accuracy of guessing, a share of 1. Where it is far below every strategy it is
            said at the axis only, so that the strategies' differences stay visible.
        note: small print.
    """
    names = list(strategies)
    middle = np.array([100 * strategies[name]["accuracy"] for name in names])
    bounds = 100 * np.array([strategies[name]["ci95"] for name in names]).reshape(-1, 2)
    low, high = float(bounds.min(initial=100)), float(bounds.max(initial=0))
    far = 100 * chance < low - (high - low)
    said = [
        "bars: 95 % intervals",
        f"{'chance' if far else 'dotted: chance,'} {100 * chance:.0f} %",
    ]
    if "base" in strategies:
        said.append("dashed: base adapter")

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        if "base" in strategies:
            axis.axvline(100 * strategies["base"]["accuracy"], color=GREY, linestyle="--", lw=1)
        if not far:
            axis.axvline(100 * chance, color=COLOURS[1], linestyle=":", lw=1.6)
        places = np.arange(len(names))
        axis.hlines(places, bounds[:, 0], bounds[:, 1], color=COLOURS[0], linewidth=2.2)
        axis.plot(middle, places, "o", color=COLOURS[0], markersize=6)
        for place, value in enumerate(middle):
            axis.annotate(f"{value:.1f}", (value, place), (0, 7), textcoords="offset points",
                          ha="center", fontsize=9,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        room = max(0.08 * (high - low), 0.5)
        axis.set_xlim(max(0.0, (low if far else min(low, 100 * chance)) - room), high + room)
        axis.set_ylim(len(names) - 0.5, -0.8)
        axis.set_yticks(places, names)
        axis.tick_params(axis="y", length=0)
        axis.grid(True, axis="x")
        axis.set_xlabel(f"accuracy (%)\n{'; '.join(said)}")

    save(draw, path, (7.5, 1.6 + 0.42 * max(1, len(names))), "Accuracy by strategy", note)


def differences(
    rows: Mapping[str, tuple[float, tuple[float, float]]],
    path: str | Path,
    strategy: str,
    note: str = "",
) -> None:
    """A strategy's difference to the base adapter by subject, the largest on top.

    Args:
        rows: by subject, the difference and its 95 % interval (low, high), shares of 1.
        path: of the PNG.
        strategy: its name.
        note: small print.
    """
    names = sorted(rows, key=lambda name: (-rows[name][0], name))
    middle = np.array([100 * rows[name][0] for name in names])
    bounds = 100 * np.array([rows[name][1] for name in names]).reshape(-1, 2)

    def draw(figure: Figure) -> None:
        axis, places = figure.subplots(), np.arange(len(names))
        axis.axvline(0, color=GREY, linestyle="--", lw=1)
        axis.hlines(places, bounds[:, 0], bounds[:, 1], color=COLOURS[0], linewidth=2.2)
        axis.plot(middle, places, "o", color=COLOURS[0], markersize=5)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_yticks(places, names)
        axis.tick_params(axis="y", length=0)
        axis.grid(True, axis="x")
        axis.set_xlabel("accuracy less the base adapter's (points)\nbars: paired 95 % intervals")

    save(draw, path, (7.5, 1.5 + 0.24 * max(1, len(names))), f"{strategy} by subject", note)


def _panel(axis: Axes, panel: Mapping[str, _Curve], start: float | None) -> None:
    """The smoothed curves of one panel; a curve that is alone there shows its noise too.

    `start` is the loss that they started from, a line of its own.
    """
    for index, (name, (step, loss)) in enumerate(panel.items()):
        colour = COLOURS[index % len(COLOURS)]
        line = LINES[index // len(COLOURS) % len(LINES)]
        if len(panel) == 1:
            axis.plot(step, loss, color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(step, _smooth(loss), line, color=colour, linewidth=1.6, label=name)
    smooth = np.concatenate([_smooth(loss) for _, loss in panel.values()])
    if start is not None:
        axis.axhline(start, color=GREY, linestyle="--", linewidth=1, label="base, at its end")
        smooth = np.append(smooth, start)
    if smooth.size:  # the smoothed losses decide the range, not single noisy steps
        room = max(0.1 * float(np.ptp(smooth)), 0.01)
        axis.set_ylim(max(0.0, float(smooth.min()) - room), float(smooth.max()) + room)
    axis.set_xlabel("optimiser step")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.locator_params(axis="x", nbins=6, integer=True)
    axis.grid(True)
    if len(panel) > 1 or start is not None:
        axis.legend(fontsize=8, ncols=1 + (len(panel) - 1) // 8, edgecolor="none", framealpha=0.85)


def _finite(rows: Sequence[Mapping[str, Any]]) -> _Curve:
    """(steps, losses), finite points only."""
    step = np.array([row.get("step", index) for index, row in enumerate(rows)], dtype=np.float64)
    loss = np.array([row["loss"] for row in rows], dtype=np.float64)
    finite = np.isfinite(loss)
    return step[finite], loss[finite]


def _smooth(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Moving mean over about a fifteenth of the curve, over what there is of it at the ends."""
    half = len(values) // 30
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    left, right = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[right] - sums[left]) / (right - left)
