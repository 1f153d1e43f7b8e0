"""Averages a sweep's jobs over seeds, and draws the plots and writes the report.html of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elrea.errors import ElreaError
from elrea.evaluation.seed_intervals import Interval, seeds_items_interval
from elrea.evaluation.statistics import paired_interval
from elrea.method.ensemble.strategy import BASE
from elrea.reporting.runs import CHOSEN, FinishedRun, read_run
from elrea.reporting.settings import BLANK
from elrea.reporting.sweeps import (
    number_of,
    setting_keys,
    training_seconds,
    typed_values,
    varied_values,
)

MAX_LINES = 24
"""A plot with more lines than this is not drawn."""
ANSWERS = "answers"
"""Field of a job: its `FinishedRun`, for the intervals."""


def with_answers(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Jobs with their predictions, as far as these can be read."""
    found = []
    for job in jobs:
        found.append(dict(job))
        if job["state"] == "done":
            with suppress(ElreaError):  # then there are no intervals
                found[-1][ANSWERS] = read_run(folder / job["number"])
    return found


def row_keys(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of `group` in the rows of `seed_means`.

    They are what varies, except the seed and `ensemble`: jobs score other strategies too. `ensemble.*` is for the
    chosen strategy alone, so that also a value which all jobs have tells a strategy's rows apart where others only
    score it.
    """
    keys = setting_keys(varied_values(jobs))
    if _chosen_and_scored(jobs):
        keys += [key for key in typed_values(jobs) if key.startswith(CHOSEN) and key not in keys]
    return keys


def _chosen_and_scored(jobs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Strategies that some jobs are about, and that others score too."""
    scored = {name for job in jobs for name in job["strategies"] if name != job.get("chosen")}
    return scored & {job.get("chosen") for job in jobs}


def seed_means(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Averages every strategy in every setting over seeds; `plots.trends.plot_sweep` draws the rows.

    Args:
        jobs: From `with_answers`; without their answers, several seeds have no intervals.

    Returns:
        Rows with these fields; accuracies and differences are shares of 1.

        - `group`: values of `row_keys`; "-" for a key that set another strategy than this one;
        - `strategy`, `seeds` (their number), `passes` (forward passes per prompt), `training` (`training_seconds`, mean
          over seeds; None if unknown);
        - `accuracy`: mean over seeds; `accuracy_seeds`: minimum and maximum over seeds; `accuracy_ci95`: with one seed
          Wilson's interval, with several the bootstrap over seeds and items;
        - `delta`, `delta_seeds`, `delta_ci95` (paired): the same for the difference to `BASE`, None for that
          itself. `delta_ci95` is with one seed the bootstrap over items and with several that over seeds and
          items: the intervals that `elrea compare` shows.
    """
    keys, typed, both = row_keys(jobs), typed_values(jobs), _chosen_and_scored(jobs)
    scored: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for i, job in enumerate(jobs):
        seed = typed["seed"][i] if "seed" in typed else ""
        for name, row in job["strategies"].items():
            if row["accuracy"] is None:  # all of test is plain text
                continue
            other = name in both and name != job.get("chosen")
            group = tuple(
                BLANK if other and key.startswith(CHOSEN) else typed[key][i] for key in keys
            )
            scored.setdefault((group, name), {})[seed] = job
    return [
        {"group": group, "strategy": name, **_means(list(seeds.values()), name)}
        for (group, name), seeds in scored.items()
    ]


def _means(jobs: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The figures of one strategy in one setting, from a job per seed."""
    rows = [job["strategies"][name] for job in jobs]
    each = [row["accuracy"] for row in rows]
    other = [job["strategies"].get(BASE, {}).get("accuracy") for job in jobs]
    compared = name != BASE and None not in other
    deltas = [a - b for a, b in zip(each, other, strict=True)] if compared else []
    training = [training_seconds(job, name) for job in jobs]
    known = [seconds for seconds in training if seconds is not None]
    right = _answers(jobs, name)
    if len(jobs) > 1:
        accuracy_ci95 = None if right is None else seeds_items_interval(right)
    else:
        accuracy_ci95 = rows[0].get("ci95") and tuple(rows[0]["ci95"])
    return {
        "seeds": len(each),
        "passes": _mean([row["forward_passes"] for row in rows]),
        "training": _mean(known) if len(known) == len(jobs) else None,
        "accuracy": _mean(each),
        "accuracy_seeds": (min(each), max(each)),
        "accuracy_ci95": accuracy_ci95,
        "delta": _mean(deltas) if deltas else None,
        "delta_seeds": (min(deltas), max(deltas)) if deltas else None,
        "delta_ci95": _paired(right, _answers(jobs, BASE)) if deltas else None,
    }


def _answers(jobs: Sequence[Mapping[str, Any]], name: str) -> npt.NDArray[Any] | None:
    """What a strategy had right [seeds, items]; None where a job's answers are missing, or the items differ."""
    runs: list[FinishedRun] = [job[ANSWERS] for job in jobs if ANSWERS in job]
    if len(runs) < len(jobs) or any(
        run.items != runs[0].items or name not in run.correct for run in runs
    ):
        return None
    return np.array([run.correct[name] for run in runs], dtype=float)


def _paired(a: npt.NDArray[Any] | None, b: npt.NDArray[Any] | None) -> Interval | None:
    """The interval of a difference, as `elrea compare` computes it."""
    if a is None or b is None:
        return None
    return seeds_items_interval(a - b) if len(a) > 1 else paired_interval(a, b, 0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def write_report(
    folder: Path, words: Sequence[str], jobs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Draws a sweep's plots and writes its report.html; returns the rows of `seed_means`.

    Args:
        folder: Of the sweep.
        words: The command line after `run.py`.
        jobs: As `read_jobs` returns them.
    """
    from elrea.reporting.html import data_of, sweep_report

    rows, values = seed_means(with_answers(folder, jobs)), varied_values(jobs)
    keys = row_keys(jobs)
    if rows:
        draw_sweep(rows, keys, folder / "plots", "; ".join(data_of(jobs)))
    sweep_report(folder, words, jobs, values, keys, rows)
    return rows


def draw_sweep(
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    folder: Path,
    note: str = "",
    chance: float | None = None,
) -> None:
    """Draws the plots of a sweep.

    cost.png is always drawn; training_cost.png if the jobs say what training took; trend.png and gain.png if the values
    of the first key are numbers; accuracy.png if only the seed varies.

    Args:
        rows: From `seed_means`.
        keys: Keys of the values in `group` of the rows.
        folder: Receives the PNG files.
        note: Added to the titles.
        chance: Accuracy of guessing, a share of 1, for accuracy.png; None if unknown.
    """
    from elrea.reporting.plots import figures as plots
    from elrea.reporting.plots import trends

    if not rows:
        return
    short = [key.rpartition(".")[2] for key in keys]
    for x, name, axis in (
        ("passes", "cost", trends.PASSES),
        ("training", "training_cost", "seconds of training"),
    ):
        points: dict[str, list[trends.Point]] = {}
        for row in rows:
            if row.get(x) is not None:
                point = (row[x], row["accuracy"], trends.label(short, row["group"]))
                points.setdefault(row["strategy"], []).append(point)
        if points:
            trends.cost(points, folder / f"{name}.png", note, axis)
    if not keys:
        figures = {
            row["strategy"]: {
                "accuracy": row["accuracy"],
                "ci95": row["accuracy_ci95"],
            }
            for row in rows
        }
        plots.accuracy(figures, folder / "accuracy.png", chance, note)
        return
    on_axis = [row for row in rows if row["group"][0] != BLANK]
    if on_axis and all(number_of(row["group"][0]) is not None for row in on_axis):
        lines = {(row["strategy"], *row["group"][1:]) for row in on_axis}
        if len(lines) <= MAX_LINES:
            trends.plot_sweep(on_axis, keys[0], folder / "trend.png", note=note)
            trends.plot_sweep(on_axis, keys[0], folder / "gain.png", gain_on=BASE, note=note)
