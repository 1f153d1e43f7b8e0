"""Sweeps that a study may be made of: ended, every job of them, and each seed once in a setting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elrea.errors import DataError
from elrea.files import read_json
from elrea.finished import Answers, read_run
from elrea.sweep_results import SUMMARY, read_jobs, settings, varied


def finished(
    folder: Path, need: Sequence[str] = (), *, several: bool = False
) -> list[dict[str, Any]]:
    """The jobs of a finished sweep as `read_jobs` has them, each with its `seed` and its `setting`.

    Args:
        folder: The sweep's.
        need: Strategies that every job has to have scored.
        several: Whether the jobs may be of several settings, instead of differing in the seed alone.

    Raises:
        DataError: There is no such sweep, it is not finished, or its jobs are not to be taken together.
    """
    jobs = read_jobs(folder)
    if not jobs:
        raise DataError(f"{folder}: no finished sweep there; give multirun/<day>/<time>")
    for job in jobs:
        if job["state"] != "done":
            raise DataError(
                f"{folder}: no finished sweep there: job {job['number']} is {job['state']}; the command that made it "
                "goes on with it"
            )
    if (folder / "sweep.json").is_file() and not (folder / "sweep.csv").is_file():
        raise DataError(
            f"{folder}: no finished sweep there: it ended before its last job; the command that made it goes on with it"
        )
    values = varied(jobs)
    keys = settings(values)
    if keys and not several:
        raise DataError(
            f"{folder}: its jobs differ in {', '.join(keys)}; give a sweep whose jobs differ in the seed alone"
        )
    known: dict[tuple[tuple[str, ...], int], str] = {}
    for i, job in enumerate(jobs):
        job["seed"] = int(read_json(folder / job["number"] / SUMMARY)["seed"])
        job["setting"] = tuple(values[key][i] for key in keys)
        first = known.setdefault((job["setting"], job["seed"]), job["number"])
        if first != job["number"]:
            raise DataError(
                f"{folder}: jobs {first} and {job['number']} have the same seed {job['seed']} and the same settings; a "
                "seed counts once"
            )
        _check_rows(folder, job, jobs[0], need)
    return jobs


def answers(
    folder: Path, need: Sequence[str] = (), *, several: bool = False
) -> tuple[list[dict[str, Any]], dict[tuple[str, ...], dict[str, np.ndarray]]]:
    """The jobs as `finished` has them, and by setting and strategy what was right, [seeds, items] in the jobs' order.

    Raises:
        ElreaError: What `finished` or `read_run` refuses, or seeds of one setting have other test items.
    """
    jobs = finished(folder, need, several=several)
    runs: dict[tuple[str, ...], list[Answers]] = defaultdict(list)
    for job in jobs:
        runs[job["setting"]].append(read_run(folder / job["number"]))
    for each in runs.values():
        if any(run.items != each[0].items for run in each):
            raise DataError(f"{folder}: seeds of one setting have other test items")
    return jobs, {
        setting: {name: np.array([run.correct[name] for run in each]) for name in each[0].correct}
        for setting, each in runs.items()
    }


def _check_rows(
    folder: Path, job: dict[str, Any], first: dict[str, Any], need: Sequence[str]
) -> None:
    there = list(job["strategies"])
    for name in need:
        if name not in there:
            raise DataError(
                f"{folder}: job {job['number']} did not score {name} (there is: {', '.join(there)})"
            )
    if set(there) != set(first["strategies"]):
        raise DataError(
            f"{folder}: jobs {first['number']} and {job['number']} scored other strategies: they are of different "
            "studies"
        )
