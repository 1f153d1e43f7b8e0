"""A picture of the features in two dimensions: what is grouped, and what the groups came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elrea.tracking.canvas import COLOURS, GREY, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLE = 3_000
"""Points that are drawn, of many."""
MARKERS = ("o", "^", "s", "v", "D", "P", "X")
NAMED = 12
"""Groups in the legend at most; beyond that the smallest are "others", in grey."""


def scatter(
    features: npt.NDArray[Any],
    assignment: npt.ArrayLike,
    sources: Sequence[str],
    path: str | Path,
    note: str = "",
) -> None:
    """The two leading principal components, coloured by cluster on the left and by source on the right.

    Args:
        features: `[n, d]`, float16 or float32, possibly memory-mapped: at most 3,000 rows are read.
        assignment: cluster of each row `[n]`; rows with -1 are in none and are not drawn.
        sources: source of each row `[n]`.
        path: of the PNG.
        note: small print, e.g. "built-in exam, not MMLU".
    """
    labels = np.asarray(assignment, dtype=np.int64)
    rows = np.flatnonzero(labels >= 0)
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLE])
    places, shares = plane(np.asarray(features[rows], dtype=np.float32))
    # A cluster's number says its rank by size, so that its colour stays from panel to panel and run to run.
    clusters = [f"cluster {label}" for label in labels[rows]]
    ranks = [f"cluster {label}" for label in np.unique(labels[rows])]
    named = [sources[row] for row in rows.tolist()]
    by_count = [name for name, _ in Counter(sorted(named)).most_common()]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, title, groups, order in (
            (left, "by cluster", clusters, ranks),
            (right, "by source", named, by_count),
        ):
            axis.set_title(title)
            axis.set_xlabel(f"first component ({100 * shares[0]:.0f} % of the variance)")
            _panel(axis, places, groups, order)
        left.set_ylabel(f"second component ({100 * shares[1]:.0f} %)")

    title = f"Features of {len(rows):,} training examples"
    save(draw, path, (10.0, 4.6), title, note)


def plane(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Two leading principal components `[m, 2]` and their shares of the variance; 0 where there are none."""
    from sklearn.decomposition import PCA

    places, shares = np.zeros((len(rows), 2)), np.zeros(2)
    count = min(2, *rows.shape)
    if len(rows) > 1 and np.ptp(rows, axis=0).any():
        pca = PCA(count, svd_solver="randomized", random_state=0).fit(rows)
        places[:, :count] = pca.transform(rows)
        shares[:count] = pca.explained_variance_ratio_
    return places, shares


def _panel(
    axis: Axes, places: npt.NDArray[Any], groups: Sequence[str], order: Sequence[str]
) -> None:
    """One cloud per group, the largest first and so undermost."""
    shown = list(order) if len(order) <= NAMED else [*order[: NAMED - 1], "others"]
    index = np.array([min(order.index(group), len(shown) - 1) for group in groups], dtype=int)
    for place, name in enumerate(shown):
        part = places[index == place]
        rest = len(shown) < len(order) and place == len(shown) - 1
        axis.scatter(
            part[:, 0], part[:, 1], s=12, marker=MARKERS[place // len(COLOURS) % len(MARKERS)],
            color=GREY if rest else COLOURS[place % len(COLOURS)], alpha=0.25 if rest else 0.55,
            linewidths=0, label=name,
        )  # fmt: skip
    axis.grid(True)
    if shown:
        axis.legend(fontsize=7, ncols=1 + (len(shown) - 1) // 6, edgecolor="none", framealpha=0.85)
