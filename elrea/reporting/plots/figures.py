"""Plots of training curves, accuracies and differences by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elrea.method.ensemble.strategy import BASE
from elrea.reporting.plots.canvas import COLOURS, GREY, LINES, WIDTH, legend, legend_height, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_END = "base, at its end"
_Curve = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def training_curves(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, note: str = ""
) -> None:
    """Plots the training loss of every adapter over its steps, with panels for the base, the experts and the others.

    Args:
        curves: By adapter, the rows of its curve.json with `step` and `loss` (nats per token).
            The base adapter has its own panel. Its last loss is a dashed line in the panel of the experts
            ("expert-0", ...), whose training starts from the base adapter.
        path: Of the PNG.
        note: Added to the title, e.g. "built-in exam, not MMLU".
    """
    drawn = {name: _finite(rows) for name, rows in curves.items() if rows}
    base = {name: curve for name, curve in drawn.items() if name == BASE}
    experts = {name: curve for name, curve in drawn.items() if name.startswith("expert")}
    others = {name: drawn[name] for name in drawn if name not in {*base, *experts}}
    ends = [float(_smooth(loss)[-1]) for _, loss in base.values() if loss.size]
    start = ends[0] if ends else None
    panels = [
        (title, panel, start if panel is experts else None)
        for title, panel in (
            ("Base adapter", base),
            ("Experts, each on its own cluster", experts),
            ("Other adapters" if base or experts else "Adapters", others),
        )
        if panel
    ]
    named = [[*panel, _END] if start is not None else list(panel) for _, panel, start in panels]
    heights = [2.4 + (legend_height(names) if names != [BASE] else 0) for names in named]

    def draw(figure: Figure) -> None:
        parts = figure.subfigures(
            max(1, len(panels)), 1, squeeze=False, height_ratios=heights or [1]
        )[:, 0]
        for part, (heading, panel, start), names in zip(parts, panels, named, strict=False):
            axis = part.subplots()
            axis.set_title(heading)
            _panel(axis, panel, start)
            axis.set_ylabel("training loss (nats per token)", fontsize=8)
            if names != [BASE]:
                legend(part, names)

    save(draw, path, (WIDTH, 0.4 + (sum(heights) or 2.4)), "Training loss", note)


def accuracy(
    strategies: Mapping[str, Mapping[str, Any]],
    path: str | Path,
    chance: float | None,
    note: str = "",
) -> None:
    """Plots the accuracy of every strategy with its 95 % interval; the first strategy is on top.

    Args:
        strategies: By name, `accuracy` and `ci95` (low, high, or None) as shares of 1, and a `label` if it has one.
        path: Of the PNG.
        chance: Accuracy of guessing, a share of 1; None if unknown. If it is far below every strategy, only the
            axis label names it, so that the strategies' differences stay visible.
        note: Added to the title.
    """
    names = list(strategies)
    rows = [strategies[name] for name in names]
    middle = np.array([100 * row["accuracy"] for row in rows])
    ends = [row["ci95"] or (row["accuracy"], row["accuracy"]) for row in rows]
    bounds = 100 * np.array(ends).reshape(-1, 2)
    low, high = float(bounds.min(initial=100)), float(bounds.max(initial=0))
    guess = None if chance is None else 100 * chance
    far = guess is None or guess < low - (high - low)
    labels = ["bars: 95 % intervals"] if any(row["ci95"] for row in rows) else []
    if guess is not None:
        labels.append(f"{'chance' if far else 'dotted: chance,'} {guess:.0f} %")
    if BASE in strategies:
        labels.append("dashed: base adapter")

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        if BASE in strategies:
            axis.axvline(100 * strategies[BASE]["accuracy"], color=GREY, linestyle="--", lw=1)
        if guess is not None and not far:
            axis.axvline(guess, color=COLOURS[1], linestyle=":", lw=1.6)
        places = np.arange(len(names))
        axis.hlines(places, bounds[:, 0], bounds[:, 1], color=COLOURS[0], linewidth=2.2)
        axis.plot(middle, places, "o", color=COLOURS[0], markersize=6)
        for place, value in enumerate(middle):
            axis.annotate(f"{value:.1f}", (value, place), (0, 7), textcoords="offset points",
                          ha="center", fontsize=9,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
        room = max(0.08 * (high - low), 0.5)
        axis.set_xlim(
            max(0.0, (low if guess is None or far else min(low, guess)) - room), high + room
        )
        axis.set_ylim(len(names) - 0.5, -0.8)
        axis.set_yticks(places, [strategies[name].get("label", name) for name in names])
        axis.tick_params(axis="y", length=0)
        axis.grid(True, axis="x")
        # Under the whole figure: under the axis, beside long names, it would be cut off at the right.
        figure.supxlabel(
            "\n".join(filter(None, ["accuracy (%)", "; ".join(labels)])),
            fontsize=axis.xaxis.label.get_fontsize(),
        )

    save(draw, path, (WIDTH, 1.6 + 0.42 * max(1, len(names))), "Accuracy by strategy", note)


def differences(
    rows: Mapping[str, tuple[float, tuple[float, float]]],
    path: str | Path,
    strategy: str,
    note: str = "",
) -> None:
    """Plots a strategy's difference to the base adapter by task (a subject, or a source); the largest is on top.

    Args:
        rows: By task, the difference and its 95 % interval (low, high), shares of 1.
        path: Of the PNG.
        strategy: Name of the strategy.
        note: Added to the title.
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
        axis.set_xlabel("accuracy minus the base adapter's (points)\nbars: paired 95 % intervals")

    save(draw, path, (WIDTH, 1.5 + 0.24 * max(1, len(names))), f"{strategy} by task", note)


def _panel(axis: Axes, panel: Mapping[str, _Curve], start: float | None) -> None:
    """Draws the smoothed curves of one panel; a single curve is also drawn unsmoothed.

    `start` is the loss at which the curves start; it is drawn as a dashed line.
    """
    for index, (name, (step, loss)) in enumerate(panel.items()):
        colour = COLOURS[index % len(COLOURS)]
        line = LINES[index // len(COLOURS) % len(LINES)]
        if len(panel) == 1:
            axis.plot(step, loss, color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(step, _smooth(loss), line, color=colour, linewidth=1.6, label=name)
    smooth = np.concatenate([_smooth(loss) for _, loss in panel.values()])
    if start is not None:
        axis.axhline(start, color=GREY, linestyle="--", linewidth=1, label=_END)
        smooth = np.append(smooth, start)
    if smooth.size:  # noisy single steps do not extend the axis
        room = max(0.1 * float(np.ptp(smooth)), 0.01)
        axis.set_ylim(max(0.0, float(smooth.min()) - room), float(smooth.max()) + room)
    axis.set_xlabel("optimiser step")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.locator_params(axis="x", nbins=6, integer=True)
    axis.grid(True)


def _finite(rows: Sequence[Mapping[str, Any]]) -> _Curve:
    """Steps and losses of the points with a finite loss."""
    step = np.array([row.get("step", index) for index, row in enumerate(rows)], dtype=np.float64)
    loss = np.array([row["loss"] for row in rows], dtype=np.float64)
    finite = np.isfinite(loss)
    return step[finite], loss[finite]


def _smooth(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Moving mean over about a fifteenth of the curve; the window is cut off at the ends."""
    half = len(values) // 30
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    left, right = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[right] - sums[left]) / (right - left)
