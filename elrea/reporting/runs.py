"""Reads finished runs and sweeps, and checks that their files are unchanged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elrea.config import leaves, load_config
from elrea.errors import DataError
from elrea.evaluation.statistics import checksum_of_correct
from elrea.reporting.sweeps import (
    STATUS,
    SUMMARY,
    SWEEP,
    TABLE,
    is_below,
    read_job,
    read_jobs,
    setting_keys,
    varied_values,
)
from elrea.store.files import read_json

PREDICTIONS = "predictions.jsonl"
CHOSEN = "ensemble."
"""What the keys of the chosen strategy's settings begin with."""


@dataclass(frozen=True)
class FinishedRun:
    """Settings and results of a finished run.

    Attributes:
        folder: Of the run.
        seed: Of the run.
        items: Id and correct answer of each test item, sorted by id.
        correct: By strategy, whether it answered each item correctly. Plain text is an item only in a run that has
            nothing else; it is never correct.
        chosen: The strategy that `ensemble=` selected.
        settings: The run's config with dotted keys.
        losses: By strategy, loss on each item: nats per token of the reference response; None if the item did not fit.
        figures: By strategy, its row in summary.json.
        data: Name of the data.
        words: The overrides that were typed for it.
        sources: Of each item, in the order of `items`.
        all_losses: `losses` of all rows, sorted by id: plain text, which is no item beside others, is among them.
    """

    folder: Path
    seed: int
    items: list[tuple[str, str]]
    correct: dict[str, list[bool]]
    chosen: str
    settings: dict[str, Any]
    losses: dict[str, list[float | None]] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: str = ""
    words: Sequence[str] = ()
    sources: Sequence[str] = ()
    all_losses: dict[str, list[float | None]] = field(default_factory=dict)

    def strategy_settings(self, name: str) -> dict[str, Any]:
        """Settings that the run's config has for a strategy, besides the strategy's own file."""
        node = CHOSEN if name == self.chosen else f"evaluation.settings.{name}."
        return {key: value for key, value in self.settings.items() if key.startswith(node)}

    def changes(self, name: str, file: Mapping[str, Any]) -> dict[str, Any]:
        """What was set in place of the strategy's own file, by the strategy's keys.

        Args:
            name: The strategy.
            file: Its own file's values, by the strategy's keys; empty if there is none, and then what was typed counts.
        """
        own = f"evaluation.settings.{name}."
        found = {k.removeprefix(own): v for k, v in self.settings.items() if k.startswith(own)}
        if name == self.chosen:
            names = [word.lstrip("+~").partition("=")[0] for word in self.words]
            typed = [each for each in names if each.startswith(CHOSEN)]
            found |= {
                key.removeprefix(CHOSEN): value
                for key, value in self.settings.items()
                if key.startswith(CHOSEN)
                and (is_below(key, typed) or value != file.get(key.removeprefix(CHOSEN), value))
            }
        return found


