"""Draws all plots of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elrea.evaluation.statistics import paired_interval
from elrea.method.ensemble.strategy import BASE
from elrea.method.features.to_disk import open_features
from elrea.reporting.plots import figures
from elrea.reporting.plots.heatmaps import heat_map, routing
from elrea.reporting.plots.scatter import scatter

if TYPE_CHECKING:
    from torch import Tensor

    from elrea.reporting.report import Report


def draw(folder: Path, report: Report) -> dict[str, Path]:
    """Draws all plots of a finished run as PNG files.

    Args:
        folder: Receives the files.
        report: Of the run.

    Returns:
        Paths of the files by the plots' names (keys of `elrea.reporting.html.CAPTIONS`).
    """
    folder.mkdir(exist_ok=True)
    note, grouping = report.data, report.grouping
    names = ["training"]
    chance = [1 / len(e.choices) if e.choices else 0.0 for e in report.test if not e.plain_text]
    if chance:
        names.insert(0, "accuracy")
        figures.accuracy(report.strategies, folder / "accuracy.png", float(np.mean(chance)), note)
    figures.training_curves(report.curves, folder / "training.png", note)
    subjects = gains_by_task(report)
    if len(subjects) > 1 and report.chosen != BASE:
        names.append("subjects")
        figures.differences(subjects, folder / "subjects.png", report.chosen, note)
    if grouping is not None:
        names += ["clusters", "features"]
        columns = [f"cluster {c}" for c in range(grouping.clusters)]
        heat_map(grouping.counts, grouping.sources, columns, folder / "clusters.png", note)
        rows = open_features(grouping.features)
        scatter(rows, grouping.assignment, grouping.kept, folder / "features.png", note)
    if report.weights is not None:
        names.append("routing")
        members, weights = report.weights
        sources, means = _mean_weights(report, weights)
        routing(means, members, sources, folder / "routing.png", note)
    return {name: folder / f"{name}.png" for name in names}


def gains_by_task(report: Report) -> dict[str, tuple[float, tuple[float, float]]]:
    """By task, the chosen strategy's accuracy minus the base adapter's, with the paired 95 % interval."""
    chosen, base = (np.array(report.outcomes[name].correct) for name in (report.chosen, BASE))
    judged = np.array([not example.plain_text for example in report.test])
    tasks, gains = np.array(report.tasks), {}
    for name in sorted(set(tasks[judged].tolist())):
        a, b = (list(correct[judged & (tasks == name)]) for correct in (chosen, base))
        bounds = paired_interval(a, b, report.seed, report.resamples)
        gains[name] = (float(np.mean(a) - np.mean(b)), bounds)
    return gains


def _mean_weights(report: Report, each: Tensor) -> tuple[list[str], np.ndarray]:
    """Sources of the test items, and the members' mean weights on the items of each source [members, sources]."""
    weights = each.numpy()
    sources = sorted({example.source for example in report.test})
    places = np.array([sources.index(example.source) for example in report.test])
    return sources, np.stack([weights[places == i].mean(0) for i in range(len(sources))], axis=1)
