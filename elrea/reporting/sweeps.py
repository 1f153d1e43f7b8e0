"""What the jobs of a sweep came to: read back, over seeds, as a table, as pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.store.files import read_json, sha256

STATUS, SUMMARY = "status.json", "summary.json"
BASE = "base"
LINES = 24
"""In a picture at most."""


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """status.json of every job by number, with `number`, and of summary.json, where there is one, `strategies`, `data`.

    A job whose files are not as it wrote them has the state `damaged`, and an `error` that says which.
    """
    jobs = [read_job(path.parent) for path in folder.glob(f"*/{STATUS}")]
    return sorted(jobs, key=lambda job: (len(job["number"]), job["number"]))


def read_job(folder: Path) -> dict[str, Any]:
    """The same of one job, or of a run that was alone."""
    path = folder / STATUS
    blank = {"words": [], "chosen": "-", "seconds": 0.0}
    known: dict[str, Any] = {"number": folder.name, "strategies": {}}
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
            known |= _scores(summary)
    except StoreError as error:
        return {**blank, **known, "state": "damaged", "error": str(error)}
    return {**job, **known}


def _scores(summary: Path) -> dict[str, Any]:
    """`strategies` and `data` of summary.json, held to what is made of them later."""

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
            for row in rows.values()
        )
    ):
        raise StoreError(f"{summary}: not as a job writes it")
    return {"strategies": rows, "data": data}


def varied_values(jobs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Keys whose values differ between the jobs -> the value of each job."""
    words = [dict(word.lstrip("+~").partition("=")[::2] for word in job["words"]) for job in jobs]
    keys = list(dict.fromkeys(key for given in words for key in given))
    found = {key: [given.get(key, "") for given in words] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def seed_means(jobs: Sequence[Mapping[str, Any]], over: str = BASE) -> list[dict[str, Any]]:
    """Every strategy in every setting, over seeds: what `elrea.reporting.plots.trends.against` draws.

    Args:
        jobs: As `read_jobs` reads them.
        over: The strategy that differences are taken to.

    Returns:
        Rows of `group` (values of what is varied beside the seed and the strategy of interest, whose jobs score others
        too), `strategy`, `seeds` (how many), `passes`; shares of 1: `accuracy` (their mean), `accuracy_seeds` (the
        least and the most), `accuracy_ci95` (the mean of their 95 % bounds), and likewise `delta`, `delta_seeds` and
        `delta_ci95` (paired): the difference to `over`, None for itself. `delta_ci95` is None unless that is the base.
    """
    keys = varied_values(jobs)
    found: dict[tuple[Any, ...], dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for i, job in enumerate(jobs):
        group = tuple(keys[key][i] for key in setting_keys(keys))
        seed = keys["seed"][i] if "seed" in keys else ""
        for name, row in job["strategies"].items():
            found.setdefault((group, name), {})[seed] = (row, job["strategies"].get(over, {}))
    rows = []
    for (group, name), seeds in found.items():
        each = [row["accuracy"] for row, _ in seeds.values()]
        other = [than.get("accuracy") for _, than in seeds.values()]
        deltas = (
            []
            if name == over or None in other
            else [a - b for a, b in zip(each, other, strict=True)]
        )
        bounds = (
            [row.get("delta_ci95") for row, _ in seeds.values()] if deltas and over == BASE else []
        )
        rows.append(
            {
                "group": group, "strategy": name, "seeds": len(each),
                "passes": _mean([row["forward_passes"] for row, _ in seeds.values()]),
                "accuracy": _mean(each), "accuracy_seeds": (min(each), max(each)),
                "accuracy_ci95": _ends([row.get("ci95") for row, _ in seeds.values()]),
                "delta": _mean(deltas) if deltas else None,
                "delta_seeds": (min(deltas), max(deltas)) if deltas else None,
                "delta_ci95": _ends(bounds),
            }
        )  # fmt: skip
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ends(bounds: Sequence[Sequence[float] | None]) -> tuple[float, float] | None:
    known = [each for each in bounds if each is not None]
    if not known or len(known) < len(bounds):
        return None
    return _mean([low for low, _ in known]), _mean([high for _, high in known])


def setting_keys(keys: Iterable[str]) -> list[str]:
    """What is varied beside the seed and the strategy of interest."""
    return [key for key in keys if key not in ("seed", "ensemble")]


def as_csv(jobs: Sequence[Mapping[str, Any]]) -> str:
    """A row per job and strategy: what was varied, and what it came to. A cell that a spreadsheet would take for a
    formula begins with an apostrophe."""
    keys = varied_values(jobs)
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


def write_report(folder: Path, words: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Draws the sweep's pictures and writes its report.html; `words` were typed behind run.py."""
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
    """Draws cost.png; where the first key's values are numbers, trend.png and gain.png against it; where nothing but
    seeds varies, accuracy.png.

    Args:
        rows: Of `seed_means`.
        keys: What their groups are values of.
        folder: Where to.
        note: Small print of the pictures.
        chance: Accuracy of guessing, a share of 1, for accuracy.png; None where it is not known.
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
        if len(lines) <= LINES:
            trends.against(rows, keys[0], folder / "trend.png", note=note)
            trends.against(rows, keys[0], folder / "gain.png", gain_on=BASE, note=note)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
