"""Reads the results of a sweep's jobs, and writes sweep.csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.evaluation.similarity import MEASURES
from elrea.store.files import read_json, sha256

STATUS, SUMMARY = "status.json", "summary.json"
"""Files of a run."""
SWEEP, TABLE = "sweep.json", "sweep.csv"
"""Files of a sweep: its overrides, from the start; and the table of its jobs, once all have ended."""
CHANGE_NO_RESULT = (
    "name", "store", "plan", "until", "debug", "plugins", "tracking", "trainer.accelerator", "trainer.devices",
    "trainer.strategy", "trainer.threads", "training.checkpoint_minutes", "training.recompute", "features.batch_size",
    "features.batch_tokens", "features.buffer_mb", "features.recompute", "evaluation.batch_size",
)  # fmt: skip
"""Config keys, with all keys below them, that say where and how fast a run is made, or end it early. With dropout, the
processes of trainer.strategy draw other masks than one process: another draw of the same setting, as a seed is."""
BOUNDS = ("_ci95_low", "_ci95_high")
"""Ends of the names of an interval's columns in sweep.csv."""


def is_below(key: str, names: Sequence[str]) -> bool:
    """Whether a config key is one of the names, or below one of them."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """All jobs of a sweep as `read_job` returns them, in the order of their numbers."""
    jobs = [read_job(path.parent) for path in folder.glob(f"*/{STATUS}")]
    return sorted(jobs, key=lambda job: (len(job["number"]), job["number"]))


def read_job(folder: Path) -> dict[str, Any]:
    """Fields of status.json with `number` and, from summary.json of a finished job, `strategies` and `data`.

    A job whose files are invalid or were changed has the state `damaged`, and an `error` that names the file.

    Args:
        folder: Of a job of a sweep, or of a single run.
    """
    path = folder / STATUS
    blank = {"words": [], "chosen": "-", "seconds": 0.0}
    added: dict[str, Any] = {"number": folder.name, "strategies": {}}
    try:
        job = read_json(path)
        if (
            not isinstance(job, dict)
            or not all(
                isinstance(job.get(name), kind)
                for name, kind in (
                    ("words", list),
                    ("chosen", str),
                    ("seconds", float),
                    ("state", str),
                )
            )
            or not all(isinstance(word, str) for word in job["words"])
        ):
            raise StoreError(f"{path}: invalid fields; run the same command again")
        if job["state"] == "done":
            summary = path.with_name(SUMMARY)
            if not summary.is_file() or sha256(summary) != job.get(SUMMARY):
                raise StoreError(
                    f"{summary}: checksum mismatch; run the same command again to replace it"
                )
            added |= _scores(summary)
    except StoreError as error:
        return {**blank, **added, "state": "damaged", "error": str(error)}
    return {**job, **added}


def _scores(summary: Path) -> dict[str, Any]:
    """`strategies` and `data` of summary.json, checked for the types that tables and plots need."""

    def number(value: Any) -> bool:
        return type(value) in (int, float) and abs(value) < 1e12

    def interval(value: Any) -> bool:
        return value is None or (
            isinstance(value, list) and len(value) == 2 and all(map(number, value))
        )

    found = read_json(summary)
    found = found if isinstance(found, dict) else {}
    rows, data = found.get("strategies"), found.get("data", "")
    if (
        not isinstance(rows, dict)
        or not isinstance(data, str)
        or not all(
            isinstance(row, dict)
            and (row.get("accuracy", "") is None or number(row.get("accuracy")))
            and number(row.get("forward_passes"))
            and "delta_to_base" in row
            and (row["delta_to_base"] is None or number(row["delta_to_base"]))
            and all(interval(row.get(name)) for name in ("ci95", "delta_ci95"))
            and isinstance(free := row.get("free_text") or {}, dict)
            and all(
                number(free.get(m)) and interval(free.get(f"{m}_ci95")) for m in MEASURES if free
            )
            for row in rows.values()
        )
    ):
        raise StoreError(f"{summary}: invalid fields; run the same command again")
    return {"strategies": rows, "data": data, "stages": _stages(found.get("stages"), number)}


def _stages(found: Any, number: Callable[[Any], bool]) -> dict[str, dict[str, Any]]:
    """`seconds` and `strategies` of each stage in summary.json; empty where the file does not say them."""
    if not isinstance(found, dict) or not all(
        isinstance(stage, dict) and number(stage.get("seconds")) for stage in found.values()
    ):
        return {}
    return {
        name: {"seconds": stage["seconds"], "strategies": stage.get("strategies")}
        for name, stage in found.items()
    }


def making_seconds(job: Mapping[str, Any]) -> float | None:
    """Seconds that making all stages of a job took, whichever run made them; None if the job does not say."""
    stages = job.get("stages") or {}
    if not stages or job["state"] != "done":  # until= leaves the stages' keys alone
        return None
    return round(sum(stage["seconds"] for stage in stages.values()), 3)


def training_seconds(job: Mapping[str, Any], strategy: str) -> float | None:
    """Seconds that making the stages took which a strategy needs before it can answer; scoring is not among them.

    Args:
        job: As `read_job` returns it.
        strategy: Its name.

    Returns:
        The seconds, whichever run made the stages; None for a job of an older version, which does not say it.
    """
    stages = list((job.get("stages") or {}).values())
    if (
        not stages
        or job["state"] != "done"
        or not all(isinstance(stage["strategies"], list) for stage in stages)
    ):
        return None
    return round(math.fsum(s["seconds"] for s in stages if strategy in s["strategies"]), 3)


def typed_values(jobs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By key that was typed for any job, the value in each job."""
    words = [dict(word.lstrip("+~").partition("=")[::2] for word in job["words"]) for job in jobs]
    keys = list(dict.fromkeys(key for given in words for key in given))
    return {key: [given.get(key, "") for given in words] for key in keys}