def run_folders(given: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Folders of runs; a sweep's folder is replaced by the folders of its finished jobs.

    Returns:
        The folders, and a line for each sweep of which some jobs are left out because they are not done.

    Raises:
        DataError: A folder has no finished run.
    """
    runs: list[Path] = []
    left_out: list[str] = []
    for folder in given:
        if (folder / PREDICTIONS).is_file():
            runs.append(folder)
            continue
        jobs = read_jobs(folder)
        known = {job["number"]: job["state"] for job in jobs}
        unfinished = [job for job in jobs if job["state"] not in ("done", "damaged")]
        new = [
            path.parent
            for path in sorted(
                folder.glob(f"*/{PREDICTIONS}"), key=lambda path: _number(path.parent)
            )
            if known.get(path.parent.name, "done") in ("done", "damaged")  # those are refused later
        ]
        if not new:
            raise DataError(
                f"{folder}: no {PREDICTIONS} there; give the folder of a finished run or of a sweep"
            )
        runs += new
        if unfinished:
            each = ", ".join(f"{job['number']} ({job['state']})" for job in unfinished)
            left_out.append(f"{folder}: left out because they are not done: job {each}")
        elif (folder / SWEEP).is_file() and not (folder / TABLE).is_file():
            left_out.append(f"{folder}: the sweep is not finished; jobs may be missing")
    return runs, left_out


def _number(job: Path) -> tuple[int, str]:
    """Sorts jobs by their number."""
    return len(job.name), job.name


OLD_OPTIONS = "text"
"""What `data.options` was before there was such a key."""


def is_options(key: str) -> bool:
    """Whether a config key says how rows with choices are asked."""
    return key.startswith("data.") and key.rpartition(".")[2] == "options"


def read_run(folder: Path) -> FinishedRun:
    """Reads a finished run.

    Raises:
        ElreaError: The last run in the folder is not finished, or its files were changed.
    """
    if not (folder / STATUS).is_file():
        raise DataError(f"{folder}: no {STATUS} there; give the complete folder of a finished run")
    job = read_job(folder)
    if job["state"] == "damaged":
        raise DataError(job["error"])
    if job["state"] != "done":
        why = f" ({job['error']})" if "error" in job else ""
        raise DataError(
            f"{folder}: the state of the last run there is {job['state']}, not done{why}; the other files may be older"
        )
    settings = leaves(load_config(folder / "config.yaml"))
    path = folder / PREDICTIONS
    if not path.is_file():  # a verdict has answers in its parts alone
        raise DataError(f"{path}: not there; give the folder of a run with answers, or run again")
    try:
        rows = list(_rows(path))
        _check_predictions(rows, job["strategies"], path)
        if not any("answer_text" in row for row in rows):  # no row has lettered options
            settings |= {key: OLD_OPTIONS for key in settings if is_options(key)}
        every = sorted(rows, key=lambda row: str(row["id"]))
        rows = judged(every) or every
        return FinishedRun(
            folder,
            int(read_json(folder / SUMMARY)["seed"]),
            [(row["id"], row["answer"]) for row in rows],
            {name: _correct(rows, name) for name in job["strategies"]},
            job["chosen"],
            settings,
            {name: _losses(rows, name) for name in job["strategies"]},
            job["strategies"],
            job["data"],
            job["words"],
            [str(row.get("source", "")) for row in rows],
            {name: _losses(every, name) for name in job["strategies"]},
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: invalid predictions ({error!r})") from error


def _check_predictions(rows: Sequence[Any], figures: Mapping[str, Any], path: Path) -> None:
    """Checks that predictions agree with summary.json in number and in what is correct.

    Raises:
        DataError: They do not agree, or an id appears twice.
    """
    ids = [str(row["id"]) for row in rows]
    if len(set(ids)) < len(ids):
        (twice, _), *_ = Counter(ids).most_common(1)
        raise DataError(f"{path}: duplicate id {twice!r}; restore the file or run again")
    for name, row in figures.items():
        correct = _correct(judged(rows), name)
        if (len(correct), checksum_of_correct(correct)) != (row["n"], row["correct_sha256"]):
            raise DataError(
                f"{path}: checksum mismatch: its {len(correct):,} lines are not the {row['n']:,} answers of {name} in "
                f"{SUMMARY}; run again"
            )


def judged(rows: Sequence[Any]) -> list[Any]:
    """The rows that have a right answer: plain text has none."""
    return [
        row
        for row in rows
        if any(each["correct"] is not None for each in row["strategies"].values())
    ]


def _losses(rows: Sequence[Any], name: str) -> list[float | None]:
    return [row["strategies"][name].get("loss") for row in rows]


def _correct(rows: Sequence[Any], name: str) -> list[bool]:
    """Whether a strategy is correct, row by row."""
    correct = [row["strategies"][name]["correct"] for row in rows]
    if None in correct and not any(correct):
        correct = [False] * len(rows)  # plain text alone
    if not all(isinstance(each, bool) for each in correct):
        raise TypeError(f"{name}: correct must be true or false")
    return correct


def _rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def finished_jobs(
    folder: Path, need: Sequence[str] = (), *, several: bool = False
) -> list[dict[str, Any]]:
    """Jobs of a finished sweep, as `read_jobs` returns them, each with its `seed` and its `setting`.

    Args:
        folder: Of the sweep.
        need: Strategies that every job must have scored.
        several: Whether jobs may have several settings, instead of differing only in the seed.

    Raises:
        DataError: There is no sweep, it is not finished, or its jobs cannot be combined.
    """
    jobs = read_jobs(folder)
    if not jobs:
        raise DataError(
            f"{folder}: no finished sweep there; give a folder such as multirun/<day>/<time>"
        )
    for job in jobs:
        if job["state"] != "done":
            raise DataError(
                f"{folder}: the sweep is not finished: job {job['number']} is {job['state']}; run the same command "
                "again to resume it"
            )
    if (folder / SWEEP).is_file() and not (folder / TABLE).is_file():
        raise DataError(
            f"{folder}: the sweep is not finished: it was stopped before its last job; run the same command again to "
            "resume it"
        )
    values = varied_values(jobs)
    keys = setting_keys(values)
    if keys and not several:
        raise DataError(
            f"{folder}: its jobs differ in {', '.join(keys)}; give a sweep whose jobs differ only in the seed"
        )
    known: dict[tuple[tuple[str, ...], int], str] = {}
    for i, job in enumerate(jobs):
        job["seed"] = int(read_json(folder / job["number"] / SUMMARY)["seed"])
        job["setting"] = tuple(values[key][i] for key in keys)
        first = known.setdefault((job["setting"], job["seed"]), job["number"])
        if first != job["number"]:
            raise DataError(
                f"{folder}: jobs {first} and {job['number']} have the same seed {job['seed']} and the same settings; "
                "give each seed once"
            )
        _check_strategies(folder, job, jobs[0], need)
    return jobs


def _check_strategies(
    folder: Path, job: dict[str, Any], first: dict[str, Any], need: Sequence[str]
) -> None:
    """Refuses a job that lacks a needed strategy, or that scored other strategies than the first job."""
    scored = list(job["strategies"])
    for name in need:
        if name not in scored:
            raise DataError(
                f"{folder}: job {job['number']} did not score {name} (there is: {', '.join(scored)})"
            )
    if set(scored) != set(first["strategies"]):
        raise DataError(
            f"{folder}: jobs {first['number']} and {job['number']} scored different strategies; give jobs that "
            "scored the same"
        )
