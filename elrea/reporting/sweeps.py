"""Reads the results of a sweep's jobs, averages them over seeds, and writes sweep.csv, plots and report.html."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.evaluation.similarity import MEASURES
from elrea.store.files import read_json, sha256

STATUS, SUMMARY = "status.json", "summary.json"
BASE = "base"
BOUNDS = ("_ci95_low", "_ci95_high")
"""Ends of the names of an interval's columns in sweep.csv."""
MAX_LINES = 24
"""A plot with more lines than this is not drawn."""


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
            and number(row.get("accuracy"))
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
    return {"strategies": rows, "data": data}


def varied_values(jobs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Values that differ between jobs: by key, the value in each job."""
    words = [dict(word.lstrip("+~").partition("=")[::2] for word in job["words"]) for job in jobs]
    keys = list(dict.fromkeys(key for given in words for key in given))
    found = {key: [given.get(key, "") for given in words] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def seed_means(jobs: Sequence[Mapping[str, Any]], baseline: str = BASE) -> list[dict[str, Any]]:
    """Averages every strategy in every setting over seeds; `plots.trends.plot_sweep` draws the rows.

    Args:
        jobs: As `read_jobs` returns them.
        baseline: The strategy that is subtracted in differences.

    Returns:
        Rows with these fields; accuracies and differences are shares of 1.

        - `group`: values of the keys that vary, except the seed and `ensemble` (jobs score other strategies too);
        - `strategy`, `seeds` (their number), `passes` (forward passes per prompt);
        - `accuracy`: mean over seeds; `accuracy_seeds`: minimum and maximum over seeds; `accuracy_ci95`: mean of the
          seeds' 95 % bounds;
        - `delta`, `delta_seeds`, `delta_ci95` (paired): the same for the difference to `baseline`, None for the
          baseline itself. `delta_ci95` is None unless the baseline is base.
    """
    keys = varied_values(jobs)
    scored: dict[tuple[Any, ...], dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for i, job in enumerate(jobs):
        group = tuple(keys[key][i] for key in setting_keys(keys))
        seed = keys["seed"][i] if "seed" in keys else ""
        for name, row in job["strategies"].items():
            scored.setdefault((group, name), {})[seed] = (row, job["strategies"].get(baseline, {}))
    rows = []
    for (group, name), seeds in scored.items():
        each = [row["accuracy"] for row, _ in seeds.values()]
        other = [reference.get("accuracy") for _, reference in seeds.values()]
        deltas = (
            []
            if name == baseline or None in other
            else [a - b for a, b in zip(each, other, strict=True)]
        )
        bounds = (
            [row.get("delta_ci95") for row, _ in seeds.values()]
            if deltas and baseline == BASE
            else []
        )
        rows.append(
            {
                "group": group, "strategy": name, "seeds": len(each),
                "passes": _mean([row["forward_passes"] for row, _ in seeds.values()]),
                "accuracy": _mean(each), "accuracy_seeds": (min(each), max(each)),
                "accuracy_ci95": _mean_bounds([row.get("ci95") for row, _ in seeds.values()]),
                "delta": _mean(deltas) if deltas else None,
                "delta_seeds": (min(deltas), max(deltas)) if deltas else None,
                "delta_ci95": _mean_bounds(bounds),
            }
        )  # fmt: skip
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_bounds(bounds: Sequence[Sequence[float] | None]) -> tuple[float, float] | None:
    """Mean lower and mean upper bound; None if there are none or one is missing."""
    known = [each for each in bounds if each is not None]
    if not known or len(known) < len(bounds):
        return None
    return _mean([low for low, _ in known]), _mean([high for _, high in known])


def setting_keys(keys: Iterable[str]) -> list[str]:
    """Keys that distinguish settings: all except the seed and the chosen strategy."""
    return [key for key in keys if key not in ("seed", "ensemble")]


def as_csv(jobs: Sequence[Mapping[str, Any]]) -> str:
    """CSV text with a row per job and strategy: the values that vary, the job's state and the strategy's figures.

    Strategies that wrote texts for free responses have their similarity in columns at the end.
    A cell that a spreadsheet would read as a formula gets a leading apostrophe.
    """
    keys = varied_values(jobs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = ["accuracy", "ci95_low", "ci95_high", "delta_to_base", "forward_passes"]
    written = any(row.get("free_text") for job in jobs for row in job["strategies"].values())
    free = [f"{m}{end}" for m in MEASURES for end in ("", *BOUNDS)] if written else []
    writer.writerow(["job", *keys, "state", "seconds", "strategy", "n", *figures, *free])
    for i, job in enumerate(jobs):
        head = [job["number"], *(values[i] for values in keys.values()), job["state"]]
        rows = job["strategies"] or {"": {}}
        for name, row in rows.items():
            low, high = row.get("ci95") or ("", "")
            scores = [row.get("accuracy", ""), low, high, row.get("delta_to_base")]
            cells = [
                *head,
                job["seconds"],
                name,
                row.get("n", ""),
                *scores,
                row.get("forward_passes"),
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
        and _number(cell) is None
    )
    return f"'{cell}" if risky else "" if cell is None else cell


def write_report(folder: Path, words: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Draws a sweep's plots and writes its report.html.

    Args:
        folder: Of the sweep.
        words: The command line after `run.py`.
        jobs: As `read_jobs` returns them.
    """
    from elrea.reporting.html import data_of, sweep_report

    rows, values = seed_means(jobs), varied_values(jobs)
    keys = setting_keys(values)
    if rows:
        draw_sweep(rows, keys, folder / "plots", "; ".join(data_of(jobs)))
    sweep_report(folder, words, jobs, values, keys, rows)


def draw_sweep(
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    folder: Path,
    note: str = "",
    chance: float | None = None,
) -> None:
    """Draws the plots of a sweep.

    cost.png is always drawn; trend.png and gain.png if the values of the first key are numbers; accuracy.png if only
    the seed varies.

    Args:
        rows: From `seed_means`.
        keys: Keys of the values in `group` of the rows.
        folder: Receives the PNG files.
        note: Added to the titles.
        chance: Accuracy of guessing, a share of 1, for accuracy.png; None if unknown.
    """
    from elrea.reporting.plots import figures as plots
    from elrea.reporting.plots import trends

    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row["strategy"], []).append((row["passes"], row["accuracy"]))
    trends.cost(points, folder / "cost.png", note)
    if not keys:
        figures = {
            row["strategy"]: {
                "accuracy": row["accuracy"],
                "ci95": row["accuracy_ci95"] or row["accuracy_seeds"],
            }
            for row in rows
        }
        plots.accuracy(figures, folder / "accuracy.png", chance, note)
    elif all(_number(row["group"][0]) is not None for row in rows):
        lines = {(row["strategy"], *row["group"][1:]) for row in rows}
        if len(lines) <= MAX_LINES:
            trends.plot_sweep(rows, keys[0], folder / "trend.png", note=note)
            trends.plot_sweep(rows, keys[0], folder / "gain.png", gain_on=BASE, note=note)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
