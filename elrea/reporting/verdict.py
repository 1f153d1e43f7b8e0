"""The result of a verdict: as JSON, as a table and lines for the terminal, and as report.html with its picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elrea.errors import DataError
from elrea.evaluation.learning_curve import Curves
from elrea.evaluation.verdict import Decision, Verdict, decide, share_text
from elrea.reporting.runs import FinishedRun, read_run
from elrea.reporting.sweeps import read_job, training_seconds
from elrea.reporting.terminal import coloured, interval, percent, plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from elrea.pipeline.ladder import Ladder

MEASURES = ("accuracy", "loss")


def verdict_of(
    settings: Verdict,
    ladder: Ladder,
    folders: Sequence[Path],
    *,
    data: str,
    judged: bool,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """The verdict, as verdict.json has it.

    Args:
        settings: Of the verdict.
        ladder: The parts, and what the candidates cost.
        folders: Of the parts' finished runs.
        data: Name of the data.
        judged: Whether every dev example has choices or a judge; else the loss says more than a word-for-word match.
        seed: Of the draws.
        resamples: Bootstrap resamples.

    Raises:
        DataError: A run's files cannot be read, its items are not those of the others, or there is nothing to measure.
    """
    runs, names = [read_run(folder) for folder in folders], list(ladder.costs)
    shares = [part.share for part in ladder.parts]
    scores = _scores(runs, names)
    first = "accuracy" if judged or "loss" not in scores else "loss"
    if (measure := settings.measure or first) not in scores:
        raise DataError(f"verdict.measure={measure}: the dev examples have no {measure}")
    candidates = _candidates(runs[-1], ladder)
    for kind, rows in scores.items():
        curves = Curves(rows, shares)
        for k, name in enumerate(names):
            candidates[name][kind] = _line(curves, k)
    costs = {n: (round(c["cost"], 9), c["passes_per_prompt"]) for n, c in candidates.items()}
    decisions = {
        kind: decide(
            names, rows, shares, costs, lower_is_better=kind == "loss", seed=seed,
            resamples=resamples,
        )
        for kind, rows in scores.items()
    }  # fmt: skip
    return {
        "schema_name": "elrea-verdict",
        "version": 1,
        "data": data,
        "measure": measure,
        "items": scores[measure].shape[2],
        "rows": ladder.rows,
        "parts": [
            {"rows": p.rows, "share": p.share, "seed": p.seed, "cost": p.cost, "folder": folder.name}
            for p, folder in zip(ladder.parts, folders, strict=True)
        ],
        "budget": settings.budget,
        "spent": ladder.spent,
        "elrea_passes_x_tokens": ladder.elrea,
        "candidates": candidates,
        **{kind: _decision(decision) for kind, decision in decisions.items()},
    }  # fmt: skip


def _candidates(largest: FinishedRun, ladder: Ladder) -> dict[str, dict[str, Any]]:
    """By candidate, what it costs at the full size; seconds are those of the largest part, by its share."""
    job, share = read_job(largest.folder), ladder.parts[-1].share
    found: dict[str, dict[str, Any]] = {}
    for name, cost in ladder.costs.items():
        seconds = training_seconds(job, name)
        found[name] = {
            "cost": cost,
            "passes_per_prompt": float(largest.figures[name]["forward_passes"]),
            "seconds_of_training": None if seconds is None else seconds / share,
        }
    return found


def _scores(runs: Sequence[FinishedRun], names: Sequence[str]) -> dict[str, np.ndarray]:
    """By measure, scores [candidates, runs, items]; without the measures that the items do not have.

    Raises:
        DataError: Runs have different items.
    """
    if any(run.items != runs[0].items for run in runs):
        raise DataError(f"{runs[0].folder.parent}: its runs scored different items; run again")
    found = {}
    if all(run.figures[name]["accuracy"] is not None for run in runs for name in names):
        found["accuracy"] = np.array([[run.correct[n] for run in runs] for n in names], dtype=float)
    losses = np.array([[run.all_losses[n] for run in runs] for n in names], dtype=float)
    there = ~np.isnan(losses).any(axis=(0, 1))
    if there.any():
        found["loss"] = losses[:, :, there]
    return found


def _line(curves: Curves, k: int) -> dict[str, Any]:
    """A candidate's curve."""
    return {
        "means": [round(float(mean), 6) for mean in curves.means[k]],
        "full": round(float(curves.full[k]), 6),
        "per_doubling": round(float(curves.slopes[k]), 6),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "best": decision.best,
        "pick": decision.pick,
        "decided": decision.decided,
        "level": list(decision.level),
        "best_ahead": {
            name: {"mean": round(d.mean, 6), "ci95": [round(d.low, 6), round(d.high, 6)]}
            for name, d in decision.ahead.items()
        },
    }


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """The verdict in words.

    Args:
        found: From `verdict_of`.
    """
    measure, rows = found["measure"], f"{found['rows']:,}"
    decision = found[measure]
    best, ahead = decision["best"], decision["best_ahead"]
    unit = "points" if measure == "accuracy" else "nats per token"
    if decision["decided"]:
        nearest = min(ahead, key=lambda name: ahead[name]["mean"])
        by = difference(ahead[nearest], measure)
        yield f"Verdict: with all {rows} examples {best} will be best, by {by} {unit} over {nearest}"
    else:
        level = ", ".join(
            f"{name} ({difference(ahead[name], measure)})" for name in decision["level"]
        )
        yield (
            f"Verdict: undecided. With all {rows} examples the lines put {best} first, but do not tell it apart from "
            f"{level}, in {unit}. The cheapest of these: {decision['pick']}"
        )
    other = next((m for m in MEASURES if m != measure and m in found), None)
    if other is not None and found[other]["best"] != best:
        sure = "" if found[other]["decided"] else ", undecided"
        yield f"By {other} it would be {found[other]['best']}{sure}"
    cost = found["candidates"][decision["pick"]]
    yield (
        f"What {decision['pick']} costs with all examples: {cost['cost']:.2f} of a full ELREA run"
        f"{_minutes(cost['seconds_of_training'])}, and {cost['passes_per_prompt']:g} passes per prompt"
    )
    yield (
        f"Spent: {found['spent']:.3f} of a full ELREA run (budget {found['budget']:g}), in passes x tokens of "
        "training; scoring dev is not in it"
    )