def varied_values(jobs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Values that differ between jobs: by key, the value in each job."""
    return {key: values for key, values in typed_values(jobs).items() if len(set(values)) > 1}


def setting_keys(keys: Iterable[str]) -> list[str]:
    """Keys that distinguish settings: all except the seed and the chosen strategy."""
    return [key for key in keys if key not in ("seed", "ensemble")]


def as_csv(jobs: Sequence[Mapping[str, Any]]) -> str:
    """CSV text with a row per job and strategy: the values that vary, the job's state and the strategy's figures.

    `seconds_making` is what all stages of the job took when they were made, by this job or another one;
    `seconds_run` is what this job took, which found some of them in the store; `seconds_training` is the part of
    `seconds_making` that the strategy needs before it can answer. What an older version did not record is blank.
    Strategies that wrote texts for free responses have their similarity in columns at the end.

    A cell that a spreadsheet would read as a formula gets a leading apostrophe.
    """
    keys = varied_values(jobs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = ["accuracy", "ci95_low", "ci95_high", "delta_to_base", "forward_passes"]
    found = [row for job in jobs for row in job["strategies"].values()]
    lengths = [name for name in ("acc_norm", "acc_bytes") if any(name in row for row in found)]
    written = any(row.get("free_text") for row in found)
    free = [f"{m}{end}" for m in MEASURES for end in ("", *BOUNDS)] if written else []
    times = ["seconds_making", "seconds_run"]
    heads = ["strategy", "n", *figures, "seconds_training", *lengths, *free]
    writer.writerow(["job", *keys, "state", *times, *heads])
    for i, job in enumerate(jobs):
        head = [job["number"], *(values[i] for values in keys.values()), job["state"]]
        rows = job["strategies"] or {"": {}}
        for name, row in rows.items():
            low, high = row.get("ci95") or ("", "")
            scores = [row.get("accuracy", ""), low, high, row.get("delta_to_base")]
            cells = [
                *head,
                making_seconds(job),
                job.get("seconds"),
                name,
                row.get("n", ""),
                *scores,
                row.get("forward_passes"),
                training_seconds(job, name),
                *(row.get(length) for length in lengths),
                *(_free_text(row) if free else ()),
            ]
            writer.writerow([_csv_cell(cell) for cell in cells])
    return text.getvalue()


def _free_text(row: Mapping[str, Any]) -> list[Any]:
    """Of each measure: the mean and its bounds; empty cells for a strategy without such texts."""
    found = row.get("free_text") or {}
    cells: list[Any] = []
    for name in MEASURES:
        cells += [found.get(name), *(found.get(f"{name}_ci95") or ("", ""))]
    return cells


def _csv_cell(cell: Any) -> Any:
    """The cell; "" for None, and a leading apostrophe for text that looks like a formula."""
    risky = (
        isinstance(cell, str)
        and cell[:1] in ("=", "+", "-", "@", "\t", "\r")
        and number_of(cell) is None
    )
    return f"'{cell}" if risky else "" if cell is None else cell


def number_of(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
