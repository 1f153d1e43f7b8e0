"""Scatter plot of the training prompts' features in two dimensions, by cluster and by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elrea.reporting.plots.canvas import COLOURS, GREY, WIDTH, legend, legend_height, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLE = 3_000
"""Maximum number of points that are drawn."""
MARKERS = ("o", "^", "s", "v", "D", "P", "X")
NAMED = 12
"""Maximum number of groups in the legend; with more, the smallest are combined as "others", in grey."""


def scatter(
    features: npt.NDArray[Any],
    assignment: npt.ArrayLike,
    sources: Sequence[str],
    path: str | Path,
    note: str = "",
) -> None:
    """Plots the two leading principal components, by cluster in the upper panel and by source in the lower one.

    A source has the colour of the cluster with most of its examples, so that examples in other clusters are
    visible. Sources of the same colour have different markers.

    Args:
        features: `[n, d]`, float16 or float32, possibly memory-mapped: at most 3,000 rows are read.
        assignment: Cluster of each row `[n]`; rows with -1 are in no cluster and are not drawn.
        sources: Source of each row `[n]`.
        path: Of the PNG.
        note: Added to the title, e.g. "built-in exam, not MMLU".
    """
    labels = np.asarray(assignment, dtype=np.int64)
    rows = np.flatnonzero(labels >= 0)
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLE])
    places, shares = plane(np.asarray(features[rows], dtype=np.float32))
    # Clusters are numbered by size: the largest has the same colour in every run.
    clusters = [f"cluster {label}" for label in labels[rows]]
    ranks = [f"cluster {label}" for label in np.unique(labels[rows])]
    named = [sources[row] for row in rows.tolist()]
    by_count = [name for name, _ in Counter(sorted(named)).most_common()]
    looks = {name: (i % len(COLOURS), i // len(COLOURS)) for i, name in enumerate(ranks)}
    panels = (
        ("by cluster", clusters, ranks, looks),
        ("by source, in the colour of its main cluster", named, by_count, _as_clusters(named, clusters, looks)),
    )  # fmt: skip
    heights = [3.4 + legend_height(_named(order)) for _, _, order, _ in panels]

    def draw(figure: Figure) -> None:
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, (title, groups, order, look) in zip(parts, panels, strict=True):
            axis = part.subplots()
            axis.set_title(title)
            axis.set_xlabel(f"first component ({100 * shares[0]:.0f} % of the variance)")
            axis.set_ylabel(f"second component ({100 * shares[1]:.0f} %)")
            _panel(axis, places, groups, order, look)
            if order:
                legend(part, _named(order))

    title = f"Features of {len(rows):,} training examples"
    save(draw, path, (WIDTH, 0.4 + sum(heights)), title, note)


def plane(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Two leading principal components `[m, 2]` and their shares of the variance; zeros for missing components."""
    from sklearn.decomposition import PCA

    places, shares = np.zeros((len(rows), 2)), np.zeros(2)
    count = min(2, *rows.shape)
    if len(rows) > 1 and np.ptp(rows, axis=0).any():
        pca = PCA(count, svd_solver="randomized", random_state=0).fit(rows)
        places[:, :count] = pca.transform(rows)
        shares[:count] = pca.explained_variance_ratio_
    return places, shares


def _as_clusters(
    sources: Sequence[str], clusters: Sequence[str], looks: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Numbers of the colour and the marker of each source: its main cluster's colour, the next free marker."""
    pairs = Counter(zip(sources, clusters, strict=True))
    found: dict[str, tuple[int, int]] = {}
    for (source, cluster), _ in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        colour = looks[cluster][0]
        taken = sum(other == colour for other, _ in found.values())
        found.setdefault(source, (colour, taken))
    return found


def _named(order: Sequence[str]) -> list[str]:
    """Names in the legend."""
    return list(order) if len(order) <= NAMED else [*order[: NAMED - 1], "others"]


def _panel(
    axis: Axes,
    places: npt.NDArray[Any],
    groups: Sequence[str],
    order: Sequence[str],
    looks: Mapping[str, tuple[int, int]],
) -> None:
    """Draws the points of each group, those of the largest group first."""
    shown = _named(order)
    index = np.array([min(order.index(group), len(shown) - 1) for group in groups], dtype=int)
    for place, name in enumerate(shown):
        part = places[index == place]
        rest = len(shown) < len(order) and place == len(shown) - 1
        colour, shape = looks[order[place]]
        axis.scatter(
            part[:, 0], part[:, 1], s=16, marker=MARKERS[shape % len(MARKERS)],
            color=GREY if rest else COLOURS[colour], alpha=0.25 if rest else 0.55,
            linewidths=0, label=name,
        )  # fmt: skip
    axis.grid(True)
