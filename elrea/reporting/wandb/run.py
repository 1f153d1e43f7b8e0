"""What a run's W&B record holds: curves, tables, pictures, figures, and its stages as artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elrea.pipeline.experiment import Result
from elrea.pipeline.run import Pipeline
from elrea.reporting.summary import curves, source_counts
from elrea.reporting.wandb.tracker import Tracker
from elrea.store.files import read_json, sha256
from elrea.store.stage import Stage

PREDICTIONS = 10_000
"""Rows of the table at most; predictions.jsonl has all."""


def log_run(
    tracker: Tracker,
    pipeline: Pipeline,
    result: Result,
    summary: dict[str, Any],
    pictures: dict[str, Path],
    folder: Path,
    chosen: str,
) -> None:
    """Logs a finished run.

    Args:
        tracker: Open.
        pipeline, result, summary: Of the run.
        pictures: By name.
        folder: Of the run, with predictions.jsonl, and ensemble/ where there is one.
        chosen: The strategy of interest.
    """
    for name, rows in curves(pipeline).items():
        tracker.curve(name, rows)
    main = headline(summary, chosen)
    columns = [
        "strategy",
        "accuracy",
        "ci95_low",
        "ci95_high",
        "delta_to_base",
        "forward_passes",
        "clusters",
        "seed",
    ]
    figures = [
        [name, row["accuracy"], *row["ci95"], row["delta_to_base"], row["forward_passes"], main["cluster_count"],
         summary["seed"]]
        for name, row in summary["strategies"].items()
    ]  # fmt: skip
    tracker.table("results", columns, figures)
    columns = ["cluster", "examples", "main source", "its share", "nearest test prompts"]
    tracker.table("clusters", columns, _clusters(pipeline, result, summary))
    names = list(summary["strategies"])
    heads = ["id", "source", "category", "answer", *names, "nearest cluster", "w_base"]
    tracker.table("predictions", heads, _predictions(folder / "predictions.jsonl", names))
    # One name is one thing to W&B: the table of the clusters is not their picture.
    tracker.images({f"plots/{name}": path for name, path in pictures.items()})
    stages = pipeline.stages()
    for name, stage in stages.items():
        facts = {
            "seconds": summary["stages"][name]["seconds"],
            "reused": result.reused[name],
            "upstream": upstream(stage, stages),
        }
        tracker.artifact(name, stage.name, stage.key, facts)
    about = folder / "ensemble" / "ensemble.json"
    if about.is_file():
        tracker.artifact(
            "ensemble", "ensemble", sha256(about)[:16], _ensemble(read_json(about), stages)
        )
    kept = {key: summary[key] for key in ("data", "strategies", "clusters", "routing", "stages")}
    kept["strategies"] = {  # by task they would be hundreds of columns
        name: {key: value for key, value in row.items() if key != "tasks"}
        for name, row in kept["strategies"].items()
    }
    tracker.summary({**kept, **main})


def headline(summary: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """The figures that runs are compared by, each under a name of its own.

    Args:
        summary: The contents of summary.json.
        chosen: The strategy of interest, whose accuracy, difference to base and passes they are.
    """
    row = summary["strategies"][chosen]
    return {
        "strategy": chosen,
        "accuracy": row["accuracy"],
        "macro": row["macro"],
        "delta_to_base": row["delta_to_base"],
        "forward_passes": row["forward_passes"],
        "w_base": summary["routing"].get("w_base"),
        "routing_entropy": summary["routing"].get("entropy_nats"),
        "gradient_conflict": summary["clusters"].get("conflict"),
        "cluster_count": len(summary["clusters"]["sizes"]) if summary["clusters"] else None,
        "seconds": round(sum(stage["seconds"] for stage in summary["stages"].values()), 3),
    }


def upstream(stage: Stage, stages: Mapping[str, Stage]) -> dict[str, str]:
    """The stages that a stage was made of: key by name."""
    inside = json.dumps(stage.inputs)
    return {
        name: other.key for name, other in stages.items() if other.key != stage.key and f'"{other.key}"' in inside
    }  # fmt: skip


def _ensemble(about: Mapping[str, Any], stages: Mapping[str, Stage]) -> dict[str, Any]:
    """What the exported ensemble was made of: its members, and what it routes by."""
    made_of = [*about["members"], "clusters", "router"]
    upstream = {name: stages[name].key for name in made_of if name in stages}
    return {"reused": False, "members": about["members"], "upstream": upstream}


def _clusters(pipeline: Pipeline, result: Result, summary: Mapping[str, Any]) -> list[list[Any]]:
    """Size, main source with its share, and how many test prompts lie nearest to each cluster."""
    if not pipeline.plan.clustered:
        return []
    sources, counts = source_counts(pipeline, result)
    best, nearest = counts.argmax(axis=0), summary["routing"].get("nearest")
    shares = counts.max(axis=0) / counts.sum(axis=0).clip(1)
    return [
        [c, int(each.sum()), sources[best[c]], round(float(shares[c]), 4), nearest[c] if nearest else None]
        for c, each in enumerate(counts.T)
    ]  # fmt: skip


def _predictions(path: Path, names: list[str]) -> list[list[Any]]:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for line, _ in zip(lines, range(PREDICTIONS), strict=False):
            row = json.loads(line)
            weights = row["weights"]
            nearest = max(range(len(weights)), key=weights.__getitem__) if weights else None
            answers = [_answer(row["strategies"][name]) for name in names]
            facts = [row[name] for name in ("id", "source", "category", "answer")]
            rows.append([*facts, *answers, nearest, row["w_base"]])
    return rows


def _answer(row: Mapping[str, Any]) -> str:
    """What a strategy chose, or what was read out of its text; where there is neither, whether it was right."""
    if row.get("extracted") is not None:
        return str(row["extracted"])
    return str(row["choice"]) if row["choice"] is not None else "right" if row["correct"] else "-"