def difference(one: Mapping[str, Any], measure: str) -> str:
    """A difference and its interval: in points of 100, or in nats."""
    if measure == "accuracy":
        return f"{percent(one['mean'], signed=True)} {interval(one['ci95'], signed=True)}"
    low, high = one["ci95"]
    return f"{one['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _minutes(seconds: float | None) -> str:
    from elrea.reporting.progress import duration

    return "" if seconds is None else f", about {duration(seconds)} of training on this machine"


def heads(found: Mapping[str, Any]) -> list[str]:
    """Heads of the table's columns."""
    measure = found["measure"]
    unit = " %" if measure == "accuracy" else ""
    parts = [f"{p['rows']:,} rows" for p in _sizes(found)]
    return [
        "candidate",
        *parts,
        f"all, {measure}{unit}",
        "lead of the first",
        "cost",
        "passes/prompt",
    ]


def table_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The table: a row for each candidate, with its mean at each size over seeds."""
    measure = found["measure"]
    ahead = found[measure]["best_ahead"]
    rows = []
    for name, one in found["candidates"].items():
        means, all_parts = one[measure]["means"], found["parts"]
        each = [
            float(np.mean([m for m, p in zip(means, all_parts, strict=True) if p["rows"] == size]))
            for size in [p["rows"] for p in _sizes(found)]
        ]
        rows.append(
            [
                name,
                *(_score(mean, measure) for mean in (*each, one[measure]["full"])),
                difference(ahead[name], measure) if name in ahead else "first",
                f"{one['cost']:.2f}",
                f"{one['passes_per_prompt']:g}",
            ]
        )
    return rows


def verdict_table(found: Mapping[str, Any]) -> Table:
    """The table for the terminal."""
    units = (
        "accuracy in %, leads in points"
        if found["measure"] == "accuracy"
        else "loss in nats per token"
    )
    table = plain_table(
        f"Verdict: {units}",
        "all: by a line in log n; cost: of a full ELREA run; passes: forward passes per prompt",
    )
    names = [*heads(found)[:-4], "all", "first's lead", "cost", "passes"]
    for i, head in enumerate(names):
        whole = i in (0, len(names) - 3)  # candidates and intervals are read as one
        table.add_column(head, justify="right" if i else "left", overflow="fold", no_wrap=whole)
    ahead = found[found["measure"]]["best_ahead"]
    for row in table_rows(found):
        bounds = ahead[row[0]]["ci95"] if row[0] in ahead else None
        cells: list[Any] = [*row]
        cells[-3] = coloured(row[-3], bounds)
        table.add_row(*cells)
    return table


def ladder_table(ladder: Ladder) -> Table:
    """The parts and their costs, before anything is trained."""
    table = plain_table("Parts of the training data")
    for i, head in enumerate(("share", "rows", "seed", "cost, full ELREA runs")):
        table.add_column(head, justify="right" if i else "left")
    for part in ladder.parts:
        table.add_row(share_text(part.share), f"{part.rows:,}", str(part.seed), f"{part.cost:.3f}")
    return table


def ladder_sentences(ladder: Ladder, settings: Verdict) -> Iterator[str]:
    """What the budget does to the parts, and what the candidates cost."""
    each = ", ".join(f"{name} {cost:.2f}" for name, cost in ladder.costs.items())
    yield f"Candidates, with what each costs alone on all {ladder.rows:,} examples: {each} of a full ELREA run"
    line = f"To spend: {ladder.spent:.3f} of a full ELREA run, of a budget of {settings.budget:g}"
    if settings.fractions is None and ladder.halves > settings.budget:
        line += f"; 1/8, 1/4 and 1/2 of the data would take {ladder.halves:.2f} (verdict.budget)"
    yield line


def _sizes(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of the first seed."""
    return [part for part in found["parts"] if part["seed"] == found["parts"][0]["seed"]]


def _score(value: float, measure: str) -> str:
    return percent(value) if measure == "accuracy" else f"{value:.3f}"


def write_report(folder: Path, found: Mapping[str, Any], words: Sequence[str]) -> None:
    """Draws the picture and writes report.html.

    Args:
        folder: Of the verdict.
        found: From `verdict_of`.
        words: The command line after `run.py`.
    """
    from elrea.reporting.html import verdict_report
    from elrea.reporting.plots.curves import draw_curves

    kinds = [kind for kind in MEASURES if kind in found]
    pictures = {}
    for kind in kinds:
        name = f"curves_{kind}"
        pictures[name] = folder / "plots" / f"{name}.png"
        draw_curves(found, kind, pictures[name])
    parts = [
        (p["folder"], f"{p['rows']:,}", share_text(p["share"]), str(p["seed"]), f"{p['cost']:.3f}")
        for p in found["parts"]
    ]
    verdict_report(
        folder, words, data=found["data"], items=found["items"], lines=list(sentences(found)),
        heads=heads(found), rows=table_rows(found), parts=parts, pictures=pictures,
    )  # fmt: skip
