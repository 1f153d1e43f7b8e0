"""What finished runs had right: read back, held against what else they left, and against each other."""

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
from elrea.reporting.sweeps import STATUS, SUMMARY, read_job, read_jobs, setting_keys, varied_values
from elrea.store.files import read_json

PREDICTIONS = "predictions.jsonl"
MAY_DIFFER = (
    "seed", "store", "plan", "until", "debug", "tracking", "trainer.accelerator", "trainer.devices", "trainer.strategy",
    "trainer.threads", "training.checkpoint_minutes", "training.recompute", "features.batch_size",
    "features.batch_tokens", "features.buffer_mb", "features.recompute", "evaluation.batch_size",
    "evaluation.resamples", "evaluation.strategies", "evaluation.settings", "ensemble",
)  # fmt: skip
"""Keys of a config, with all below them, in which runs may differ that are held against each other: the seed, where and
how fast a run was made, and what strategies it had, whose own settings count one by one."""


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run's strategies had right.

    Attributes:
        folder: The run's.
        seed: The run's.
        items: Ids of the test items with their right answers, in the order of the ids.
        correct: By strategy, item by item.
        chosen: The strategy that `ensemble=` named.
        settings: The run's config, by keys with points.
        losses: By strategy, item by item, nats per token of the reference response; None where the item did not fit.
        figures: By strategy, its row in summary.json.
        data: The name of the data.
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

    def strategy_settings(self, name: str) -> dict[str, Any]:
        """What the run's config says of a strategy beside its file."""
        node = "ensemble." if name == self.chosen else f"evaluation.settings.{name}."
        return {key: value for key, value in self.settings.items() if key.startswith(node)}


def run_folders(given: Sequence[Path]) -> list[Path]:
    """The runs that folders stand for: themselves, or the finished jobs of a sweep.

    Raises:
        DataError: A folder holds no predictions.
    """
    found: list[Path] = []
    for folder in given:
        inside = [path.parent for path in sorted(folder.glob(f"*/{PREDICTIONS}"))]
        own = [folder] if (folder / PREDICTIONS).is_file() else inside
        if not own:
            raise DataError(
                f"{folder}: no {PREDICTIONS} there; give the folder of a finished run or of a sweep"
            )
        found += own
    return found


def read_run(folder: Path) -> FinishedRun:
    """What a run's strategies had right.

    Raises:
        ElreaError: The last run there is not finished, or its files are not as it wrote them.
    """
    if not (folder / STATUS).is_file():
        raise DataError(f"{folder}: no {STATUS} there; give a finished run's folder, whole")
    job = read_job(folder)
    if job["state"] == "damaged":
        raise DataError(job["error"])
    if job["state"] != "done":
        why = f" ({job['error']})" if "error" in job else ""
        raise DataError(
            f"{folder}: the last run there is {job['state']}, not done{why}; older files there are not its own"
        )
    settings = leaves(load_config(folder / "config.yaml"))
    path = folder / PREDICTIONS
    try:
        rows = list(_rows(path))
        _check(rows, job["strategies"], path)
        rows.sort(key=lambda row: str(row["id"]))
        return FinishedRun(
            folder,
            int(read_json(folder / SUMMARY)["seed"]),
            [(row["id"], row["answer"]) for row in rows],
            {name: _correct(rows, name) for name in job["strategies"]},
            job["chosen"],
            settings,
            {
                name: [row["strategies"][name].get("loss") for row in rows]
                for name in job["strategies"]
            },
            job["strategies"],
            job["data"],
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not as a run writes it ({error!r})") from error


def _check(rows: Sequence[Any], figures: Mapping[str, Any], path: Path) -> None:
    """Holds predictions against the figures that summary.json made of them.

    Raises:
        DataError: They are others.
    """
    ids = [str(row["id"]) for row in rows]
    if len(set(ids)) < len(ids):
        (twice, _), *_ = Counter(ids).most_common(1)
        raise DataError(f"{path}: the id {twice!r} stands twice; the run wrote other predictions")
    for name, row in figures.items():
        right = _correct(rows, name)
        digest = checksum_of_correct(right)
        if (len(rows), digest) != (row["n"], row["correct_sha256"]):
            raise DataError(
                f"{path}: its {len(rows):,} lines are not the {row['n']:,} answers of {name} that {SUMMARY} counts; "
                "make the run again"
            )


def _correct(rows: Sequence[Any], name: str) -> list[bool]:
    found = [row["strategies"][name]["correct"] for row in rows]
    if not all(isinstance(each, bool) for each in found):
        raise TypeError(f"{name}: correct is true or false")
    return found


def check_same_settings(runs: Sequence[FinishedRun], names: Sequence[str]) -> None:
    """Refuses runs that differ in more than the seed, as far as these strategies' answers can hang on it.

    Raises:
        DataError: Which two, and in what.
    """

    def shared(run: FinishedRun) -> dict[str, Any]:
        return {
            key: value
            for key, value in run.settings.items()
            if not any(key == free or key.startswith(f"{free}.") for free in MAY_DIFFER)
        }

    groups = [[(run, shared(run)) for run in runs]]
    for name in names:
        scored = [run for run in runs if name in run.correct]
        for chosen in (True, False):
            groups.append(
                [(r, r.strategy_settings(name)) for r in scored if (r.chosen == name) == chosen]
            )
    for (first, theirs), *others in filter(None, groups):
        for run, mine in others:
            for key in sorted(mine.keys() | theirs.keys()):
                one, other = (each.get(key, "not there") for each in (mine, theirs))
                if one != other:
                    raise DataError(
                        f"{run.folder} and {first.folder} differ in {key} ({one} and {other}); name runs that differ "
                        "in the seed alone"
                    )


def _rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def finished_jobs(
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
    values = varied_values(jobs)
    keys = setting_keys(values)
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
