"""What the jobs of a sweep came to: read back, over seeds, as a table, as pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.files import read_json, sha256

STATUS, SUMMARY = "status.json", "summary.json"
LINES = 24
"""In a picture at most."""


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """status.json of every job by number, with `number`, and `strategies` of summary.json where there are any.

    A job whose files are not as it wrote them has the state `damaged`, and an `error` that says which.
    """
    jobs = [_job(path) for path in folder.glob(f"*/{STATUS}")]
    return sorted(jobs, key=lambda job: (len(job["number"]), job["number"]))


def _job(path: Path) -> dict[str, Any]:
    blank = {"words": [], "chosen": "-", "seconds": 0.0}
    known = {"number": path.parent.name, "strategies": {}}
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
            raise StoreError(f"{path}: not as a job writes it")
        if job["state"] == "done":
            summary = path.with_name(SUMMARY)
            if not summary.is_file() or sha256(summary) != job.get(SUMMARY):
                raise StoreError(
                    f"{summary} is not as the job wrote it; the same command again mends it"
                )
            known["strategies"] = _scores(summary)
    except StoreError as error:
        return {**blank, **known, "state": "damaged", "error": str(error)}
    return {**job, **known}


def _scores(summary: Path) -> dict[str, Any]:
    """Every strategy's row of summary.json, with what is made of it later."""

    def number(value: Any) -> bool:
        return type(value) in (int, float) and abs(value) < 1e12

    found = read_json(summary)
    rows = found.get("strategies") if isinstance(found, dict) else None
    if not isinstance(rows, dict) or not all(
        isinstance(row, dict)
        and number(row.get("accuracy"))
        and number(row.get("forward_passes"))
        and "delta_to_base" in row
        and (row["delta_to_base"] is None or number(row["delta_to_base"]))
        and (row.get("ci95") is None or (isinstance(row["ci95"], list) and len(row["ci95"]) == 2))
        for row in rows.values()
    ):
        raise StoreError(f"{summary}: not as a job writes it")
    return rows


def varied(jobs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Keys whose values differ between the jobs -> the value of each job."""
    words = [dict(word.lstrip("+~").partition("=")[::2] for word in job["words"]) for job in jobs]
    keys = list(dict.fromkeys(key for given in words for key in given))
    found = {key: [given.get(key, "") for given in words] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def means(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every strategy in every setting, over seeds.

    Returns:
        Rows of `group` (values of what is varied beside the seed and the strategy of interest, whose jobs score others
        too), `strategy`, `seeds`, `accuracy` (their mean), `low`, `high` (the least and the most), `delta` (mean
        difference to base, None for base) and `passes`.
    """
    keys = varied(jobs)
    found: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for i, job in enumerate(jobs):
        group = tuple(keys[key][i] for key in settings(keys))
        seed = keys["seed"][i] if "seed" in keys else ""
        for name, row in job["strategies"].items():
            found.setdefault((group, name), {})[seed] = row
    rows = []
    for (group, name), seeds in found.items():
        each = [row["accuracy"] for row in seeds.values()]
        deltas = [row["delta_to_base"] for row in seeds.values()]
        rows.append(
            {
                "group": group, "strategy": name, "seeds": len(each), "accuracy": sum(each) / len(each),
                "low": min(each), "high": max(each),
                "delta": None if None in deltas else sum(deltas) / len(deltas),
                "passes": sum(row["forward_passes"] for row in seeds.values()) / len(each),
            }
        )  # fmt: skip
    return rows


def settings(keys: Iterable[str]) -> list[str]:
    """What is varied beside the seed and the strategy of interest."""
    return [key for key in keys if key not in ("seed", "ensemble")]


def as_csv(jobs: Sequence[Mapping[str, Any]]) -> str:
    """A row per job and strategy: what was varied, and what it came to. A cell that a spreadsheet would take for a
    formula begins with an apostrophe."""
    keys = varied(jobs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = ["accuracy", "ci95_low", "ci95_high", "delta_to_base", "forward_passes"]
    writer.writerow(["job", *keys, "state", "seconds", "strategy", "n", *figures])
    for i, job in enumerate(jobs):
        head = [job["number"], *(values[i] for values in keys.values()), job["state"]]
        rows = job["strategies"] or {"": {}}
        for name, row in rows.items():
            low, high = row.get("ci95") or ("", "")
            own = [row.get("accuracy", ""), low, high, row.get("delta_to_base")]
            cells = [*head, job["seconds"], name, row.get("n", ""), *own, row.get("forward_passes")]
            writer.writerow([_plain(cell) for cell in cells])
    return text.getvalue()


def _plain(cell: Any) -> Any:
    risky = (
        isinstance(cell, str)
        and cell[:1] in ("=", "+", "-", "@", "\t", "\r")
        and _number(cell) is None
    )
    return f"'{cell}" if risky else "" if cell is None else cell


def report(folder: Path, words: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Draws the sweep's pictures and writes its report.html."""
    from elrea.tracking import trends
    from elrea.tracking.report import sweep_report

    rows, values = means(jobs), varied(jobs)
    keys = settings(values)
    if rows:
        points: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            points.setdefault(row["strategy"], []).append((row["passes"], row["accuracy"]))
        trends.cost(points, folder / "plots" / "cost.png")
    if keys and all(_number(value) is not None for value in values[keys[0]]):
        lines: dict[str, list[tuple[float, float, float, float]]] = {}
        for row in rows:
            x, *others = row["group"]
            name = ", ".join([row["strategy"], *others])
            point = (_number(x) or 0.0, row["accuracy"], row["low"], row["high"])
            lines.setdefault(name, []).append(point)
        if 0 < len(lines) <= LINES:
            trends.trend(lines, keys[0], folder / "plots" / "trend.png")
    sweep_report(folder, words, jobs, values, keys, rows)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
