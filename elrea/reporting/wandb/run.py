"""Logs a finished run to W&B: curves, tables, plots, summary figures, and stages as artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.evaluation.similarity import MEASURES
from elrea.method.ensemble.folder import STEERING
from elrea.reporting.predictions import predictions
from elrea.reporting.summary import summary_of
from elrea.store.files import sha256

if TYPE_CHECKING:
    from elrea.reporting.report import Report
    from elrea.reporting.wandb.tracker import Tracker

BY_LENGTH = ("acc_norm", "acc_bytes")
"""Accuracies of choices by their likelihood per character and byte, where choices differ in length."""
PREDICTIONS = 10_000
"""Maximum number of rows in the table of predictions; predictions.jsonl has all."""
CLUSTERS = "cluster_table"
"""Name of the table of clusters; `clusters` are figures of the summary."""


def log_run(
    tracker: Tracker,
    report: Report,
    pictures: Mapping[str, Path],
    ensemble: Path | None,
    seconds: float | None = None,
) -> None:
    """Logs a finished run. Curves that were logged during training are not sent again.

    Args:
        tracker: With an open W&B run.
        report: Of the run.
        pictures: Paths of PNG files by name.
        ensemble: Folder of the exported ensemble, or None.
        seconds: What this run has taken so far; None if unknown.
    """
    summary = summary_of(report)
    main = headline(summary, report.chosen, seconds)
    for name, rows in report.curves.items():
        tracker.curve(name, rows)
    _tables(tracker, report, summary, main)
    # Tables, images and figures of the summary need different names in W&B: the last one of a name stays.
    tracker.images({f"plots/{name}": path for name, path in pictures.items()})
    for name, stage in report.stages.items():
        facts = {
            "seconds": stage.seconds,
            "reused": stage.reused,
            "upstream": dict(stage.upstream),
        }
        tracker.artifact(name, stage.kind, stage.key, facts)
    if ensemble is not None and report.members is not None:
        members = report.members.adapters
        keys = {folder.parent.name for folder in members.values()}  # experts may have a rate's name
        inputs = [
            name
            for name, stage in report.stages.items()
            if stage.key in keys or name in ("clusters", "router")
        ]
        if STEERING in report.members.facts:
            inputs = [
                name
                for name, stage in report.stages.items()
                if stage.kind in ("base", "adapter", "clusters")
                and report.chosen in stage.strategies
            ]
        upstream = {name: report.stages[name].key for name in inputs}
        key = sha256(ensemble / "ensemble.json")[:16]
        facts = {"reused": False, "members": list(members), "upstream": upstream}
        tracker.artifact("ensemble", "ensemble", key, facts)
    logged = ("data", "data_note", "strategies", "clusters", "routing", "stages")
    figures = {key: summary[key] for key in logged if key in summary}
    figures["strategies"] = {  # figures by task would be hundreds of columns
        name: {key: value for key, value in row.items() if key != "tasks"}
        for name, row in figures["strategies"].items()
    }
    tracker.summary({**figures, **main})


def headline(
    summary: Mapping[str, Any], chosen: str, seconds: float | None = None
) -> dict[str, Any]:
    """Main figures of a run as a flat mapping, for W&B's list of runs and its panels.

    Args:
        summary: Contents of summary.json.
        chosen: The strategy whose accuracy, difference to base and passes are shown.
        seconds: What this run has taken. `seconds_making` is what making its stages took, also those that it reused.
    """
    row = summary["strategies"][chosen]
    return {
        "strategy": chosen,
        "accuracy": row["accuracy"],
        **{name: row[name] for name in BY_LENGTH if name in row},
        "macro": row["macro"],
        "delta_to_base": row["delta_to_base"],
        "forward_passes": row["forward_passes"],
        "w_base": summary["routing"].get("w_base"),
        "routing_entropy": summary["routing"].get("entropy_nats"),
        "gradient_conflict": summary["clusters"].get("conflict"),
        "cluster_count": len(summary["clusters"]["sizes"]) if summary["clusters"] else None,
        "seconds_making": round(sum(stage["seconds"] for stage in summary["stages"].values()), 3),
        "seconds_run": None if seconds is None else round(seconds, 3),
    }


def _tables(
    tracker: Tracker, report: Report, summary: Mapping[str, Any], main: Mapping[str, Any]
) -> None:
    lengths = [name for name in BY_LENGTH if any(name in row for row in report.strategies.values())]
    columns = [
        "strategy", "accuracy", "ci95_low", "ci95_high", "delta_to_base", "forward_passes", "clusters", "seed",
        *lengths,
    ]  # fmt: skip
    rows = [
        [name, row["accuracy"], *(row["ci95"] or (None, None)), row["delta_to_base"], row["forward_passes"],
         main["cluster_count"], report.seed, *(row.get(length) for length in lengths)]
        for name, row in report.strategies.items()
    ]  # fmt: skip
    tracker.table("results", columns, rows)
    free = [
        [name, found["n"], *(found[key] for key in _free_text_keys())]
        for name, row in report.strategies.items()
        if (found := row.get("free_text"))
    ]
    if free:
        tracker.table("free_text", ["strategy", "n", *_free_text_keys()], free)
    columns = ["cluster", "examples", "main source", "its share", "nearest test prompts"]
    tracker.table(CLUSTERS, columns, _clusters(report, summary["routing"].get("nearest")))
    tracker.table("predictions", _heads(report.strategies), _predictions(report))


def _heads(strategies: Iterable[str]) -> list[str]:
    """Columns of the table of predictions; a strategy that is called as another column, such as `source`, is marked."""
    before, after = ["id", "source", "category", "answer"], ["nearest cluster", "w_base"]
    others = {*before, *after}
    named = [f"{name} (strategy)" if name in others else name for name in strategies]
    return [*before, *named, *after]


def _free_text_keys() -> list[str]:
    return [f"{name}{end}" for name in MEASURES for end in ("", "_delta_to_base")]


def _clusters(report: Report, nearest: list[int] | None) -> list[list[Any]]:
    """A row per cluster: size, main source with its share, and number of test prompts nearest to it."""
    if report.grouping is None:
        return []
    sources, counts = report.grouping.sources, report.grouping.counts
    best, shares = counts.argmax(axis=0), counts.max(axis=0) / counts.sum(axis=0).clip(1)
    return [
        [c, int(each.sum()), sources[best[c]], round(float(shares[c]), 4), nearest[c] if nearest else None]
        for c, each in enumerate(counts.T)
    ]  # fmt: skip


def _predictions(report: Report) -> list[list[Any]]:
    rows = []
    for row in islice(predictions(report), PREDICTIONS):
        weights = row["weights"]
        nearest = max(range(len(weights)), key=weights.__getitem__) if weights else None
        answers = [_answer(answer) for answer in row["strategies"].values()]
        facts = [row[name] for name in ("id", "source", "category")]
        facts.append(_lettered(row, "answer"))
        rows.append([*facts, *answers, nearest, row["w_base"]])
    return rows


def _answer(row: Mapping[str, Any]) -> str:
    """The answer read from a strategy's text, or its choice, or without both whether it was correct."""
    if row.get("extracted") is not None:
        return str(row["extracted"])
    if row["choice"] is not None:
        return _lettered(row, "choice")
    return "right" if row["correct"] else "-"


def _lettered(row: Mapping[str, Any], name: str) -> str:
    """An answer or choice, with the text that its letter stands for."""
    text = row.get(f"{name}_text")
    return str(row[name]) if text is None else f"{row[name]}. {text}"
