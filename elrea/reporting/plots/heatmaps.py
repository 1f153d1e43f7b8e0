"""Heat maps with printed numbers: sources by clusters, and sources by members of the ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elrea.method.ensemble.strategy import BASE
from elrea.reporting.plots.canvas import WIDTH, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERTICAL = 4  # with more columns, their names are printed vertically
_ANNOTATED = 1200  # with more cells, no numbers are printed


def heat_map(
    counts: npt.ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | Path,
    note: str = "",
) -> None:
    """Plots how the training examples of each source are distributed over the clusters.

    Colours show the share of the source's examples, numbers are counts. Sources are ordered by the cluster with
    most of their examples, so that a clustering that follows the sources appears as a staircase.

    Args:
        counts: `[sources, clusters]`, training examples.
        rows: Names of the sources.
        columns: Names of the clusters.
        path: Of the PNG.
        note: Added to the title, e.g. "built-in exam, not MMLU".
    """
    table = np.asarray(counts, dtype=np.float64).reshape(len(rows), len(columns))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
    _cells(
        100 * shares[order],
        [rows[index] for index in order],
        columns,
        [[f"{value:,.0f}" for value in table[index]] for index in order],
        path,
        title="Training examples per source and cluster",
        labels=("cluster", "source", "share of the source's examples (%)"),
        note=note,
    )


def routing(
    weights: npt.ArrayLike,
    members: Sequence[str],
    sources: Sequence[str],
    path: str | Path,
    note: str = "",
) -> None:
    """Plots the mean routing weight of each member for the test prompts of each source.

    The experts' weights (5.9) sum to 1 in a row. The base adapter's weight (5.10) is not part of that sum: its
    column comes first, separated by a gap.

    Args:
        weights: `[members, sources]`, means over the source's test prompts.
        members: Names of the members; the base adapter is `BASE`.
        sources: Names of the sources.
        path: Of the PNG.
        note: Added to the title.
    """
    table = np.asarray(weights, dtype=np.float64).reshape(len(members), len(sources)).T
    base = [index for index, name in enumerate(members) if name == BASE]
    experts = [index for index, name in enumerate(members) if name != BASE]
    best_member = table[:, experts or base].argmax(axis=1)
    rows = [int(index) for index in np.argsort(best_member, kind="stable")]
    table = table[rows][:, base + experts]
    _cells(
        table,
        [sources[index] for index in rows],
        [members[index] for index in base + experts],
        [[f"{value:.2f}" for value in row] for row in table],
        path,
        title="Mean routing weight of the test prompts",
        labels=("member", "source", "mean weight"),
        note=note,
        separate=len(base) if experts else 0,
    )


def _cells(
    values: npt.NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
    path: str | Path,
    *,
    title: str,
    labels: tuple[str, str, str],
    note: str,
    separate: int = 0,
) -> None:
    """Draws `values` `[rows, columns]` >= 0 with `texts` in the cells; a gap follows the first `separate` columns."""
    height, width = values.shape
    top = max(float(values.max(initial=0.0)), 1e-9)
    edges = np.arange(width + 1.0)
    mesh = values
    if separate:  # a narrow empty column makes the gap
        edges = np.concatenate([edges[: separate + 1], edges[separate:] + 0.25])
        mesh = np.insert(values, separate, np.nan, axis=1)
    centres = np.delete((edges[:-1] + edges[1:]) / 2, [separate] if separate else []).tolist()
    vertical = width > _VERTICAL
    longest = max((len(name) for name in columns), default=1)
    cell = 0.5 if vertical else max(0.62, 0.09 * longest)
    wide = 2.2 + 0.075 * max(map(len, rows), default=1) + cell * width
    size = (max(WIDTH, wide), 1.8 + 0.28 * height + (0.075 * longest if vertical else 0))

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        across = np.arange(height + 1.0)
        image = axis.pcolormesh(edges, across, mesh, cmap="cividis", vmin=0, vmax=top)
        if height * width <= _ANNOTATED:
            for row, column in np.ndindex(height, width):
                axis.text(
                    centres[column],
                    row + 0.5,
                    texts[row][column],
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black" if values[row, column] > 0.5 * top else "white",
                )
        axis.set_xlim(0, edges[-1])
        axis.set_ylim(height, 0)
        axis.set_xticks(centres, columns, rotation=90 if vertical else 0)
        axis.set_yticks(across[:-1] + 0.5, rows)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_xlabel(labels[0])
        axis.set_ylabel(labels[1])
        figure.colorbar(image, ax=axis, label=labels[2], shrink=min(1.0, 4.0 / size[1]))

    save(draw, path, size, title, note)
